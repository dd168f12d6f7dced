//! What is tried again where the scheduler does not answer: ending a job and handing one in. A controller that restarts must
//! not make of a job one that goes on unseen, nor two of one.

use std::time::Duration;

use maddock_bindings::api::events::Level;
use maddock_bindings::api::types::ErrorKind;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::is_absent;
use super::{ApiError, error_with_hint};
use crate::capability::events::PluginEvent;

/// For how long something is tried, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between two attempts.
    pause: Duration,
    /// After which there is none.
    limit: Duration,
}

/// Ends within the call that wants it, which has its own deadline and could not say then which job goes on.
pub(super) const CANCEL: Patience = Patience { pause: Duration::from_secs(3), limit: Duration::from_secs(80) };
/// Launching has no deadline.
pub(super) const SUBMIT: Patience = Patience { pause: Duration::from_secs(5), limit: Duration::from_secs(300) };

/// Whether the same may succeed a little later.
fn may_pass(trouble: &ApiError) -> bool {
    matches!(trouble.kind, ErrorKind::Unavailable) && !is_absent(trouble)
}

/// Tells whoever listens that something is tried again, once.
#[derive(Debug)]
pub(super) struct Teller {
    events: mpsc::Sender<PluginEvent>,
    what: String,
    told: bool,
}

impl Teller {
    pub(super) fn new(events: mpsc::Sender<PluginEvent>, what: impl Into<String>) -> Self {
        Self { events, what: what.into(), told: false }
    }

    async fn tell(&mut self, trouble: &ApiError, limit: Duration) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let message = format!("{}; {} is tried again, for {} s at most", trouble.message, self.what, limit.as_secs());
        // Nobody listening is fine.
        let _ = self.events.send(PluginEvent::Log { level: Level::Warning, message, fields: Vec::new() }).await;
    }
}

/// Tries to end a job.
///
/// # Errors
/// It was not ended. Where nobody answered, the message says that it may go on, and the hint what to do.
pub(super) async fn cancel<A: Future<Output = Result<(), ApiError>>>(
    patience: Patience,
    id: &str,
    mut teller: Teller,
    mut attempt: impl FnMut() -> A,
) -> Result<(), ApiError> {
    let until = Instant::now().checked_add(patience.limit).unwrap_or_else(Instant::now);
    let mut answer = attempt().await;
    loop {
        let trouble = match answer {
            Err(trouble) if may_pass(&trouble) => trouble,
            Err(trouble) => return Err(goes_on(id, trouble)),
            Ok(()) => return Ok(()),
        };
        let again = Instant::now().checked_add(patience.pause).filter(|again| *again < until);
        let attempted = match again {
            None => None,
            Some(again) => {
                teller.tell(&trouble, patience.limit).await;
                tokio::time::sleep_until(again).await;
                tokio::time::timeout_at(until, attempt()).await.ok()
            }
        };
        answer = match attempted {
            Some(answer) => answer,
            None => return Err(goes_on(id, trouble)),
        };
    }
}

/// What to do about a job that could not be ended; one of somebody else is none of ours.
fn goes_on(id: &str, trouble: ApiError) -> ApiError {
    if matches!(trouble.kind, ErrorKind::Conflict) {
        return trouble;
    }
    let message = format!("batch job {id} was not ended and may go on: {}", trouble.message);
    let later = format!("when the scheduler answers, `maddock cancel` of its run ends it, or `scancel {id}`");
    let hint = trouble.hint.map_or(later.clone(), |hint| format!("{hint}; {later}"));
    ApiError { message, hint: Some(hint), ..trouble }
}

/// What handing a job in came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HandedIn {
    pub(super) id: String,
    /// It took several attempts: one that nobody had an answer to may have been heard, too.
    pub(super) again: bool,
}

/// Hands a job in. After an attempt without an answer `find` says which jobs of this owner there are, and one of them is it.
///
/// # Errors
/// The scheduler refuses the job, or does not answer for longer than `patience`.
pub(super) async fn submit<A, F>(
    patience: Patience,
    mut teller: Teller,
    mut attempt: impl FnMut() -> A,
    mut find: impl FnMut() -> F,
) -> Result<HandedIn, ApiError>
where
    A: Future<Output = Result<String, ApiError>>,
    F: Future<Output = Result<Vec<String>, ApiError>>,
{
    let until = Instant::now().checked_add(patience.limit).unwrap_or_else(Instant::now);
    let mut again = false;
    loop {
        let trouble = match attempt().await {
            Ok(id) => return Ok(HandedIn { id, again }),
            Err(trouble) if may_pass(&trouble) => trouble,
            Err(trouble) => return Err(trouble),
        };
        again = true;
        teller.tell(&trouble, patience.limit).await;
        loop {
            tokio::time::sleep(patience.pause).await;
            match find().await {
                Ok(found) => match found.into_iter().next_back() {
                    Some(id) => return Ok(HandedIn { id, again }),
                    None => break,
                },
                Err(unheard) if may_pass(&unheard) && Instant::now() < until => {}
                Err(_) => return Err(in_doubt(&trouble)),
            }
        }
        if Instant::now() >= until {
            return Err(trouble);
        }
    }
}

