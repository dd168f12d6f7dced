//! From a batch to the client's arguments: every value is one argument, `--name=value`, so that none can be an option.
//!
//! Whatever could say more than its member is refused: directives in the script's head, patterns in file names, variables
//! that the clients read.

use std::collections::BTreeMap;

use maddock_bindings::api::slurm::Batch;
use maddock_bindings::api::types::{EnvValue, ErrorKind};

use super::client::Client;
use super::nodes;
use super::{Owner, Slurm, check_id};
use crate::capability::files::place;
use crate::capability::gate::{Call, Permit};
use crate::capability::policy::Roots;
use crate::capability::secrets::SecretStore;
use crate::capability::{ApiError, error, error_with_hint};

/// Lines in a script's head that the client would take for options.
const DIRECTIVES: [&str; 4] = ["#sbatch", "#pbs", "#bsub", "#slurm"];
/// Variables that the clients, the loader or a shell would act on.
const FOREIGN: [&str; 8] = ["SLURM", "SBATCH", "SALLOC", "SRUN", "SQUEUE", "SCANCEL", "LD_", "BASH_"];
/// The scheduler takes longer names; its tables do not show them.
const LONGEST_NAME: usize = 200;
const LONGEST_SCRIPT: usize = 4 << 20;

fn invalid(message: impl Into<String>) -> ApiError {
    error(ErrorKind::InvalidInput, message)
}

/// A batch that is well formed, before the gate was asked. It holds no secrets yet.
#[derive(Debug)]
pub(super) struct Order {
    batch: Batch,
    comment: String,
    secrets: Vec<(String, String)>,
    /// Each by its own name; an empty one where the choice is left to the scheduler.
    nodes: Vec<String>,
}

impl Order {
    pub(super) fn new(batch: Batch, owner: &Owner, roots: &Roots) -> Result<Self, ApiError> {
        let texts = [
            ("name", &batch.name),
            ("partition", &batch.partition),
            ("gres", &batch.gres),
            ("account", &batch.account),
            ("qos", &batch.qos),
            ("reservation", &batch.reservation),
            ("constraint", &batch.constraint),
            ("memory", &batch.memory),
            ("mail-user", &batch.mail_user),
        ];
        let lists = [("nodelist", &batch.nodelist), ("exclude", &batch.exclude), ("mail-type", &batch.mail_type)];
        let in_lists = lists.iter().flat_map(|(name, values)| values.iter().map(|value| (*name, value)));
        for (name, value) in texts.into_iter().chain(in_lists) {
            if value.chars().any(char::is_control) {
                return Err(invalid(format!("`{name}` of a batch job contains a control character")));
            }
        }
        if batch.name.is_empty() || batch.name.len() > LONGEST_NAME {
            return Err(invalid(format!("the name of a batch job has 1 to {LONGEST_NAME} bytes")));
        }
        if batch.nodes == 0 || batch.tasks_per_node == 0 {
            return Err(invalid("a batch job has one node and one task on it, or more"));
        }
        if batch.time_limit == Some(0) {
            // To the scheduler 0 means no limit.
            return Err(invalid("a time limit of 0 minutes ends a batch job before it begins"));
        }
        if !batch.memory.is_empty() && !is_memory(&batch.memory) {
            return Err(error_with_hint(
                ErrorKind::InvalidInput,
                format!("`{}` is no amount of memory", batch.memory),
                "write digits and one of K, M, G, T, such as `64G`",
            ));
        }
        for (name, values) in lists {
            // A comma would make two of one value, and the policy has seen only one.
            let bad = |value: &&String| value.is_empty() || has_comma_outside_brackets(value) || value.contains('/');
            if let Some(bad) = values.iter().find(bad) {
                return Err(invalid(format!("`{bad}` is not one value of `{name}`")));
            }
        }
        check_script(&batch.script)?;
        let directory = below(&batch.directory, roots)?;
        let output = below(&batch.output, roots)?;
        let error_output = below(&batch.error_output, roots)?;
        let secrets = secret_names(&batch)?;
        let nodes = nodes::each(&batch.nodelist)?;
        let batch = Batch { directory, output, error_output, ..batch };
        Ok(Self { batch, comment: owner.comment(), secrets, nodes })
    }

