//! Whose an object is: two labels, which nobody but this host puts on.

use std::collections::BTreeMap;

use maddock_bindings::api::types::ErrorKind;
use sha2::{Digest, Sha256};

use crate::capability::{ApiError, error, error_with_hint};
use crate::plugin::State;

/// What the names of our labels begin with.
pub(super) const DOMAIN: &str = "maddock.dev/";
pub(super) const RUN: &str = "maddock.dev/run";
pub(super) const JOB: &str = "maddock.dev/job";

/// Values of labels are no longer.
const LONGEST: usize = 63;

/// Whose objects an instance may make and delete, as values of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) run: String,
    pub(super) job: String,
}

impl Owner {
    pub(super) fn of(state: &State) -> Result<Self, ApiError> {
        let run = run_of(&state.context.run_id)?;
        let job = state.job.as_deref().filter(|job| !job.is_empty()).ok_or_else(|| {
            error(
                ErrorKind::Unsupported,
                "this call belongs to no job of the run, and objects in a cluster belong to one",
            )
        })?;
        Ok(Self { run, job: value(job) })
    }

    pub(super) fn labels(&self) -> [(&'static str, &str); 2] {
        [(RUN, &self.run), (JOB, &self.job)]
    }

    pub(super) fn selector(&self) -> String {
        format!("{RUN}={},{JOB}={}", self.run, self.job)
    }
}

/// The run that this instance may own objects of.
pub(super) fn run_of(run: &str) -> Result<String, ApiError> {
    match run {
        "" => Err(error_with_hint(
            ErrorKind::Unsupported,
            "this command belongs to no run, and objects in a cluster belong to one",
            "`maddock run` makes runs",
        )),
        run => Ok(value(run)),
    }
}

/// Whether an object is of a run.
pub(super) fn is_of_run(labels: Option<&BTreeMap<String, String>>, run: &str) -> bool {
    !run.is_empty() && labels.and_then(|labels| labels.get(RUN)).is_some_and(|of| of == run)
}

/// A text as the value of a label: itself where it can be, else what can be kept of it and a digest of the whole.
pub(super) fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let fits = text.len() <= LONGEST
        && text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'));
    if fits {
        return text.to_owned();
    }
    let kept: String = text.chars().map(|c| if plain(c) { c } else { '-' }).take(46).collect();
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    let digest = digest.get(..16).unwrap_or(&digest);
    match kept.trim_matches('-') {
        "" => digest.to_owned(),
        kept => format!("{kept}-{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_can_be_a_label_stays_as_it_is() {
        for name in ["a", "20260131T120000-ab12", "model_a.b-C", &"x".repeat(63)] {
            assert_eq!(value(name), name);
        }
    }

    #[test]
    fn any_other_name_becomes_a_label_of_its_own() {
        let odd = ["", "a/b", "a b", "-a", "a-", "é", &"x".repeat(64), "a:b", "///", "a,maddock.dev/run=other"];
        let values: std::collections::BTreeSet<String> = odd.iter().map(|name| value(name)).collect();
        assert_eq!(values.len(), odd.len());
        for value in values {
            assert!(value.len() <= 63 && !value.is_empty(), "{value}");
            assert_eq!(super::value(&value), value, "it is a value that can be");
        }
    }

    #[test]
    fn an_object_without_our_label_is_nobody_s() {
        let labels = |run: &str| BTreeMap::from([(RUN.to_owned(), run.to_owned())]);
        assert!(is_of_run(Some(&labels("r")), "r"));
        assert!(!is_of_run(Some(&labels("r2")), "r"));
        assert!(!is_of_run(Some(&labels("")), ""));
        assert!(!is_of_run(None, "r"));
    }
}
