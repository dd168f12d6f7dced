//! Reads what the clients write. Fields are separated by control characters that the formats ask for, so that no name,
//! comment or reason can pass for another field; a line that does not fit is left out, never guessed at.

use maddock_bindings::api::slurm::{Job, JobState, Node, Partition};

use super::{owner_in, state};

/// Between fields, and at the end of a record: characters that no value has.
pub(super) const FIELD: char = '\u{1f}';
const RECORD: char = '\u{1e}';

/// The format of `squeue -o`: the free texts stand last.
pub(super) fn queue_format() -> String {
    joined(&["%i", "%T", "%N", "%S", "%e", "%k", "%r"])
}

/// The fields of `sacct -o`.
pub(super) const ACCOUNTING_FIELDS: &str = "JobIDRaw,State,ExitCode,NodeList,Start,End";

/// The format of `sinfo -o` for partitions: `%P` marks the default one, `%R` does not.
pub(super) fn partition_format() -> String {
    joined(&["%R", "%P", "%a", "%l", "%D"])
}

/// The format of `sinfo -N -o` for nodes.
pub(super) fn node_format() -> String {
    joined(&["%N", "%R", "%T", "%c", "%m", "%G", "%E"])
}

fn joined(fields: &[&str]) -> String {
    format!("{}{RECORD}", fields.join(&FIELD.to_string()))
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.split(RECORD)
        .map(|record| record.trim_matches(['\n', '\r']))
        .filter(|record| !record.is_empty())
        .map(|record| record.split(FIELD).collect())
}

/// A value that the clients write where there is none.
fn present(text: &str) -> &str {
    match text.trim() {
        "N/A" | "n/a" | "(null)" | "None" | "none" | "Unknown" | "None assigned" | "NONE" => "",
        text => text,
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `code:signal`.
pub(super) fn exit(text: &str) -> Option<(i32, Option<i32>)> {
    let (code, signal) = text.trim().split_once(':')?;
    let signal: i32 = signal.parse().ok()?;
    Some((code.parse().ok()?, Some(signal).filter(|signal| *signal != 0)))
}

/// One job, before it is known how it ended.
fn job(id: &str, word: &str) -> Job {
    let state = state::of_job(word);
    Job {
        id: id.to_owned(),
        ended: state::is_end(&state),
        state,
        word: word.to_owned(),
        reason: String::new(),
        exit_code: None,
        signal: None,
        nodes: String::new(),
        start: String::new(),
        end: String::new(),
        owner: String::new(),
        change: 0,
    }
}

fn set_times(job: &mut Job, start: &str, end: &str) {
    // What a waiting job has there is a guess of the scheduler.
    if !matches!(job.state, JobState::Pending) {
        job.start = present(start).to_owned();
    }
    if job.ended {
        job.end = present(end).to_owned();
    }
}

/// The output of `squeue -h -o FORMAT`.
pub(super) fn queue(text: &str) -> Vec<Job> {
    records(text)
        .filter_map(|fields| match fields.as_slice() {
            [id, word, nodes, start, end, comment, reason] if is_id(id) => {
                let mut job = job(id, word);
                job.nodes = present(nodes).to_owned();
                job.owner = owner_in(comment).unwrap_or_default().to_owned();
                job.reason = present(reason).to_owned();
                set_times(&mut job, start, end);
                Some(job)
            }
            _ => None,
        })
        .collect()
}

/// The output of `sacct -n -P -X`. Of a job that stands there several times, the last.
pub(super) fn accounting(text: &str) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(FIELD).collect();
        if let [id, word, code, nodes, start, end] = fields.as_slice()
            && is_id(id)
        {
            let mut job = job(id, word);
            job.nodes = present(nodes).to_owned();
            set_times(&mut job, start, end);
            set_exit(&mut job, code);
            jobs.retain(|other| other.id != job.id);
            jobs.push(job);
        }
    }
    jobs
}

fn set_exit(job: &mut Job, text: &str) {
    if let Some((code, signal)) = exit(text).filter(|_| job.ended) {
        job.signal = signal;
        job.exit_code = Some(code).filter(|_| signal.is_none());
    }
}

