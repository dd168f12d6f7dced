//! What the builder tells, as lines of text: the way `--progress=plain` shows it.

use std::collections::HashMap;
use std::fmt::Write;

use bollard::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus};

/// Lines kept for the message of a build that fails.
const LAST: usize = 25;

#[derive(Debug, Default)]
struct Step {
    number: usize,
    started: Option<f64>,
    announced: bool,
    over: bool,
    /// Of a line whose end has not come yet.
    pending: Vec<u8>,
}

/// Turns the builder's states into text.
#[derive(Debug, Default)]
pub(super) struct Progress {
    steps: HashMap<String, Step>,
    done: std::collections::HashSet<(String, String)>,
    shown: Option<usize>,
    /// The latest lines of what commands wrote.
    last: std::collections::VecDeque<String>,
}

macro_rules! seconds {
    ($time:expr) => {
        // Whole seconds of this century are exact in a float.
        $time.as_ref().map(|time| seconds(time.seconds, time.nanos))
    };
}

fn seconds(whole: i64, nanos: i32) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let whole = whole as f64;
    whole + f64::from(nanos) / 1e9
}

impl Progress {
    /// The lines for one message of the builder.
    pub(super) fn read(&mut self, told: &StatusResponse) -> String {
        let mut text = String::new();
        for vertex in &told.vertexes {
            self.begin(vertex, &mut text);
        }
        for status in &told.statuses {
            self.status(status, &mut text);
        }
        for log in &told.logs {
            self.log(log, &mut text);
        }
        for vertex in &told.vertexes {
            self.end(vertex, &mut text);
        }
        text
    }

    /// The latest lines that commands of the build wrote.
    pub(super) fn last_lines(&self) -> String {
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Text that did not come from `read`, for the latest lines.
    pub(super) fn keep(&mut self, line: &str) {
        if !line.trim().is_empty() {
            self.last.push_back(line.trim_end().to_owned());
        }
        while self.last.len() > LAST {
            self.last.pop_front();
        }
    }

    fn begin(&mut self, vertex: &Vertex, text: &mut String) {
        let next = self.steps.len() + 1;
        let step = self.steps.entry(vertex.digest.clone()).or_insert_with(|| Step { number: next, ..Step::default() });
        if let Some(started) = seconds!(vertex.started) {
            step.started = Some(started);
        }
        if !step.announced && (step.started.is_some() || vertex.cached) {
            step.announced = true;
            separate(&mut self.shown, step.number, text);
            let _ = writeln!(text, "#{} {}", step.number, vertex.name);
        }
    }

    fn end(&mut self, vertex: &Vertex, text: &mut String) {
        let Some(step) = self.steps.get_mut(&vertex.digest) else { return };
        let ended = seconds!(vertex.completed);
        if step.over || !step.announced || (ended.is_none() && !vertex.cached && vertex.error.is_empty()) {
            return;
        }
        step.over = true;
        let number = step.number;
        let started = step.started;
        let rest = std::mem::take(&mut step.pending);
        if !rest.is_empty() {
            let line = String::from_utf8_lossy(&rest).into_owned();
            let _ = writeln!(text, "#{number} {line}");
            self.keep(&line);
        }
        separate(&mut self.shown, number, text);
        let _ = if !vertex.error.is_empty() {
            writeln!(text, "#{number} ERROR: {}", vertex.error)
        } else if vertex.cached {
            writeln!(text, "#{number} CACHED")
        } else {
            writeln!(text, "#{number} DONE {:.1}s", (ended.unwrap_or_default() - started.unwrap_or_default()).max(0.0))
        };
    }

    /// Of a transfer only its end is told: its middle is for a screen.
    fn status(&mut self, status: &VertexStatus, text: &mut String) {
        let Some(step) = self.steps.get(&status.vertex) else { return };
        if status.completed.is_none() || !self.done.insert((status.vertex.clone(), status.id.clone())) {
            return;
        }
        let what = if status.id.is_empty() { &status.name } else { &status.id };
        separate(&mut self.shown, step.number, text);
        let _ = match (status.current, status.total) {
            (current, total) if total > 0 => writeln!(text, "#{} {what} {current} / {total} bytes done", step.number),
            (current, _) if current > 0 => writeln!(text, "#{} {what} {current} bytes done", step.number),
            _ => writeln!(text, "#{} {what} done", step.number),
        };
    }

    fn log(&mut self, log: &VertexLog, text: &mut String) {
        let next = self.steps.len() + 1;
        let step = self.steps.entry(log.vertex.clone()).or_insert_with(|| Step { number: next, ..Step::default() });
        step.pending.extend_from_slice(&log.msg);
        let since = seconds!(log.timestamp).zip(step.started).map_or(0.0, |(now, started)| (now - started).max(0.0));
        let number = step.number;
        let mut lines = Vec::new();
        while let Some(end) = step.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = step.pending.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
        }
        if !lines.is_empty() {
            separate(&mut self.shown, number, text);
        }
        for line in lines {
            let _ = writeln!(text, "#{number} {since:.3} {line}");
            self.keep(&line);
        }
    }
}

/// An empty line where another step speaks than the one before.
fn separate(shown: &mut Option<usize>, number: usize, text: &mut String) {
    if shown.is_some_and(|last| last != number) {
        text.push('\n');
    }
    *shown = Some(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! at {
        ($second:expr) => {{
            // The type of the time is not public under a name; a message that holds one is.
            let mut log = VertexLog::default();
            log.timestamp.get_or_insert_default().seconds = $second;
            log.timestamp
        }};
    }

    #[test]
    fn steps_output_and_ends_become_lines() {
        let mut progress = Progress::default();
        let step = |name: &str| Vertex {
            digest: name.to_owned(),
            name: format!("[{name}] RUN"),
            started: at!(10),
            ..Vertex::default()
        };
        let log = |vertex: &str, text: &str| VertexLog {
            vertex: vertex.to_owned(),
            timestamp: at!(11),
            msg: text.into(),
            ..VertexLog::default()
        };
        let mut text = progress.read(&StatusResponse {
            vertexes: vec![step("a"), Vertex { cached: true, ..step("b") }],
            logs: vec![log("a", "one\ntw"), log("a", "o\nlast")],
            ..StatusResponse::default()
        });
        text += &progress.read(&StatusResponse {
            vertexes: vec![Vertex { completed: at!(12), error: "exit code: 3".to_owned(), ..step("a") }],
            ..StatusResponse::default()
        });
        assert_eq!(
            text,
            "#1 [a] RUN\n\n#2 [b] RUN\n\n#1 1.000 one\n#1 1.000 two\n\n#2 CACHED\n#1 last\n\n#1 ERROR: exit code: 3\n"
        );
        assert_eq!(progress.last_lines(), "one\ntwo\nlast");
    }

    #[test]
    fn an_end_told_twice_is_one_line() {
        let mut progress = Progress::default();
        let over = Vertex {
            digest: "a".to_owned(),
            name: "x".to_owned(),
            started: at!(1),
            completed: at!(3),
            ..Vertex::default()
        };
        let told = StatusResponse { vertexes: vec![over], ..StatusResponse::default() };
        assert_eq!(progress.read(&told), "#1 x\n#1 DONE 2.0s\n");
        assert_eq!(progress.read(&told), "");
    }
}