    /// What the gate is told. Values that were left to the scheduler are told too, as empty ones: a rule that names
    /// partitions does not cover whichever is the default.
    pub(super) fn describe(&self, call: Call<Slurm>) -> Call<Slurm> {
        let Batch { partition, account, qos, reservation, nodes, time_limit, gpus_per_node, gres, .. } = &self.batch;
        let time = time_limit.map_or_else(|| "unlimited".to_owned(), |minutes| minutes.to_string());
        // The scheduler takes several at once, and each of them must be allowed.
        call.on_all("partition", partition.split(','))
            .on_all("account", account.split(','))
            .on_all("qos", qos.split(','))
            .on_all("reservation", reservation.split(','))
            .on("node-count", nodes.to_string())
            .on("gpus-per-node", gpus_per_node.to_string())
            .on_all("gres", (!gres.is_empty()).then(|| gres.split(',')).into_iter().flatten())
            .on("time", time)
            .on_all("nodes", self.nodes.iter().cloned())
            .on_all("path", [&self.batch.directory, &self.batch.output, &self.batch.error_output])
            .on_all(
                "mail",
                (!self.batch.mail_user.is_empty()).then(|| self.batch.mail_user.split(',')).into_iter().flatten(),
            )
            .on_all("env", self.secrets.iter().map(|(name, _)| name.clone()))
            .on_all("secret", self.secrets.iter().map(|(_, secret)| secret.clone()))
    }

    pub(super) fn length(&self) -> usize {
        self.batch.script.len()
    }

    /// The client's arguments.
    fn arguments(&self) -> Vec<String> {
        let batch = &self.batch;
        let mut arguments = vec![
            "--parsable".to_owned(),
            "--ignore-pbs".to_owned(),
            "--export=ALL".to_owned(),
            "--input=/dev/null".to_owned(),
            format!("--comment={}", self.comment),
            format!("--job-name={}", batch.name),
            format!("--nodes={}", batch.nodes),
            format!("--ntasks={}", batch.nodes.saturating_mul(batch.tasks_per_node)),
            format!("--ntasks-per-node={}", batch.tasks_per_node),
            format!("--chdir={}", batch.directory),
            format!("--output={}", literal(&batch.output)),
            format!("--error={}", literal(&batch.error_output)),
            (if batch.requeue { "--requeue" } else { "--no-requeue" }).to_owned(),
        ];
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                arguments.push(format!("--{name}={value}"));
            }
        };
        add("partition", &batch.partition);
        add("gres", &batch.gres);
        add("account", &batch.account);
        add("qos", &batch.qos);
        add("reservation", &batch.reservation);
        add("constraint", &batch.constraint);
        add("nodelist", &batch.nodelist.join(","));
        add("exclude", &batch.exclude.join(","));
        add("mem", &batch.memory);
        add("mail-user", &batch.mail_user);
        add("mail-type", &batch.mail_type.join(","));
        if batch.gpus_per_node > 0 {
            add("gpus-per-node", &batch.gpus_per_node.to_string());
        }
        let unlimited = batch.extra.iter().any(|entry| entry.name == "time" && entry.value == "unlimited");
        match batch.time_limit {
            Some(minutes) => add("time", &minutes.to_string()),
            None if unlimited => add("time", "UNLIMITED"),
            None => {}
        }
        if batch.exclusive {
            arguments.push("--exclusive".to_owned());
        }
        arguments
    }

    pub(super) async fn submit(
        &self,
        _: &Permit<Slurm>,
        client: &Client,
        secrets: &SecretStore,
    ) -> Result<String, ApiError> {
        let mut variables = BTreeMap::new();
        for (name, secret) in &self.secrets {
            let value = secrets.reveal(secret).ok_or_else(|| {
                error_with_hint(
                    ErrorKind::NotFound,
                    format!("there is no secret `{secret}`"),
                    "secrets come from `credential.json`, variables named MAD_SECRETS…, and files of MADDOCK_SECRETS_DIR",
                )
            })?;
            variables.insert(name.clone(), value.to_owned());
        }
        let script = Some(self.batch.script.as_bytes());
        let reply = client.run_with("sbatch", &self.arguments(), script, &variables).await?;
        let said = reply.success("sbatch")?;
        // `id`, or `id;cluster`.
        let id = said.trim().split(';').next().unwrap_or_default().to_owned();
        check_id(&id).map_err(|_| {
            error(ErrorKind::Failed, format!("`sbatch` answers `{}`, which is no job id", said.trim().escape_debug()))
        })?;
        Ok(id)
    }
}

