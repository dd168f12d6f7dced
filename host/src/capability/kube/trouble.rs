//! What the cluster or the way to it says, as errors of the interface. `denied` is never among them: that is the word of
//! this host's own policy.

use std::time::Duration;

use kube::client::AuthError;
use kube::core::Status;
use maddock_bindings::api::types::ErrorKind;

use super::cluster::chain;
use super::detail;
use crate::capability::{ApiError, error, error_with_hint};

/// For the answer to one question.
const ANSWER: Duration = Duration::from_secs(30);

/// Asks one thing, and waits so long and no longer.
pub(super) async fn ask<T>(doing: &str, question: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(ANSWER, question).await {
        Ok(answer) => answer.map_err(|cause| of(doing, cause)),
        Err(_) => Err(error(
            ErrorKind::Unavailable,
            format!("{doing}: the API server did not answer within {} s", ANSWER.as_secs()),
        )),
    }
}

/// An error of the client.
pub(super) fn of(doing: &str, cause: kube::Error) -> ApiError {
    match cause {
        kube::Error::Api(status) => of_status(doing, &status),
        kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
            let said = String::from_utf8_lossy(&out.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            error_with_hint(
                ErrorKind::Failed,
                format!("{doing}: the program that fetches credentials failed: {}", shown(last)),
                format!("run it by hand: {}", shown(&cmd)),
            )
        }
        kube::Error::Auth(cause) => {
            error(ErrorKind::Failed, format!("{doing}: no credentials for the cluster: {}", chain(&cause)))
        }
        cause @ (kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)) => {
            let said = chain(&cause);
            if said.contains("certificate") {
                return error_with_hint(
                    ErrorKind::Failed,
                    format!("{doing}: {said}"),
                    "see `certificate-authority` and `server` of the cluster in the file of connections",
                );
            }
            // Names of the client's own parts say nothing to a reader.
            let said = ["ServiceError: ", "client error (Connect): ", "tcp connect error: "]
                .iter()
                .fold(said, |said, part| said.replace(part, ""));
            error(ErrorKind::Unavailable, format!("{doing}: the API server cannot be reached: {said}"))
        }
        cause => error(ErrorKind::Failed, format!("{doing}: {}", chain(&cause))),
    }
}

/// A refusal by the API server. What it says itself is the message.
pub(super) fn of_status(doing: &str, status: &Status) -> ApiError {
    let (kind, hint) = match status.code {
        401 => (ErrorKind::Failed, Some("the cluster does not know this account: see its credentials")),
        403 => (
            ErrorKind::Failed,
            Some(
                "the cluster's rules do not allow this account to do that; `docs/targets/kubernetes.md` has a Role that does",
            ),
        ),
        404 => (ErrorKind::NotFound, None),
        409 => (ErrorKind::Conflict, None),
        400 | 405 | 406 | 413 | 415 | 422 => (ErrorKind::InvalidInput, None),
        408 | 429 | 500..=599 => (ErrorKind::Unavailable, None),
        _ => (ErrorKind::Failed, None),
    };
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    ApiError {
        kind,
        message: format!("{doing}: {}", shown(said)),
        hint: hint.map(str::to_owned),
        details: vec![detail("reason", status.reason.clone()), detail("code", status.code.to_string())],
    }
}

/// Whether it is the server's absence, which may pass.
pub(super) fn may_pass(error: &ApiError) -> bool {
    matches!(error.kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
}

/// Whether the account lacks a right.
pub(super) fn is_forbidden(error: &ApiError) -> bool {
    error.details.iter().any(|entry| entry.name == "reason" && entry.value == "Forbidden")
}

fn shown(text: &str) -> String {
    crate::capability::events::printable(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_forbids_is_not_our_policy_s_refusal() {
        let status = Status::failure("jobs.batch is forbidden", "Forbidden").with_code(403);
        let error = of_status("cannot make Job `a`", &status);
        assert!(matches!(error.kind, ErrorKind::Failed));
        assert!(error.details.iter().any(|entry| entry.name == "reason" && entry.value == "Forbidden"));
        assert_eq!(error.message, "cannot make Job `a`: jobs.batch is forbidden");
    }

    #[test]
    fn a_server_that_is_busy_or_restarting_may_pass_and_a_refusal_may_not() {
        for (code, passes) in
            [(429, true), (500, true), (503, true), (403, false), (404, false), (422, false), (409, false)]
        {
            let error = of_status("", &Status::failure("", "").with_code(code));
            assert_eq!(may_pass(&error), passes, "{code}");
        }
    }
}
