//! The one table of the scheduler's words for states. It is total: a word that nobody knows is a state of its own, which
//! is never taken for an end.

use maddock_bindings::api::slurm::{JobState, Readiness};

/// What a word for a job's state means.
pub(super) fn of_job(word: &str) -> JobState {
    // `CANCELLED by 1000`, `RUNNING+`.
    let first = word.split_whitespace().next().unwrap_or_default().trim_end_matches('+');
    match first.to_ascii_uppercase().as_str() {
        "PENDING" | "PD" | "REQUEUED" | "RQ" | "REQUEUE_HOLD" | "RH" | "REQUEUE_FED" | "RF" | "RESV_DEL_HOLD"
        | "RD" | "SPECIAL_EXIT" | "SE" => JobState::Pending,
        "CONFIGURING" | "CF" | "POWER_UP_NODE" => JobState::Starting,
        "RUNNING" | "R" | "RESIZING" | "RS" | "SIGNALING" | "SI" | "UPDATE_DB" => JobState::Running,
        "SUSPENDED" | "S" | "STOPPED" | "ST" => JobState::Suspended,
        "COMPLETING" | "CG" | "STAGE_OUT" | "SO" => JobState::Completing,
        "COMPLETED" | "CD" => JobState::Completed,
        "FAILED" | "F" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => JobState::Failed,
        "CANCELLED" | "CA" => JobState::Cancelled,
        "TIMEOUT" | "TO" => JobState::TimedOut,
        "NODE_FAIL" | "NF" => JobState::NodeFailed,
        "PREEMPTED" | "PR" => JobState::Preempted,
        "OUT_OF_MEMORY" | "OOM" => JobState::OutOfMemory,
        "BOOT_FAIL" | "BF" => JobState::BootFailed,
        "DEADLINE" | "DL" => JobState::DeadlinePassed,
        "REVOKED" | "RV" => JobState::Revoked,
        _ => JobState::Other(first.to_owned()),
    }
}

/// Whether nothing comes after it.
pub(super) fn is_end(state: &JobState) -> bool {
    match state {
        JobState::Pending
        | JobState::Starting
        | JobState::Running
        | JobState::Suspended
        | JobState::Completing
        | JobState::Other(_) => false,
        JobState::Completed
        | JobState::Failed
        | JobState::Cancelled
        | JobState::TimedOut
        | JobState::NodeFailed
        | JobState::Preempted
        | JobState::OutOfMemory
        | JobState::BootFailed
        | JobState::DeadlinePassed
        | JobState::Revoked
        | JobState::LostSight => true,
    }
}

/// What a word for the state of a node or partition means.
pub(super) fn of_place(word: &str) -> Readiness {
    let word = bare(word).to_ascii_lowercase();
    match word.as_str() {
        "up" | "idle" | "alloc" | "allocated" | "mix" | "mixed" | "completing" | "comp" | "planned" | "plnd" => {
            Readiness::Up
        }
        "draining" | "drng" | "drain" => Readiness::Draining,
        "down" | "drained" | "fail" | "failing" | "failg" | "error" | "inactive" | "inact" | "maint" | "reboot"
        | "boot" | "perfctrs" | "npc" | "power_down" | "powering_down" | "powered_down" | "pow_dn" | "future"
        | "futr" | "reserved" | "resv" | "blocked" => Readiness::Down,
        "powering_up" | "pow_up" | "power_up" => Readiness::Up,
        _ => Readiness::Unknown,
    }
}

/// A state without the marks behind it, such as `*` for a node that does not answer.
pub(super) fn bare(word: &str) -> &str {
    word.trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-', '+'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word of the manual pages of squeue and sacct.
    const WORDS: &str = "BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY \
        PENDING PREEMPTED RUNNING RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED SIGNALING SPECIAL_EXIT \
        STAGE_OUT STOPPED SUSPENDED TIMEOUT BF CA CD CF CG DL F NF OOM PD PR R RD RF RH RQ RS RV SI SE SO ST S TO";

    #[test]
    fn every_documented_state_has_a_meaning_of_its_own() {
        for word in WORDS.split_whitespace() {
            assert!(!matches!(of_job(word), JobState::Other(_)), "{word}");
        }
    }

    #[test]
    fn a_state_that_is_not_known_is_no_end() {
        for word in ["", "TRANSCENDED", "by", "COMPLETEDX"] {
            assert!(!is_end(&of_job(word)), "{word}");
        }
    }

    #[test]
    fn suspended_and_requeued_jobs_have_not_failed() {
        for word in ["SUSPENDED", "REQUEUED", "STAGE_OUT", "RESIZING", "STOPPED", "SIGNALING", "REQUEUE_HOLD"] {
            assert!(!is_end(&of_job(word)), "{word}");
        }
    }

    #[test]
    fn who_cancelled_does_not_change_the_state() {
        assert!(matches!(of_job("CANCELLED by 1000"), JobState::Cancelled));
        assert!(matches!(of_job("CANCELLED+"), JobState::Cancelled));
    }

    #[test]
    fn marks_behind_a_node_s_state_are_no_part_of_it() {
        assert!(matches!(of_place("idle*"), Readiness::Up));
        assert!(matches!(of_place("down*"), Readiness::Down));
        assert!(matches!(of_place("draining@"), Readiness::Draining));
        assert!(matches!(of_place("quantum"), Readiness::Unknown));
    }
}
