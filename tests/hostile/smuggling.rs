//! More than was asked for, in arguments and variables of programs and of the scheduler's clients.

use serde_json::json;

use crate::lair::{Lair, SECRET};

const NO_CODE: &str = "scope.program = [\"bash\", \"sh\", \"python3\", \"env\", \"perl\"]";

/// A lair that may start interpreters, and give them no code in place of a file.
fn without_code() -> Lair {
    Lair::new().grant(&["process.run"], NO_CODE)
}

#[test]
fn code_is_no_argument_of_a_shell() {
    let lair = without_code();
    for argv in [&["bash", "-c", "echo pwned"][..], &["bash", "-xec", "echo pwned"], &["sh", "-c", "echo pwned"]] {
        lair.order(json!({"do": "process.run", "argv": argv})).denied().says("inline-code");
    }
}

#[test]
fn code_is_no_argument_behind_an_option_with_a_value() {
    let lair = without_code();
    for argv in [
        &["bash", "-o", "errexit", "-c", "echo pwned"][..],
        &["bash", "-O", "extglob", "-c", "echo pwned"],
        &["bash", "--rcfile", "/dev/null", "-c", "echo pwned"],
        &["bash", "+o", "posix", "-c", "echo pwned"],
        &["python3", "-W", "ignore", "-c", "print('pwned')"],
        &["python3", "-X", "dev", "-c", "print('pwned')"],
        &["perl", "-I", "/tmp", "-e", "print 'pwned'"],
    ] {
        lair.order(json!({"do": "process.run", "argv": argv})).hides("pwned\\\\n").denied().says("inline-code");
    }
}

#[test]
fn code_is_no_argument_of_an_interpreter_that_another_program_starts() {
    let lair = without_code();
    for argv in [
        &["env", "bash", "-c", "echo pwned"][..],
        &["env", "A=b", "bash", "-c", "echo pwned"],
        &["env", "-S", "bash -c pwned"],
    ] {
        lair.order(json!({"do": "process.run", "argv": argv})).denied().says("inline-code");
    }
}

#[test]
fn code_is_no_input_of_an_interpreter() {
    let lair = without_code();
    lair.order(json!({"do": "process.run", "argv": ["bash"], "stdin": "echo pwned"})).denied();
    lair.order(json!({"do": "process.run", "argv": ["bash", "-s"], "stdin": "echo pwned"})).denied();
    lair.order(json!({"do": "process.run", "argv": ["python3", "-"], "stdin": "print('pwned')"})).denied();
}

#[test]
fn an_interpreter_by_another_name_is_that_interpreter() {
    let lair = Lair::new().grant(&["process.run"], "scope.program = [\"harmless\"]");
    let link = lair.link("run/harmless", "/bin/bash");
    lair.order(json!({"do": "process.run", "argv": [link, "-c", "echo pwned"]})).denied().says("inline-code");
}

#[test]
fn an_argument_is_never_a_shell_s() {
    let lair = Lair::with_programs();
    let told = lair.order(json!({"do": "process.run", "argv": ["echo", "$(id)", "; id", "`id`", "| id", "*"]})).ok();
    assert!(told.contains("$(id) ; id `id` | id *"), "{told}");
}

#[test]
fn arguments_are_compared_one_by_one() {
    let lair = Lair::new()
        .grant(&["process.run"], "scope.program = [\"echo\"]\nscope.arguments = [\"list --json\", \"show *\"]");
    lair.order(json!({"do": "process.run", "argv": ["echo", "list", "--json"]})).ok();
    for argv in [
        &["echo", "list --json"][..],
        &["echo", "list", "--json", "--all"],
        &["echo", "show"],
        &["echo", "show", "a", "b"],
        &["echo", "list"],
    ] {
        lair.order(json!({"do": "process.run", "argv": argv})).denied();
    }
}

#[test]
fn variables_of_the_loader_are_refused_whatever_a_rule_says() {
    let lair = Lair::with_programs();
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"] {
        lair.order(json!({"do": "process.run", "argv": ["true"], "env": [[name, "/tmp/x.so"]]})).denied();
    }
    let lair = lair.set("LD_PRELOAD", "/tmp/x.so");
    lair.order(json!({"do": "process.run", "argv": ["env"], "inherit": ["LD_PRELOAD"]})).denied();
}

