//! Ctrl-C and termination: the first one asks everything to stop and clean up, the second one ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::failure::Failure;

/// A token that fires at the first signal, for those who clean up then.
///
/// # Errors
/// The signals cannot be listened to.
pub fn stop_token() -> std::io::Result<CancellationToken> {
    token_saying("stopping; again to stop without cleaning up")
}

/// The same for those who leave what goes on to itself.
///
/// # Errors
/// The signals cannot be listened to.
pub fn leave_token() -> std::io::Result<CancellationToken> {
    token_saying("leaving; the jobs go on")
}

/// The same for those who only look.
///
/// # Errors
/// The signals cannot be listened to.
pub fn quiet_token() -> std::io::Result<CancellationToken> {
    token_saying("")
}

fn token_saying(text: &'static str) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let fired = token.clone();
    tokio::spawn(async move {
        let mut once = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if once {
                std::process::exit(Exit::Interrupted as i32);
            }
            once = true;
            if !text.is_empty() {
                eprintln!("{text}");
            }
            fired.cancel();
        }
    });
    Ok(token)
}

/// What `work` answers, unless the token fires before: then it is dropped, and what it started goes with it. Not for work
/// that has to clean up after itself.
///
/// # Errors
/// Whatever `work` says, or that it was interrupted: exit 130.
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        answer = work => answer,
        () = stop.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}
