//! What a container's state means for its job. Pure: engines are asked elsewhere.

use std::time::Duration;

use maddock_sdk::docker::ContainerInfo;
use maddock_sdk::events::Phase;
use maddock_sdk::job_result::JobResult;
use maddock_sdk::local;
use maddock_sdk::target::Cause;
use maddock_sdk::types::{Error, ErrorKind};

/// How long one wait for something to happen takes at most.
const WAIT: Duration = Duration::from_secs(10);
/// The same for a job that stays after its end, whose end is seen by its result file only.
const WAIT_KEPT: Duration = Duration::from_secs(1);

/// When a job is asked to end, and when nobody waits for it any longer.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// None: unlimited.
    limit: Option<Duration>,
    kept: bool,
    stopped_at: Option<Duration>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for an event, this many milliseconds at most.
    Wait(u32),
    /// The time is over: stop the container, once.
    Stop,
    /// It was stopped and does not end.
    GiveUp,
}

impl Deadline {
    /// How long a container that was stopped may take to be gone.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// For a job with a limit in seconds, from now on.
    pub fn new(limit: Option<u64>, kept: bool) -> Self {
        Self { limit: limit.map(Duration::from_secs), kept, stopped_at: None }
    }

    /// Whether the job was stopped because its time was over.
    pub fn passed(&self) -> bool {
        self.stopped_at.is_some()
    }

    /// What to do after this much time.
    pub fn next(&mut self, elapsed: Duration) -> Next {
        let wait = if self.kept { WAIT_KEPT } else { WAIT };
        if let Some(stopped) = self.stopped_at {
            return match (stopped + Self::PATIENCE).checked_sub(elapsed) {
                Some(left) if !left.is_zero() => Next::Wait(milliseconds(wait.min(left))),
                _ => Next::GiveUp,
            };
        }
        let Some(limit) = self.limit else { return Next::Wait(milliseconds(wait)) };
        match limit.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => Next::Wait(milliseconds(wait.min(left))),
            _ => {
                self.stopped_at = Some(elapsed);
                Next::Stop
            }
        }
    }
}

/// Rounded up, so that a wait for the rest of a limit is never a busy one.
fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// All that is known of a job whose container is over.
#[derive(Debug, Clone, Copy)]
pub struct Over<'a> {
    /// What the engine's stream said, where it did.
    pub code: Option<i32>,
    /// What the engine says of the container, where it still knows it.
    pub container: Option<&'a ContainerInfo>,
    /// What the entry script left.
    pub result: Option<&'a JobResult>,
    /// Why it was cancelled, where it was.
    pub cancelled: Option<&'a str>,
    /// Its time was over.
    pub timed_out: bool,
    /// The image, for messages.
    pub image: &'a str,
}

/// The cause and a sentence.
pub fn cause(over: Over) -> (Cause, String) {
    if let Some(reason) = over.cancelled {
        return (Cause::Cancelled, reason.to_owned());
    }
    if over.timed_out {
        return (Cause::TimedOut, "the time limit passed".to_owned());
    }
    let code = over.code.or_else(|| over.container.and_then(exit_code));
    let Some(code) = code else {
        return match (over.result, over.container) {
            // Kept alive: the container goes on, the job does not.
            (Some(result), _) => local::outcome(result.exit, Some(result)),
            (None, None) => (Cause::Lost, "the container is gone and left no result".to_owned()),
            (None, Some(container)) => {
                (Cause::Unknown, format!("the engine says `{}` of the container, and no exit code", container.state))
            }
        };
    };
    if code != 0 && over.container.is_some_and(|container| container.out_of_memory) {
        return (Cause::Lost, format!("the container ran out of memory (code {code})"));
    }
    if over.result.is_none() && matches!(code, 126 | 127) {
        let told = over.container.map(|container| container.message.as_str()).unwrap_or_default();
        return (Cause::NeverStarted, no_bash(over.image, told));
    }
    local::outcome(code, over.result)
}

/// The exit code of a container that has ended. Engines say 0 of those that have not begun.
fn exit_code(container: &ContainerInfo) -> Option<i32> {
    container.exit_code.filter(|_| phase(container) == Phase::Ended)
}

/// Where a job is, by its container's state.
pub fn phase(container: &ContainerInfo) -> Phase {
    match container.state.as_str() {
        "created" => Phase::Starting,
        "running" => Phase::Running,
        "paused" => Phase::Suspended,
        "exited" | "dead" => Phase::Ended,
        _ => Phase::Unknown,
    }
}

/// An engine's refusal to start a container, with what to do where that is known.
pub fn start_error(image: &str, error: Error) -> Error {
    let missing = ["executable file not found", "no such file or directory"];
    if error.message.contains("bash") && missing.iter().any(|words| error.message.contains(words)) {
        return Error { kind: ErrorKind::Failed, message: no_bash(image, &error.message), ..error }
            .hint("install `bash` in the image: a model's scripts are bash scripts");
    }
    error.during("starting the container")
}