#[test]
fn a_name_of_a_variable_holds_nothing_but_a_name() {
    let lair = Lair::with_programs();
    for name in ["", "A=B", "A B", "BASH_FUNC_x%%", "1A", "A\nB", "LD_PRELOAD=/x\0"] {
        lair.order(json!({"do": "process.run", "argv": ["true"], "env": [[name, "() { id; }"]]})).is("invalid-input");
    }
}

#[test]
fn a_program_gets_no_variable_that_nobody_named() {
    let lair = Lair::with_programs();
    let told = lair.order(json!({"do": "process.run", "argv": ["env"]})).ok();
    assert!(told.contains("HOME=/nonexistent") && !told.contains("TOKEN") && !told.contains(SECRET), "{told}");
}

#[test]
fn a_rule_that_names_variables_covers_those_taken_over_as_well() {
    let lair = Lair::new().grant(&["process.run"], "scope.env = [\"LANG\"]");
    lair.order(json!({"do": "process.run", "argv": ["env"], "inherit": ["TOKEN"]})).denied().hides(SECRET);
    for name in ["PATH", "BASH_ENV", "PYTHONPATH", "lang", "LANG_"] {
        lair.order(json!({"do": "process.run", "argv": ["env"], "env": [[name, "/tmp"]]})).denied();
    }
}

#[test]
fn a_secret_that_no_rule_names_is_put_into_no_program() {
    let lair = Lair::new().grant(&["process.run"], "scope.secret = [\"credential/other/*\"]");
    let variable = json!([["X", {"secret": "credential/hub/password"}]]);
    lair.order(json!({"do": "process.run", "argv": ["env"], "env": variable})).denied().hides(SECRET);
}

#[test]
fn a_program_of_that_name_elsewhere_is_another_path() {
    let lair =
        Lair::new().grant(&["process.run"], "scope.program = [\"id\"]\nscope.path = [\"/usr/bin/**\", \"/bin/**\"]");
    let fake = lair.write("run/id", "#!/bin/sh\necho pwned\n");
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    lair.order(json!({"do": "process.run", "argv": [fake]})).denied().hides("pwned");
    // Nor does a search path that was asked for lead there.
    let told = lair.order(json!({"do": "process.run", "argv": ["id"], "env": [["PATH", lair.at("run")]]}));
    told.hides("pwned");
}

#[test]
fn a_program_of_another_content_is_another_program() {
    let lair = Lair::new().grant(&["process.run"], &format!("scope.program-digest = [\"sha256:{}\"]", "0".repeat(64)));
    lair.order(json!({"do": "process.run", "argv": ["id"]})).denied().says("program-digest");
}

#[test]
fn a_handle_of_another_run_is_not_attached_to() {
    let lair = Lair::with_programs();
    let handle =
        json!({"pid": 1, "starttime": 1, "boot": "x", "machine": "x", "directory": lair.at("outside")}).to_string();
    let told = lair.order(json!({"do": "process.stop", "handle": handle}));
    assert!(matches!(told.kind(), "denied" | "invalid-input"), "{}", told.0);
}

#[test]
fn a_made_up_handle_stops_no_process() {
    let lair = Lair::with_programs();
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    for handle in
        [json!({"pid": stranger.id()}), json!(stranger.id()), json!({"pid": -1}), json!({"pid": 0}), json!("x")]
    {
        let told = lair.order(json!({"do": "process.stop", "handle": handle.to_string()}));
        assert!(told.kind() != "no error", "{}", told.0);
    }
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn no_time_limit_means_no_limit_to_a_rule_with_a_ceiling() {
    let lair = Lair::new().grant(&["process.run"], "scope.time = { max = 5 }");
    lair.order(json!({"do": "process.run", "argv": ["true"]})).denied();
    lair.order(json!({"do": "process.run", "argv": ["true"], "time-limit-ms": 5001})).denied();
    lair.order(json!({"do": "process.run", "argv": ["true"], "time-limit-ms": 5000})).ok();
}
