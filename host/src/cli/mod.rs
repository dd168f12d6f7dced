//! The command line: one file per command; parsing and printing, nothing else.

// The standard ones panic where the reader of a pipe is gone. Whoever closed it has read enough, and a run goes on: what
// counts is in its files.
macro_rules! print {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout().lock(), format_args!($($words)*));
    }};
}
macro_rules! println {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout().lock(), format_args!("{}\n", format_args!($($words)*)));
    }};
}
macro_rules! eprintln {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr().lock(), format_args!("{}\n", format_args!($($words)*)));
    }};
}

mod args;

mod attach;
mod background;
mod build;
mod cancel;
mod config;
mod discover;
mod doctor;
mod earlier;
mod exit;
mod failure;
mod follow;
mod invocation;
mod logs;
mod node;
mod outcome;
mod performance;
mod plugin;
mod policy;
mod render;
mod replay;
mod report;

mod run;
mod runs;
mod secret_files;
mod setup;
mod signals;
mod status;
mod style;
mod table;
mod terminal;
mod trace;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};
pub use background::COMMAND as ATTEND;
pub use exit::Exit;
use failure::{Failure, Outcome};

/// The program whose place this one takes.
const PREDECESSOR: &str = "madengine";
/// Names under which this program behaves as itself.
const NAMES: [&str; 2] = ["maddock", PREDECESSOR];

/// The command line's definition, under a name.
#[must_use]
pub fn definition(name: &'static str) -> clap::Command {
    Cli::command().name(name).bin_name(name).display_name(name)
}

/// Runs the program: the only place where an exit code is made.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let called = arguments.first().and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    let name = NAMES.into_iter().find(|name| Some(*name) == called).unwrap_or("maddock");
    if name == PREDECESSOR && arguments.len() == 2 && arguments.get(1).is_some_and(|only| only == "--version") {
        // Scripts look for this line.
        println!("🚀 {name} version {}", env!("CARGO_PKG_VERSION"));
        return Exit::Success.into();
    }
    let parsed = definition(name).try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; everything else is exit 2, as upstream.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match cli.command {
        Command::Completions { shell } => completions(name, shell),
        Command::Database { .. } => {
            Err(Failure::new(Exit::Failure, "uploading results to a database is not in this version")
                .hint("the rows are in `perf.csv` and, as JSON, in `perf_super.json`"))
        }
        Command::Plugin { action } if !plugin::waits(&action) => plugin::run(&action),
        // Its exit code is the model's.
        Command::Node(arguments) => return node::main(&arguments),
        Command::Runs(arguments) => runs::run(&arguments),
        Command::Policy { action } => policy::run(&action),
        Command::Trace { action } => trace::run(&action),
        command => waiting(command),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

fn completions(name: &'static str, shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(name), name, &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(Exit::Success)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot start: {error}")))
}

/// The attendant of a detached run: see `cli/background.rs`.
pub fn attend(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // A session of its own: neither the terminal's Ctrl-C nor its end reaches this process.
    let _ = rustix::process::setsid();
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(background::attend(arguments));
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

/// Commands that wait for something.
fn waiting(command: Command) -> Outcome {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let stop = match &command {
            // These have to clean up, and see to it themselves.
            Command::Build(_)
            | Command::Run(_)
            | Command::Logs(_)
            | Command::Cancel(_)
            | Command::Attach(_)
            | Command::Collect(_) => tokio_util::sync::CancellationToken::new(),
            _ => signals::stop_token()
                .map_err(|error| Failure::new(Exit::Failure, format!("cannot listen to signals: {error}")))?,
        };
        signals::unless_stopped(&stop, called(command)).await
    });
    // What is still going on in the background is nobody's any more.
    runtime.shutdown_background();
    outcome
}

async fn called(command: Command) -> Outcome {
    match command {
        Command::Discover(arguments) => discover::run(&arguments).await,
        Command::Build(arguments) => build::run(*arguments).await,
        Command::Run(arguments) => run::run(*arguments).await,
        Command::Report { report } => report::run(&report).await,
        Command::Doctor(arguments) => doctor::run(&arguments).await,
        Command::Plugin { action } => plugin::wait(&action).await,
        Command::Config { action } => config::run(action).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Logs(arguments) => logs::run(&arguments).await,
        Command::Cancel(arguments) => cancel::run(&arguments).await,
        Command::Attach(arguments) => attach::attach(&arguments).await,
        Command::Collect(arguments) => attach::collect(&arguments).await,
        Command::Replay(arguments) => replay::run(&arguments).await,
        Command::Runs(_)
        | Command::Completions { .. }
        | Command::Policy { .. }
        | Command::Trace { .. }
        | Command::Database { .. }
        | Command::Node(_) => Ok(Exit::Success),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        definition("maddock").debug_assert();
    }

    #[test]
    fn tags_may_be_separated_by_blanks_commas_or_repetition() {
        let cli = Cli::try_parse_from(["maddock", "discover", "--tags", "a", "b,c", "-t", "d"]).unwrap();
        let Command::Discover(discover) = cli.command else { panic!("not discover") };
        assert_eq!(args::pieces(&discover.tags), ["a", "b", "c", "d"]);
    }

    use clap::Parser;
}