/// The output of `scontrol show job ID`. The first line holds the job's name, in which anything may stand.
pub(super) fn details(text: &str) -> Option<Job> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let id = lines.next()?.trim().strip_prefix("JobId=")?.split_whitespace().next()?;
    if !is_id(id) {
        return None;
    }
    let lines: Vec<&str> = lines.collect();
    // Values with blanks in them, such as a command's path, are cut; none that is looked up here has any.
    let value = |name: &str| {
        lines
            .iter()
            .flat_map(|line| line.split_whitespace())
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let mut found = job(id, value("JobState")?);
    found.reason = present(value("Reason").unwrap_or_default()).to_owned();
    found.nodes = present(value("NodeList").unwrap_or_default()).to_owned();
    let comment = lines.iter().find_map(|line| line.trim().strip_prefix("Comment=")).unwrap_or_default();
    found.owner = owner_in(comment.trim()).unwrap_or_default().to_owned();
    set_times(&mut found, value("StartTime").unwrap_or_default(), value("EndTime").unwrap_or_default());
    set_exit(&mut found, value("ExitCode").unwrap_or_default());
    Some(found)
}

/// Minutes of `[days-]hours:minutes:seconds` and its short forms; none where there is no limit.
pub(super) fn minutes(text: &str) -> Option<u32> {
    let (days, rest) = match text.trim().split_once('-') {
        Some((days, rest)) => (days.parse::<u64>().ok()?, rest),
        None => (0, text.trim()),
    };
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let seconds = match parts.as_slice() {
        [hours, minutes, seconds] => {
            hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(*seconds)?
        }
        [minutes, seconds] => minutes.checked_mul(60)?.checked_add(*seconds)?,
        _ => return None,
    };
    u32::try_from(days.checked_mul(1440)?.checked_add(seconds.div_ceil(60))?).ok()
}

/// The output of `sinfo -h -o FORMAT` with one record for each partition and state of nodes.
pub(super) fn partitions(text: &str) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = Vec::new();
    for fields in records(text) {
        let [name, marked, word, limit, count] = fields.as_slice() else { continue };
        let count: u32 = count.trim().parse().unwrap_or(0);
        match partitions.iter_mut().find(|partition| partition.name == *name) {
            Some(partition) => partition.node_count = partition.node_count.saturating_add(count),
            None => partitions.push(Partition {
                name: (*name).to_owned(),
                is_default: marked.ends_with('*') && !name.ends_with('*'),
                readiness: state::of_place(word),
                state: (*word).to_owned(),
                time_limit: minutes(limit),
                node_count: count,
            }),
        }
    }
    partitions
}

/// The output of `sinfo -h -N -o FORMAT`, which has a node once for each of its partitions.
pub(super) fn nodes(text: &str) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for fields in records(text) {
        let [name, partition, word, cpus, memory, gres, reason] = fields.as_slice() else { continue };
        match nodes.iter_mut().find(|node| node.name == *name) {
            Some(node) => node.partitions.push((*partition).to_owned()),
            None => nodes.push(Node {
                name: (*name).to_owned(),
                partitions: vec![(*partition).to_owned()],
                readiness: state::of_place(word),
                state: state::bare(word).to_owned(),
                reason: present(reason).to_owned(),
                gres: present(gres).to_owned(),
                cpus: cpus.trim().trim_end_matches('+').parse().unwrap_or(0),
                memory: memory.trim().trim_end_matches('+').parse().unwrap_or(0),
            }),
        }
    }
    nodes
}

/// Whether two looks at a job say the same.
pub(super) fn same(one: &Job, other: &Job) -> bool {
    one.word == other.word
        && one.reason == other.reason
        && one.ended == other.ended
        && one.exit_code == other.exit_code
        && one.signal == other.signal
        && one.nodes == other.nodes
        && std::mem::discriminant(&one.state) == std::mem::discriminant(&other.state)
}

