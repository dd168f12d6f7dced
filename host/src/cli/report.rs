//! `maddock report …`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::args::{Common, Format, Report};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::render;
use super::setup::Setup;
use super::terminal::Terminal;
use crate::capability::events::PluginEvent;
use crate::pipeline::event::Stream;
use crate::pipeline::execute::gravity;
use crate::plugin::manifest::Kind;
use crate::plugin::report::ReportRequest;

/// Lines of a reporter that may wait to be printed before it has to.
const WAITING_EVENTS: usize = 64;

/// Writes the report asked for.
///
/// # Errors
/// Missing or unreadable input: exit 1.
pub async fn run(report: &Report) -> Outcome {
    match report {
        Report::ToHtml { csv_file_path, common } => {
            let input = resolved(csv_file_path, "file")?;
            let output = input.with_extension("html");
            write("to-html", input, output, common).await
        }
        Report::ToEmail { directory, output, common } => {
            let input = resolved(directory, "directory")?;
            let output = input.join(output);
            write("to-email", input, output, common).await
        }
    }
}

fn resolved(path: &Path, what: &str) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot read the {what} `{}`: {error}", path.display())))
}

async fn write(format: &str, input: PathBuf, output: PathBuf, common: &Common) -> Outcome {
    let mut setup = Setup::new(common)?;
    // What the report reads and writes is what the user named: that directory is the output root of this invocation.
    setup.output = output.parent().map_or_else(|| setup.output.clone(), Path::to_owned);
    let reporter = setup
        .plugins
        .providing(Kind::Reporter, format)
        .map_err(|error| Failure::of_plugin(Exit::Failure, &error))?
        .ok_or_else(|| Failure::new(Exit::Failure, format!("no reporter plugin writes `{format}`")))?;
    let request = ReportRequest {
        format: format.to_owned(),
        rows: Vec::new(),
        inputs: vec![input.display().to_string()],
        output: output.display().to_string(),
        options: Vec::new(),
    };
    let (sender, mut receiver) = mpsc::channel(WAITING_EVENTS);
    let session = setup.session()?.telling(sender);
    let terminal = Stream::to(Arc::new(Terminal::new(false, common.verbose)));
    // What was left out is told here and nowhere else.
    let told = tokio::spawn(async move {
        while let Some(event) = receiver.recv().await {
            if let PluginEvent::Log { level, message, .. } = event {
                terminal.say(gravity(level), "", message);
            }
        }
    });
    let produced = reporter.report(&session, &request).await;
    // The teller ends when the last sender is gone.
    drop(session);
    let _ = told.await;
    let produced = produced.map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
    if common.format == Format::Json {
        let list: serde_json::Value = produced
            .iter()
            .map(|p| serde_json::json!({"path": p.path, "media_type": p.media_type, "summary": p.summary}))
            .collect();
        println!("{}", render::json(&list));
    } else {
        for file in &produced {
            println!("{}", crate::capability::events::printable(&file.summary));
        }
    }
    Ok(Exit::Success)
}