fn is_memory(text: &str) -> bool {
    let digits = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    !digits.is_empty() && digits.len() <= 12 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_comma_outside_brackets(text: &str) -> bool {
    let mut depth = 0_u32;
    text.chars().any(|letter| {
        match letter {
            '[' => depth = depth.saturating_add(1),
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
}

/// A file name in which the scheduler replaces nothing.
fn literal(path: &str) -> String {
    path.replace('%', "%%")
}

/// A path below the run's own directory, with its directory's links resolved.
fn below(path: &str, roots: &Roots) -> Result<String, ApiError> {
    let place = place::existing(&place::parse(path)?)?;
    let resolved = place.path();
    if roots.run.as_os_str().is_empty() || !resolved.starts_with(&roots.run) {
        return Err(error_with_hint(
            ErrorKind::Denied,
            format!("`{}` is not in the directory of this run", resolved.display()),
            "batch jobs begin and write below the run's own directory",
        ));
    }
    let text = resolved.to_str().ok_or_else(|| invalid(format!("`{}` is not text", resolved.display())))?;
    // The scheduler takes a backslash for a sign that nothing is to be replaced, and drops it.
    if text.contains('\\') || text.chars().any(char::is_control) {
        return Err(invalid(format!("`{}` has characters that the scheduler does not take", text.escape_debug())));
    }
    Ok(text.to_owned())
}

fn check_script(script: &str) -> Result<(), ApiError> {
    if !script.starts_with("#!") {
        return Err(invalid("a batch script begins with `#!`"));
    }
    if script.contains('\0') {
        return Err(invalid("a batch script cannot contain a NUL byte"));
    }
    if script.len() > LONGEST_SCRIPT {
        return Err(invalid(format!("a batch script of {} bytes is longer than {LONGEST_SCRIPT}", script.len())));
    }
    // The client reads directives until the first line that is neither a comment nor blank.
    let head = script.lines().map(str::trim_start).take_while(|line| line.is_empty() || line.starts_with('#'));
    for line in head {
        let lower = line.to_ascii_lowercase();
        if DIRECTIVES.iter().any(|directive| lower.starts_with(directive)) {
            return Err(error_with_hint(
                ErrorKind::InvalidInput,
                format!("the batch script has a directive: `{}`", line.escape_debug()),
                "say it by a member of the batch, where the policy sees it",
            ));
        }
    }
    Ok(())
}

fn secret_names(batch: &Batch) -> Result<Vec<(String, String)>, ApiError> {
    batch
        .env
        .iter()
        .map(|variable| {
            let name = &variable.name;
            let plain = !name.starts_with(|first: char| first.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !name.is_empty();
            let foreign = FOREIGN.iter().any(|prefix| name.starts_with(prefix))
                || matches!(name.as_str(), "PATH" | "HOME" | "ENV" | "IFS");
            if !plain || foreign {
                return Err(invalid(format!("`{}` cannot be a variable of a batch job", name.escape_debug())));
            }
            match &variable.value {
                EnvValue::Secret(secret) => Ok((name.clone(), secret.clone())),
                EnvValue::Text(_) => Err(error_with_hint(
                    ErrorKind::InvalidInput,
                    format!("the variable `{name}` is no secret"),
                    "write plain values into the script, quoted",
                )),
            }
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use maddock_bindings::api::types::EnvVar;
    use proptest::prelude::*;

    use super::*;

    pub(in crate::capability::slurm) fn batch(directory: &std::path::Path) -> Batch {
        let file = |name: &str| directory.join(name).display().to_string();
        Batch {
            name: "maddock dummy".into(),
            script: "#!/bin/bash\nexit 0\n".into(),
            partition: "cpu".into(),
            nodes: 1,
            tasks_per_node: 1,
            gpus_per_node: 0,
            gres: String::new(),
            time_limit: Some(5),
            account: String::new(),
            qos: String::new(),
            reservation: String::new(),
            constraint: String::new(),
            nodelist: Vec::new(),
            exclude: Vec::new(),
            memory: String::new(),
            exclusive: false,
            requeue: false,
            mail_user: String::new(),
            mail_type: Vec::new(),
            output: file("batch.log"),
            error_output: file("batch.log"),
            directory: directory.display().to_string(),
            env: Vec::new(),
            extra: Vec::new(),
        }
    }

    fn order(change: impl FnOnce(&mut Batch)) -> Result<Order, ApiError> {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().canonicalize().unwrap();
        let mut batch = batch(&run);
        change(&mut batch);
        let roots = Roots { run, ..Roots::default() };
        Order::new(batch, &Owner { run: "r1".into(), job: "dummy".into() }, &roots)
    }

    #[test]
    fn a_batch_becomes_typed_flags_with_the_owner_in_the_comment() {
        let order = order(|batch| {
            batch.nodes = 2;
            batch.gpus_per_node = 4;
            batch.reservation = "r1".into();
            batch.memory = "64G".into();
            batch.nodelist = vec!["node[1,3]".into(), "node5".into()];
            batch.mail_user = "a@example.com".into();
            batch.exclusive = true;
        })
        .unwrap();
        let arguments = order.arguments();
        for expected in [
            "--comment=maddock:r1/dummy",
            "--job-name=maddock dummy",
            "--partition=cpu",
            "--nodes=2",
            "--ntasks=2",
            "--gpus-per-node=4",
            "--reservation=r1",
            "--mem=64G",
            "--nodelist=node[1,3],node5",
            "--mail-user=a@example.com",
            "--exclusive",
            "--no-requeue",
            "--time=5",
        ] {
            assert!(arguments.iter().any(|argument| argument == expected), "{expected} in {arguments:?}");
        }
        assert!(arguments.iter().all(|argument| !argument.starts_with("--account")));
    }

    #[test]
    fn directives_in_the_script_s_head_are_refused() {
        for head in
            ["#SBATCH --partition=secret", "  #SBATCH -A other", "#sbatch -p x", "# note\n\n#SBATCH -p x", "#PBS -q x"]
        {
            let refused = order(|batch| batch.script = format!("#!/bin/bash\n{head}\nexit 0\n"));
            assert!(refused.is_err(), "{head}");
        }
        let later = order(|batch| batch.script = "#!/bin/bash\nset -u\n#SBATCH -p x\n".into());
        assert!(later.is_ok(), "behind the head it is a comment");
    }

    #[test]
    fn variables_that_the_clients_read_cannot_be_set() {
        for name in ["SBATCH_PARTITION", "SLURM_CONF", "LD_PRELOAD", "PATH", "BASH_ENV", "A-B", "1A", ""] {
            let secret = EnvValue::Secret("env/X".into());
            let refused = order(|batch| batch.env.push(EnvVar { name: name.into(), value: secret }));
            assert!(refused.is_err(), "{name}");
        }
    }

    #[test]
    fn paths_outside_the_run_are_refused_and_patterns_mean_nothing() {
        assert!(order(|batch| batch.output = "/tmp/elsewhere.log".into()).is_err());
        assert!(order(|batch| batch.directory = "/".into()).is_err());
        let pattern = order(|batch| batch.output = batch.output.replace("batch.log", "x%j.log")).unwrap();
        assert!(
            pattern
                .arguments()
                .iter()
                .any(|argument| argument.starts_with("--output=") && argument.ends_with("/x%%j.log"))
        );
    }

    #[test]
    fn what_can_never_be_is_refused_before_anybody_is_asked() {
        assert!(order(|batch| batch.nodes = 0).is_err());
        assert!(order(|batch| batch.time_limit = Some(0)).is_err());
        assert!(order(|batch| batch.memory = "64GB".into()).is_err());
        assert!(order(|batch| batch.partition = "a\nb".into()).is_err());
        assert!(order(|batch| batch.nodelist = vec!["a,b".into()]).is_err());
        assert!(order(|batch| batch.script = "echo no interpreter".into()).is_err());
    }

    proptest! {
        #[test]
        fn no_value_becomes_an_option_of_its_own(value in "[^\\p{Cc}]{1,40}") {
            if let Ok(order) = order(|batch| { batch.name.clone_from(&value); batch.account.clone_from(&value); }) {
                let arguments = order.arguments();
                prop_assert!(arguments.iter().all(|argument| argument.starts_with("--")));
                let name = format!("--job-name={value}");
                let account = format!("--account={value}");
                prop_assert!(arguments.contains(&name));
                prop_assert!(arguments.contains(&account));
            }
        }
    }
}