/// Nobody knows whether there is a job.
fn in_doubt(trouble: &ApiError) -> ApiError {
    error_with_hint(
        ErrorKind::Unavailable,
        format!("whether the job was handed in is not known: {}", trouble.message),
        "the end of the run looks for it; `squeue --me` shows jobs and `scancel ID` ends one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::error;

    const PATIENT: Patience = Patience { pause: Duration::from_millis(1), limit: Duration::from_secs(3600) };
    const AT_ONCE: Patience = Patience { pause: Duration::from_millis(1), limit: Duration::ZERO };

    fn away() -> ApiError {
        error(ErrorKind::Unavailable, "`scontrol`: Unable to contact slurm controller")
    }

    fn teller() -> (Teller, mpsc::Receiver<PluginEvent>) {
        let (events, heard) = mpsc::channel(8);
        (Teller::new(events, "ending batch job 17"), heard)
    }

    /// Answers them one after the other.
    struct Answers<T>(Vec<Result<T, ApiError>>);

    impl<T> Answers<T> {
        fn new(answers: impl IntoIterator<Item = Result<T, ApiError>>) -> Self {
            let mut answers: Vec<_> = answers.into_iter().collect();
            answers.reverse();
            Self(answers)
        }

        fn next(&mut self) -> std::future::Ready<Result<T, ApiError>> {
            std::future::ready(self.0.pop().unwrap())
        }
    }

    #[tokio::test]
    async fn a_job_is_ended_when_the_controller_is_back_and_that_is_told_once() {
        let mut answers = Answers::new([Err(away()), Err(away()), Ok(())]);
        let (teller, mut heard) = teller();
        cancel(PATIENT, "17", teller, || answers.next()).await.unwrap();
        assert!(answers.0.is_empty());
        let told = heard.recv().await.unwrap();
        assert!(
            matches!(&told, PluginEvent::Log { message, .. } if message.contains("ending batch job 17")),
            "{told:?}"
        );
        assert!(heard.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_job_that_was_not_ended_may_go_on_and_its_id_and_what_to_type_are_said() {
        let mut answers = Answers::new([Err(away())]);
        let error = cancel(AT_ONCE, "17", teller().0, || answers.next()).await.unwrap_err();
        assert!(error.message.contains("batch job 17 was not ended and may go on"), "{error:?}");
        assert!(error.hint.unwrap().contains("`scancel 17`"));
    }

    #[tokio::test]
    async fn what_waiting_does_not_change_is_not_tried_again() {
        let absent = error_with_hint(ErrorKind::Unavailable, "`scancel` is not on the search path", "go there");
        for trouble in [absent, error(ErrorKind::Conflict, "not of this run"), error(ErrorKind::Failed, "refused")] {
            let mut answers = Answers::new([Err(trouble.clone())]);
            let answer = cancel(PATIENT, "17", teller().0, || answers.next()).await;
            assert!(answer.unwrap_err().message.ends_with(&trouble.message));
            let mut answers = Answers::new([Err(trouble.clone())]);
            let never = || -> std::future::Ready<_> { panic!("nobody has to look") };
            let answer = submit(PATIENT, teller().0, || answers.next(), never).await;
            assert_eq!(answer.unwrap_err().message, trouble.message);
        }
    }

    #[tokio::test]
    async fn a_job_that_was_heard_without_an_answer_is_found_and_not_handed_in_twice() {
        let mut answers = Answers::new([Err(away())]);
        let mut found = Answers::new([Err(away()), Ok(vec!["17".to_owned()])]);
        let handed = submit(PATIENT, teller().0, || answers.next(), || found.next()).await.unwrap();
        assert_eq!(handed, HandedIn { id: "17".into(), again: true });
        assert!(answers.0.is_empty() && found.0.is_empty());
    }

    #[tokio::test]
    async fn a_job_that_was_not_heard_is_handed_in_again_and_that_is_known() {
        let mut answers = Answers::new([Err(away()), Ok("18".to_owned())]);
        let mut found = Answers::new([Ok(Vec::new())]);
        let handed = submit(PATIENT, teller().0, || answers.next(), || found.next()).await.unwrap();
        assert_eq!(handed, HandedIn { id: "18".into(), again: true });
        let mut answers = Answers::new([Ok("19".to_owned())]);
        let never = || -> std::future::Ready<_> { panic!("nobody has to look") };
        let handed = submit(PATIENT, teller().0, || answers.next(), never).await.unwrap();
        assert_eq!(handed, HandedIn { id: "19".into(), again: false });
    }

    #[tokio::test]
    async fn a_controller_that_stays_away_leaves_a_job_in_doubt_and_one_that_has_none_no_job() {
        let mut answers = Answers::new([Err(away())]);
        let mut found = Answers::new([Err(away())]);
        let error = submit(AT_ONCE, teller().0, || answers.next(), || found.next()).await.unwrap_err();
        assert!(error.message.contains("is not known"), "{error:?}");
        let mut answers = Answers::new([Err(away())]);
        let mut found = Answers::new([Ok(Vec::new())]);
        let error = submit(AT_ONCE, teller().0, || answers.next(), || found.next()).await.unwrap_err();
        assert_eq!(error.message, away().message);
    }
}
