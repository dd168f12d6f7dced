//! What the queue says, in the words of the kernel. Every state has a phase, and every end a cause.

use maddock_sdk::events::Phase;
use maddock_sdk::job_result::JobResult;
use maddock_sdk::local;
use maddock_sdk::target::{Cause, Ending};

use crate::queue::{How, Shown, State};

/// Where a job is.
#[must_use]
pub fn phase(state: State) -> Phase {
    match state {
        State::Queued => Phase::Queued,
        State::Running => Phase::Running,
        State::Ended => Phase::Ended,
        State::Gone | State::Unknown => Phase::Unknown,
    }
}

/// One sentence for a person.
#[must_use]
pub fn describe(shown: &Shown) -> String {
    let state = match shown.state {
        State::Queued => "is queued".to_owned(),
        State::Running => format!("runs on {}", shown.host),
        State::Ended => "has ended".to_owned(),
        State::Gone => "is gone".to_owned(),
        State::Unknown => "is in a state that this plugin does not know".to_owned(),
    };
    let reason = if shown.reason.is_empty() { String::new() } else { format!(": {}", shown.reason) };
    format!("job {} of the queue {state}{reason}", shown.id)
}

/// How a job ended; none where it has not. What nobody knows any more has ended, too, but is no success.
#[must_use]
pub fn ending(
    shown: &Shown,
    cancelled: Option<String>,
    result: Option<&JobResult>,
    log_complete: bool,
) -> Option<Ending> {
    let (cause, message) = match (shown.state, shown.how) {
        (State::Queued | State::Running | State::Unknown, _) => return None,
        (State::Gone, _) => (Cause::Unknown, describe(shown)),
        (State::Ended, How::Exited) => local::outcome(shown.code, result),
        (State::Ended, How::Signalled) => {
            (Cause::Signalled(shown.code), format!("the job's script was ended by signal {}", shown.code))
        }
        (State::Ended, How::Cancelled) => (Cause::Cancelled, cancelled.unwrap_or_else(|| shown.reason.clone())),
        (State::Ended, How::TimedOut) => (Cause::TimedOut, format!("the time limit passed: {}", shown.reason)),
        (State::Ended, How::NeverStarted) => (Cause::NeverStarted, shown.reason.clone()),
        (State::Ended, How::Lost) => (Cause::Lost, shown.reason.clone()),
        (State::Ended, How::NotYet | How::Unknown) => {
            (Cause::Unknown, "it ended in a way that this plugin does not know".to_owned())
        }
    };
    Some(local::ending(cause, message, result, &shown.host, log_complete))
}