fn no_bash(image: &str, told: &str) -> String {
    let told = if told.is_empty() { String::new() } else { format!(": {told}") };
    format!("image `{image}` has no `bash` to run the job with{told}")
}

#[cfg(test)]
mod tests {
    use maddock_sdk::failed;
    use maddock_sdk::job_result::Stage;

    use super::*;

    fn container(state: &str, exit_code: Option<i32>, out_of_memory: bool) -> ContainerInfo {
        ContainerInfo {
            id: "1".into(),
            name: "c".into(),
            state: state.into(),
            exit_code,
            out_of_memory,
            message: String::new(),
            image_id: "sha256:1".into(),
            labels: Vec::new(),
        }
    }

    const OVER: Over =
        Over { code: None, container: None, result: None, cancelled: None, timed_out: false, image: "i" };

    fn result(exit: i32, stage: Stage) -> JobResult {
        JobResult { exit, stage, model: Some(exit), seconds: None, git_commit: None }
    }

    #[test]
    fn every_end_has_a_cause() {
        let model = result(3, Stage::Model);
        let exited = container("exited", Some(137), true);
        assert_eq!(cause(Over { code: Some(3), result: Some(&model), ..OVER }).0, Cause::Exited(3));
        assert_eq!(cause(Over { code: Some(137), container: Some(&exited), ..OVER }).0, Cause::Lost);
        assert_eq!(cause(Over { container: Some(&exited), ..OVER }).0, Cause::Lost);
        assert_eq!(cause(Over { code: Some(143), timed_out: true, ..OVER }).0, Cause::TimedOut);
        assert_eq!(cause(Over { code: Some(143), cancelled: Some("why"), ..OVER }), (Cause::Cancelled, "why".into()));
        assert_eq!(cause(OVER).0, Cause::Lost);
        let created = container("created", Some(0), false);
        assert_eq!(cause(Over { container: Some(&created), ..OVER }).0, Cause::Unknown);
        let running = container("running", Some(0), false);
        assert_eq!(cause(Over { container: Some(&running), result: Some(&model), ..OVER }).0, Cause::Exited(3));
        let overdue = result(143, Stage::TimedOut);
        assert_eq!(cause(Over { code: Some(143), result: Some(&overdue), ..OVER }).0, Cause::TimedOut);
    }

    #[test]
    fn a_good_end_is_not_spoilt_by_a_process_that_ran_out_of_memory_on_the_way() {
        let exited = container("exited", Some(0), true);
        let model = result(0, Stage::Model);
        assert_eq!(
            cause(Over { code: Some(0), container: Some(&exited), result: Some(&model), ..OVER }).0,
            Cause::Exited(0)
        );
    }

    #[test]
    fn an_image_without_bash_is_named() {
        let (cause, message) = cause(Over { code: Some(127), ..OVER });
        assert_eq!((cause, message.as_str()), (Cause::NeverStarted, "image `i` has no `bash` to run the job with"));
        let said = "OCI runtime create failed: exec: \"bash\": executable file not found in $PATH: unknown";
        let error = start_error("i", failed(said));
        assert!(error.message.starts_with("image `i` has no `bash`") && error.hint.is_some());
        assert_eq!(start_error("i", failed("no space left")).message, "starting the container: no space left");
    }

    #[test]
    fn the_model_may_end_with_127_itself() {
        let model = result(127, Stage::Model);
        assert_eq!(cause(Over { code: Some(127), result: Some(&model), ..OVER }).0, Cause::Exited(127));
    }

    #[test]
    fn time_is_over_once_and_patience_has_an_end() {
        let second = Duration::from_secs;
        let mut deadline = Deadline::new(Some(12), false);
        assert_eq!(deadline.next(second(0)), Next::Wait(10_000));
        assert_eq!(deadline.next(Duration::from_micros(11_999_500)), Next::Wait(1));
        assert!(!deadline.passed());
        assert_eq!(deadline.next(second(12)), Next::Stop);
        assert!(deadline.passed());
        assert_eq!(deadline.next(second(22)), Next::Wait(10_000));
        assert_eq!(deadline.next(second(71)), Next::Wait(1_000));
        assert_eq!(deadline.next(second(72)), Next::GiveUp);
    }

    #[test]
    fn a_job_without_limit_waits_for_ever() {
        assert_eq!(Deadline::new(None, false).next(Duration::MAX), Next::Wait(10_000));
        assert_eq!(Deadline::new(None, true).next(Duration::MAX), Next::Wait(1_000));
    }

    #[test]
    fn states_of_the_engine_have_phases() {
        for (state, expected) in [
            ("created", Phase::Starting),
            ("running", Phase::Running),
            ("paused", Phase::Suspended),
            ("exited", Phase::Ended),
            ("dead", Phase::Ended),
            ("removing", Phase::Unknown),
            ("new word", Phase::Unknown),
        ] {
            assert_eq!(phase(&container(state, None, false)), expected, "{state}");
        }
    }
}