/// Whole seconds of the line `KillWait = 30 sec`.
pub(super) fn kill_wait(config: &str) -> Option<String> {
    let value = config.lines().find_map(|line| line.trim().strip_prefix("KillWait")?.trim_start().strip_prefix('='))?;
    let seconds = value.split_whitespace().next()?;
    seconds.parse::<u32>().ok().map(|seconds| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(fields: &[&str]) -> String {
        format!("{}\u{1e}\n", fields.join("\u{1f}"))
    }

    #[test]
    fn a_running_job_is_read_with_its_owner() {
        let text = record(&["39", "RUNNING", "node[1-2]", "2026-11-23T18:00:00", "N/A", "maddock:r1/dummy", "None"]);
        let jobs = queue(&text);
        assert_eq!(jobs.len(), 1);
        assert!(matches!(jobs[0].state, JobState::Running));
        assert_eq!((jobs[0].nodes.as_str(), jobs[0].owner.as_str()), ("node[1-2]", "r1/dummy"));
        assert_eq!((jobs[0].start.as_str(), jobs[0].reason.as_str()), ("2026-11-23T18:00:00", ""));
    }

    #[test]
    fn a_waiting_job_says_why_and_does_not_claim_a_start() {
        let reason = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions";
        let text = record(&["7", "PENDING", "", "2027-01-01T00:00:00", "N/A", "(null)", reason]);
        let job = queue(&text).remove(0);
        assert_eq!((job.reason.as_str(), job.start.as_str(), job.owner.as_str()), (reason, "", ""));
        assert!(!job.ended);
    }

    #[test]
    fn a_job_s_name_cannot_speak_for_the_job() {
        let text = "JobId=39 JobName=x JobState=COMPLETED ExitCode=0:0\n   UserId=root(0)\n   JobState=FAILED \
                    Reason=NonZeroExitCode Dependency=(null)\n   Requeue=0 ExitCode=7:0\n   NodeList=node1\n   \
                    Comment=maddock:r1/dummy\n";
        let job = details(text).unwrap();
        assert!(matches!(job.state, JobState::Failed));
        assert_eq!((job.exit_code, job.signal, job.owner.as_str()), (Some(7), None, "r1/dummy"));
    }

    #[test]
    fn the_accounting_is_read_and_its_last_word_counts() {
        let text = "5\u{1f}NODE_FAIL\u{1f}0:0\u{1f}node1\u{1f}2026-01-01T00:00:00\u{1f}2026-01-01T00:01:00\n\
                    5\u{1f}CANCELLED by 0\u{1f}0:15\u{1f}node2\u{1f}Unknown\u{1f}Unknown\nrubbish\n";
        let jobs = accounting(text);
        assert_eq!(jobs.len(), 1);
        assert!(matches!(jobs[0].state, JobState::Cancelled));
        assert_eq!((jobs[0].exit_code, jobs[0].signal), (None, Some(15)));
    }

    #[test]
    fn time_limits_of_partitions_are_minutes() {
        for (text, expected) in [
            ("infinite", None),
            ("n/a", None),
            ("1-00:00:00", Some(1440)),
            ("12:00:00", Some(720)),
            ("30:00", Some(30)),
            ("0:30", Some(1)),
            ("", None),
            ("99999999999999999999:0", None),
        ] {
            assert_eq!(minutes(text), expected, "{text}");
        }
    }

    #[test]
    fn nodes_and_partitions_are_merged() {
        let text = record(&["node1", "cpu", "idle*", "8", "8000", "gpu:4", "none"])
            + &record(&["node1", "gpu", "idle*", "8", "8000", "gpu:4", "none"]);
        let found = nodes(&text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].partitions.len(), found[0].state.as_str(), found[0].memory), (2, "idle", 8000));
        let text = record(&["cpu", "cpu*", "up", "infinite", "2"]) + &record(&["cpu", "cpu*", "up", "infinite", "1"]);
        let found = partitions(&text);
        assert_eq!((found.len(), found[0].node_count, found[0].is_default), (1, 3, true));
    }

    proptest! {
        #[test]
        fn no_output_makes_a_parser_fail_or_makes_up_an_id(text in "[ -~\u{1e}\u{1f}\n=:]{0,400}") {
            for job in queue(&text).into_iter().chain(accounting(&text)).chain(details(&text)) {
                prop_assert!(is_id(&job.id));
            }
            let _ = (partitions(&text), nodes(&text), minutes(&text), exit(&text));
        }

        #[test]
        fn a_comment_or_reason_of_any_text_is_no_other_field(comment in "[^\u{1e}\u{1f}]{0,60}", reason in "[^\u{1e}\u{1f}]{0,60}") {
            let text = record(&["12", "RUNNING", "n1", "N/A", "N/A", &comment, &reason]);
            let jobs = queue(&text);
            prop_assert_eq!(jobs.len(), 1);
            prop_assert!(matches!(jobs[0].state, JobState::Running));
            prop_assert_eq!(&jobs[0].id, "12");
        }
    }

    #[test]
    fn the_time_before_processes_are_ended_is_read_from_the_configuration() {
        let config = "JobRequeue               = 1\nKillOnBadExit            = 0\nKillWait                 = 30 sec\n";
        assert_eq!(kill_wait(config).as_deref(), Some("30"));
        assert_eq!(kill_wait("KillWait = (null)"), None);
    }
}
