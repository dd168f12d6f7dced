//! Running inside an allocation that somebody made before us: in `salloc`, or in a batch job of their own.
//!
//! It is found by the invoking shell's `SLURM_JOB_ID`. A script that uses the scheduler by itself runs in it at once, as a
//! program of this machine. What we end is that program; the allocation is never ours to cancel.

use maddock_sdk::process::{self, Child, Command, Event, ExitStatus};
use maddock_sdk::slurm;
use maddock_sdk::types::{Entry, EnvVar, Step};
use maddock_sdk::{Result, facts, invalid};

/// What the allocation's own shell has and its commands read.
const INHERITED: [&str; 36] = [
    "LANG",
    "LC_ALL",
    "TZ",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "SLURM_CONF",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOBID",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_JOB_GPUS",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_QOS",
    "SLURM_JOB_RESERVATION",
    "SLURM_CPUS_PER_TASK",
    "SLURM_GPUS",
    "SLURM_GPUS_ON_NODE",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPUS_PER_TASK",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_GPU",
    "SLURM_MEM_PER_NODE",
    "SLURM_NNODES",
    "SLURM_NODELIST",
    "SLURM_NPROCS",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_SUBMIT_DIR",
    "SLURM_SUBMIT_HOST",
    "SLURM_TASKS_PER_NODE",
    "SLURMD_NODENAME",
];
/// How long the script has between being asked to end and being ended: the scheduler's own commands tidy up meanwhile.
const GRACE_MS: u32 = 10_000;

/// An allocation that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Its job's id.
    pub id: String,
    /// How many nodes it has, where anybody says so.
    pub nodes: Option<u32>,
}

impl Allocation {
    /// The one that this command runs in. The controller's word about its nodes comes first: an allocation can shrink.
    ///
    /// # Errors
    /// It is over, or it cannot be asked for.
    pub fn here() -> Result<Option<Self>> {
        let variable = |name: &str| Ok(facts::environment(name)?.filter(|value| !value.is_empty()));
        let Some(id) = variable("SLURM_JOB_ID")? else { return Ok(None) };
        let job = slurm::query(std::slice::from_ref(&id))?.pop();
        if let Some(job) = job.as_ref().filter(|job| job.ended) {
            return Err(invalid(format!("SLURM_JOB_ID names the allocation {id}, which is over ({})", job.word))
                .hint("leave that shell, or unset SLURM_JOB_ID to hand in a batch job"));
        }
        let mut nodes = job.and_then(|job| count(&job.nodes));
        for name in ["SLURM_JOB_NUM_NODES", "SLURM_NNODES"] {
            if nodes.is_none() {
                nodes = variable(name)?.and_then(|text| text.trim().parse().ok());
            }
        }
        if nodes.is_none() {
            nodes = variable("SLURM_JOB_NODELIST")?.as_deref().and_then(count);
        }
        Ok(Some(Self { id, nodes }))
    }

    /// Whether a job of `nodes` nodes has room in it.
    ///
    /// # Errors
    /// It has fewer.
    pub fn holds(&self, nodes: u32) -> Result<()> {
        match self.nodes {
            Some(own) if own < nodes => {
                Err(invalid(format!("the job takes {nodes} nodes, and the allocation {} has {own}", self.id))
                    .hint("ask for a larger allocation, or for fewer nodes with `distributed.nnodes`")
                    .detail("key", "distributed.nnodes"))
            }
            _ => Ok(()),
        }
    }

    /// What will be done, in the words of the capabilities.
    #[must_use]
    pub fn step(&self) -> Step {
        Step {
            summary: format!("run the job's script within the allocation {}", self.id),
            call: "process.launch".to_owned(),
            scope: vec![Entry { name: "program".to_owned(), value: "bash".to_owned() }],
        }
    }

    /// Starts the script, and answers what it is found by.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(&self, script: &str, directory: &str, env: Vec<EnvVar>, seconds: Option<u64>) -> Result<String> {
        let command = Command {
            argv: vec!["bash".to_owned(), script.to_owned()],
            env,
            inherit: INHERITED.iter().map(|name| (*name).to_owned()).collect(),
            directory: Some(directory.to_owned()),
            stdin: None,
            time_limit_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
            extra: Vec::new(),
        };
        process::launch(&command, directory).map_err(|error| error.during("starting the job's script"))
    }
}

/// A script that runs within an allocation.
pub struct Running(Child);

impl Running {
    /// Finds it again.
    ///
    /// # Errors
    /// Nobody knows it.
    pub fn attach(handle: &str) -> Result<Self> {
        process::attach(handle).map(Self).map_err(|error| error.during("attaching to the job's script"))
    }

    /// How it ended; none while it goes on. `tell` gets what it says by itself, outside of its log.
    ///
    /// # Errors
    /// Its supervisor cannot be asked.
    pub fn look(&self, timeout_ms: u32, tell: &mut dyn FnMut(&[u8])) -> Result<Option<ExitStatus>> {
        loop {
            match self.0.next_event(timeout_ms)? {
                Event::Output((_, bytes)) => tell(&bytes),
                Event::Exited(status) => return Ok(Some(status)),
                Event::Timeout => return Ok(None),
            }
        }
    }

    /// Ends it, and nothing else.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn stop(&self) -> Result<()> {
        self.0.stop(GRACE_MS)
    }
}

/// How many nodes a list such as `a[1-3,7],b` names; none for what is no list.
#[must_use]
pub fn count(list: &str) -> Option<u32> {
    let mut total: u32 = 0;
    let (mut names, mut depth) = (vec![String::new()], 0_u32);
    for letter in list.trim().chars() {
        match letter {
            '[' => depth = depth.checked_add(1)?,
            ']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        match names.last_mut() {
            _ if letter == ',' && depth == 0 => names.push(String::new()),
            Some(name) => name.push(letter),
            None => return None,
        }
    }
    for name in names {
        total = total.checked_add(of_name(&name)?)?;
    }
    (depth == 0).then_some(total)
}

/// A name of which each bracket holds numbers and ranges.
fn of_name(name: &str) -> Option<u32> {
    if name.is_empty() || name.contains([' ', '(']) {
        return None;
    }
    let mut product: u32 = 1;
    for part in name.split('[').skip(1) {
        let (inside, _) = part.split_once(']')?;
        let mut sum: u32 = 0;
        for range in inside.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            sum = sum.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
        }
        product = product.checked_mul(sum)?;
    }
    Some(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_list_are_counted() {
        for (list, nodes) in [
            ("node1", Some(1)),
            ("node[1-3]", Some(3)),
            ("node[01-03,7],x,r[1-2]n[1-4]", Some(13)),
            ("", None),
            ("(null)", None),
            ("node[1-", None),
            ("node[3-1]", None),
            ("a,,b", None),
            ("a[0-4294967295]", None),
        ] {
            assert_eq!(count(list), nodes, "{list}");
        }
    }

    #[test]
    fn a_job_that_is_larger_than_its_allocation_is_refused() {
        let allocation = |nodes| Allocation { id: "7".to_owned(), nodes };
        assert!(allocation(Some(2)).holds(2).is_ok() && allocation(Some(3)).holds(2).is_ok());
        assert!(allocation(None).holds(2).is_ok(), "nobody says how large it is: the scheduler will");
        let error = allocation(Some(1)).holds(2).unwrap_err();
        assert!(error.message.contains("allocation 7 has 1") && error.hint.is_some());
    }
}
