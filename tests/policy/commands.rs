//! `maddock policy …`

use crate::ground::Ground;

#[test]
fn check_tells_every_mistake_with_its_line_and_the_nearest_word() {
    let ground = Ground::plain();
    let file = ground.write(
        "bad.toml",
        "schema = 1\n[[allow]]\nplugin = \"target-dockr\"\ncalls = [\"docker.create-container\"]\n\n[[deny]]\nplugin = \"*\"\ncalls = [\"files.raed\"]\n",
    );
    let file = file.to_str().unwrap();
    ground.call(&["policy", "check", file]).exits(4).says(&[
        &format!("{file}:2: `target-dockr` is not built in"),
        "did you mean `target-docker`",
        &format!("{file}:8: there is no call `files.raed`; did you mean `files.read`"),
        "2 errors",
    ]);
}

#[test]
fn a_file_that_is_wrong_stops_every_command_that_would_use_it() {
    for (path, option) in
        [("config/maddock/policy.toml", false), ("work/maddock-policy.toml", false), ("given.toml", true)]
    {
        let ground = Ground::plain();
        let file = ground.write(path, "schema = 1\nallow = 3\n").display().to_string();
        let words: Vec<&str> = if option { vec!["--policy", &file] } else { Vec::new() };
        ground.run("process", &words).exits(4).says(&[&format!("policy {file}:2: `allow` is a list of tables")]);
        assert!(ground.trace().is_empty(), "nothing was called");
    }
    Ground::plain()
        .run("process", &["--policy", "none.toml"])
        .exits(5)
        .says(&["policy `none.toml`: there is no such file"]);
}

#[test]
fn a_users_policy_that_others_can_write_is_refused() {
    let ground = Ground::plain();
    ground.user("schema = 1\n");
    ground.run("process", &[]).exits(0);
    ground.mode("config/maddock/policy.toml", 0o666);
    ground.run("process", &[]).exits(5).says(&["others can write to it", "hint: make it yours alone: `chmod go-w "]);
}

#[test]
fn explain_names_the_rule_and_its_lines_allow_the_call() {
    let ground = Ground::plain();
    let words =
        ["policy", "explain", "target-docker", "docker.create-container", "privileged=true", "--format", "json"];
    let refused = ground.call(&words).exits(5);
    let refused: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(refused["allowed"], false);
    assert!(refused["rule"].as_str().unwrap().starts_with("<built-in>/policy.toml:"), "{refused}");
    ground.user(&format!("schema = 1\n{}", refused["lines"].as_str().unwrap()));
    let file = ground.path("config/maddock/policy.toml");
    ground.call(&words[..5]).exits(0).says(&[&format!("allowed by {}:2", file.display())]);
    ground
        .call(&["policy", "explain", "target-dockr", "docker.pull-image"])
        .exits(4)
        .says(&["did you mean `target-docker`"]);
    ground.call(&["policy", "explain", "target-docker", "docker.pul-image"]).exits(4).says(&["`docker.pull-image`"]);
    ground
        .call(&["policy", "explain", "target-docker", "docker.pull-image", "imag=x"])
        .exits(4)
        .says(&["did you mean `image`"]);
}

#[test]
fn show_has_every_rule_with_its_place() {
    let ground = Ground::plain();
    ground.user(
        "schema = 1\n[[deny]]\nplugin = \"target-docker\"\ncalls = [\"docker.*\"]\n[[limits]]\nmemory = \"64 MiB\"\n",
    );
    let file = ground.path("config/maddock/policy.toml");
    let shown = ground.call(&["policy", "show", "target-docker"]).exits(0);
    let shown = shown.says(&["deny target-docker docker.*", &format!("at {}:2", file.display()), "67108864"]);
    assert!(!shown.stdout.contains("report-csv"), "{shown:?}");
    let json = ground.call(&["policy", "show", "--format", "json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["layers"][1]["rules"][0]["effect"], "deny");
}

#[test]
fn cases_of_a_file_come_out_as_they_say_or_are_told() {
    let ground = Ground::plain();
    let text = |expect: &str| {
        format!(
            "schema = 1\n[[deny]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\n\n[[test]]\nplugin = \"target-docker\"\n\
             call = \"docker.pull-image\"\nscope.image = \"ubuntu\"\nexpect = \"deny\"\n\n[[test]]\nplugin = \"target-process\"\n\
             call = \"files.write\"\nscope.path = [\"$run/x\"]\nexpect = \"{expect}\"\n"
        )
    };
    let file = ground.write("site.toml", &text("allow")).display().to_string();
    ground.call(&["policy", "test", &file]).exits(0).says(&["2 cases, 0 failed"]);
    ground.write("site.toml", &text("deny"));
    ground
        .call(&["policy", "test", &file])
        .exits(1)
        .says(&[&format!("failed {file}:12: expected deny, and it is allow by <built-in>")]);
}

#[test]
fn nothing_in_a_value_drives_a_terminal() {
    let ground = Ground::plain();
    let value = "path=/etc/\u{1b}[31mred\u{7}\nerror: all is well";
    let said = ground.call(&["policy", "explain", "discover-mad", "files.read", value]).exits(5);
    assert!(!said.stdout.contains(['\u{1b}', '\u{7}']), "{said:?}");
    assert!(!said.stdout.lines().any(|line| line.starts_with("error: all")), "{said:?}");
}
