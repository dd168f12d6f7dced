//! Secrets reach the job and nothing else: no file that a run leaves, and nothing that it prints, holds their bytes.

use std::path::Path;

use serde_json::json;

use crate::playground::{Answer, Playground, answer, contents};

const TOKEN: &str = "verysecretvalue-1f8e";
const PASSWORD: &str = "hunter2-and-more";

/// Says on the log all that it knows, and proves by length and digest that it had the values.
const TELLTALE: &str = r#"
env
echo "the token is $MAD_SECRETS_TOKEN" >&2
for part in very secret value -1f8e; do printf %s "$part"; sleep 0; done; echo
cat /proc/self/environ | tr '\0' '\n'
{
    echo "token,${#MAD_SECRETS_TOKEN}"
    echo "user,${#site_username} $(env | grep -c '^site_')"
    printf 'digest,'; printf %s "$MAD_SECRETS_TOKEN" | sha256sum | cut -c1-64
} > x_output.csv
echo 'performance: 1 x'
"#;

fn secretive() -> Playground {
    let mut playground = Playground::new();
    playground.model("m", json!({"cred": "site"}), TELLTALE);
    playground.write(
        "tree/credential.json",
        &json!({"site": {"username": "somebody-known", "PASSWORD": PASSWORD}, "other": {"username": "not-for-this-model"}})
            .to_string(),
    );
    playground
}

fn run(playground: &Playground, more: &[&str]) -> Answer {
    let mut command = playground.run_command();
    command.args(["--tags", "m"]).args(more).env("MAD_SECRETS_TOKEN", TOKEN);
    answer(&mut command)
}

/// Nothing under `directory`, names included, and nothing printed holds a secret.
#[track_caller]
fn nowhere(directory: &Path, answer: &Answer) {
    for secret in [TOKEN, PASSWORD, "not-for-this-model"] {
        for (path, bytes) in contents(directory) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds {secret}", path.display());
            assert!(!path.display().to_string().contains(secret));
        }
        assert!(!answer.stdout.contains(secret) && !answer.stderr.contains(secret), "{secret} in {answer:#?}");
    }
}

#[test]
fn no_secret_is_in_any_file_or_output_and_the_job_has_them_all_the_same() {
    let playground = secretive();
    let answer = run(&playground, &["--verbose"]).exits(0);
    nowhere(&playground.work(), &answer);
    let seen = playground.read("x_output.csv");
    assert!(seen.contains(&format!("token,{}\n", TOKEN.len())), "{seen}");
    assert!(seen.contains(" 2\n"), "username and password of its own credential: {seen}");
    let digest = "digest,";
    let told = seen.lines().find_map(|line| line.strip_prefix(digest)).unwrap();
    assert_eq!(told, sha256(TOKEN));
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_log_has_a_mask_where_the_value_was() {
    let playground = secretive();
    run(&playground, &[]).exits(0);
    let log = playground.read("m_process.run.live.log");
    assert!(log.contains("the token is ***\n"), "{log}");
    assert!(log.contains("MAD_SECRETS_TOKEN=***\n"), "{log}");
}

#[test]
fn live_output_is_masked_too() {
    let playground = secretive();
    let answer = run(&playground, &["--live-output"]).exits(0).prints(&["the token is ***\n"]);
    nowhere(&playground.work(), &answer);
}

#[test]
fn a_work_directory_that_is_kept_holds_no_secret() {
    let playground = secretive();
    let answer = run(&playground, &["--keep-model-dir"]).exits(0);
    assert!(playground.only_run().join("jobs/0-m/workspace").is_dir());
    nowhere(&playground.work(), &answer);
}

#[test]
fn what_the_sudden_death_of_the_program_leaves_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let mut playground = Playground::new();
    let note = playground.note("begun");
    playground.model("m", json!({}), &format!("env; echo $$ > {}; sleep 600", note.display()));
    let mut command = playground.run_command();
    command.args(["--tags", "m"]).env("MAD_SECRETS_TOKEN", TOKEN);
    let run = crate::playground::Started::new(&mut command);
    let pid = crate::playground::line_of(&note);
    run.signal(rustix::process::Signal::KILL);
    run.ended();
    crate::playground::until("the end of the model", || !crate::playground::alive(&pid));
    // Until then its supervisor writes.
    let record = playground.only_run().join("jobs/0-m/exit.json");
    crate::playground::until("the supervisor's record", || record.exists());
    for (path, bytes) in contents(&playground.work()) {
        if bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()) {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{} can be read by others", path.display());
        }
    }
}

#[test]
fn a_model_without_a_credential_gets_none() {
    let mut playground = secretive();
    playground.model("n", json!({}), "env | grep -c '^site_' > n_output.csv; echo 'performance: 1 x'");
    playground.run(&["--tags", "n"]).exits(0);
    assert_eq!(playground.read("n_output.csv"), "0\n");
}

#[test]
fn a_dry_run_shows_no_secret() {
    let playground = secretive();
    for format in ["text", "json"] {
        let answer = run(&playground, &["--dry-run", "--format", format]).exits(0);
        nowhere(&playground.work(), &answer);
    }
}

#[test]
fn a_secret_is_on_no_command_line() {
    let mut playground = secretive();
    playground.model(
        "m",
        json!({"cred": "site"}),
        "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p 2>/dev/null; echo; done > all.txt; \
         grep -c \"$MAD_SECRETS_TOKEN\" all.txt > m_output.csv; echo 'performance: 1 x'",
    );
    // `grep` itself has it on its own line, which is the model's doing, after the list was made.
    run(&playground, &[]).exits(0);
    assert_eq!(playground.read("m_output.csv"), "0\n");
}

#[test]
fn a_script_that_fails_or_is_ended_tells_no_secret_either() {
    for (script, code) in [("env; exit 3", 3), ("env; sleep 600", 3)] {
        let mut playground = Playground::new();
        playground.model("m", json!({"timeout": 1}), script);
        let answer = run(&playground, &[]).exits(code);
        nowhere(&playground.work(), &answer);
    }
}

#[test]
fn a_secret_in_a_file_that_the_model_leaves_is_the_models_own_business_but_not_in_reports() {
    let mut playground = Playground::new();
    playground.model("m", json!({}), "echo \"performance: 1 $MAD_SECRETS_TOKEN\"");
    let answer = run(&playground, &[]).exits(0);
    nowhere(&playground.work(), &answer);
}

#[test]
fn a_broken_credential_file_is_told_and_left_out() {
    let playground = secretive();
    playground.write("tree/credential.json", "{\"site\": ");
    run(&playground, &[]).exits(0).says(&["warning:", "credential.json"]);
}
