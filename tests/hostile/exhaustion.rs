//! Using up what there is: memory, time, stack, log, transfer, host calls, open things, disk, depth.

use std::time::Duration;

use serde_json::{Value, json};

use crate::lair::Lair;
use crate::stage::Stage;

#[test]
fn memory_ends_at_its_ceiling() {
    let lair = Lair::new().limited(|ceilings| ceilings.memory = 64 << 20);
    assert!(lair.end(json!([{"do": "grow"}])).contains("bytes of memory, the ceiling"), "by that ceiling");
}

#[test]
fn time_on_the_processor_ends_at_its_ceiling() {
    let lair = Lair::new().limited(|ceilings| ceilings.processor = Duration::from_millis(200));
    assert!(lair.end(json!([{"do": "loop"}])).contains("computed for more than 0.2 s"));
}

#[test]
fn the_stack_ends_where_it_ends() {
    let said = Lair::new().end(json!([{"do": "recurse"}]));
    assert!(said.contains("call stack exhausted") || said.contains("out of bounds"), "{said}");
}

#[test]
fn what_is_told_ends_at_its_ceiling() {
    let lair = Lair::new().limited(|ceilings| ceilings.log = 1 << 20);
    for call in ["events.log", "events.output", "events.state", "events.progress"] {
        let said = lair.end(json!([{"do": call, "bytes": "x", "times": 1000, "again": 10_000}]));
        assert!(said.contains("told more than 1048576 bytes"), "{call}: {said}");
    }
}

#[test]
fn empty_events_come_to_an_end_too() {
    let lair = Lair::new().limited(|ceilings| ceilings.log = 1 << 16);
    for call in ["events.log", "events.output", "events.state", "events.progress"] {
        let said = lair.end(json!([{"do": call, "bytes": "", "again": 1_000_000}]));
        assert!(said.contains("told more than"), "{call}: {said}");
    }
}

#[test]
fn fields_and_units_of_events_count() {
    let lair = Lair::new().limited(|ceilings| ceilings.log = 1 << 20);
    let long = "x".repeat(1 << 16);
    let said = lair.end(json!([{"do": "events.log", "bytes": "", "fields": [["a", long]], "again": 1000}]));
    assert!(said.contains("told more than"), "{said}");
    let said = lair.end(json!([{"do": "events.progress", "bytes": "", "unit": long, "again": 1000}]));
    assert!(said.contains("told more than"), "{said}");
}

#[test]
fn errors_written_to_the_library_s_stream_end_at_the_ceiling_too() {
    let lair = Lair::new().limited(|ceilings| ceilings.log = 1 << 16);
    let said = lair.end(json!([{"do": "std.stderr", "bytes": "x", "times": 1_000_000}]));
    assert!(said.contains("told more than") || said.contains("ceiling"), "{said}");
}

#[test]
fn what_is_moved_ends_at_its_ceiling() {
    let lair = Lair::with_files().limited(|ceilings| ceilings.transfer = 1 << 20);
    lair.write("run/large", &"x".repeat(700_000));
    let read = json!({"do": "files.read", "path": lair.at("run/large")});
    assert!(lair.end(json!([read, read])).contains("moved more than 1048576 bytes"));
    let write = json!({"do": "files.write", "path": lair.at("run/w"), "bytes": "x", "times": 700_000});
    assert!(lair.end(json!([write, write])).contains("moved more than"));
    let copy = json!({"do": "files.copy", "source": lair.at("run/large"), "path": lair.at("run/c")});
    assert!(lair.end(json!([copy, copy])).contains("moved more than"));
    let print = json!({"do": "process.run", "argv": ["cat", lair.at("run/large")]});
    let lair = Lair::with_programs().limited(|ceilings| ceilings.transfer = 1 << 20);
    assert!(
        lair.end(
            json!([print, {"do": "process.run", "argv": ["head", "-c", "1048577", "/dev/zero"], "limit": 2 << 20}])
        )
        .contains("moved more than")
    );
}

#[test]
fn host_calls_end_at_their_ceiling_also_refused_ones() {
    let lair = Lair::new().limited(|ceilings| ceilings.host_calls = 50);
    let said = lair.end(json!([{"do": "files.insist", "path": "/etc/passwd", "times": 1_000_000}, {"do": "loop"}]));
    assert!(said.contains("made more than 50 host calls"), "{said}");
    assert!(lair.trace().lines().count() <= 50);
}

#[test]
fn things_held_open_come_to_an_end_before_this_process_has_no_descriptors_left() {
    let lair = Lair::with_files();
    let told = lair.attempt(json!([{"do": "files.hoard", "path": lair.at("run/lock"), "times": 5000}])).0;
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 300, "{open} are left open");
    let said = match told {
        Ok(told) => told[0].message().to_owned(),
        Err(error) => error.to_string(),
    };
    assert!(!said.contains("Too many open files") && !said.contains("too many open files"), "{said}");
    let locks = std::fs::read_dir(lair.root().join("run")).unwrap().count();
    assert!(locks < 600, "{locks}");
}

#[test]
fn a_program_that_prints_without_end_is_ended() {
    let lair = Lair::with_programs();
    lair.order(json!({"do": "process.run", "argv": ["yes"], "limit": 100_000}))
        .is("failed")
        .says("more than 100000 bytes");
}

#[test]
fn a_program_leaves_no_process_of_its_group_behind() {
    let lair = Lair::new().grant(&["process.*"], "scope.inline-code = [\"**\"]");
    let told =
        lair.order(json!({"do": "process.run", "argv": ["bash", "-c", "sleep 4711 & sleep 4711 & echo $!"]})).ok();
    // `("…", "PID\\n", "")`
    let pid = told.split('"').find_map(|part| part.strip_suffix("\\n")?.parse::<u32>().ok()).unwrap();
    let alive = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"));
    let deadline = std::time::Instant::now() + Duration::from_secs(240);
    while alive() {
        assert!(std::time::Instant::now() < deadline, "{told}");
    }
}

#[test]
fn a_plugin_that_gives_up_takes_nobody_along() {
    let lair = Lair::new();
    for order in [
        json!({"do": "panic"}),
        json!({"do": "abort"}),
        json!({"do": "exit", "code": 0}),
        json!({"do": "exit", "code": 7}),
    ] {
        let said = lair.end(json!([order]));
        assert!(said.starts_with("plugin `hostile` failed in `launcher.arrange`"), "{said}");
    }
    lair.order(json!({"do": "events.log", "bytes": "still here"})).ok();
}

#[test]
fn a_refused_call_with_a_huge_value_fills_neither_trace_nor_message() {
    let lair = Lair::new();
    // The order itself is short: the path is the same megabyte each time.
    let path = format!("/{}", "x".repeat(1 << 20));
    let order = json!({"do": "files.stat", "path": path});
    let told = lair.obey(json!([order, order, order, order]));
    assert!(told[0].0.to_string().len() < 100_000, "{} bytes", told[0].0.to_string().len());
    assert!(lair.trace().len() < 100_000, "{} bytes", lair.trace().len());
}

#[test]
fn a_call_with_very_many_values_fills_neither_trace_nor_message() {
    let lair = Lair::new();
    let names: Vec<String> = (0..100_000).map(|number| format!("NAME_{number}")).collect();
    let told = lair.order(json!({"do": "process.run", "argv": ["true"], "inherit": names}));
    assert!(told.denied().0.to_string().len() < 200_000, "{} bytes", told.0.to_string().len());
    assert!(lair.trace().len() < 200_000, "{} bytes", lair.trace().len());
}

/// JSON that nests deeper than any reader's stack.
fn nested() -> String {
    format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))
}

#[test]
fn deep_objects_of_a_cluster_are_refused() {
    let lair = Lair::new().grant(&["kube.*"], "").set("KUBECONFIG", "/nowhere");
    let file = lair.write("c", r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}"#);
    let lair = lair.set("KUBECONFIG", &file);
    let told = lair.order(json!({"do": "kube.create", "namespace": "team", "raw": [nested()]}));
    told.is("invalid-input");
    assert!(told.0.to_string().len() < 10_000);
}

#[test]
fn a_deep_handle_is_refused() {
    Lair::with_programs().order(json!({"do": "process.stop", "handle": nested()})).is("invalid-input");
}

/// A tree whose attacker, as its discoverer, lists a card with that text as its model.
fn discovered(raw: &str) -> (Stage, Value) {
    let stage = Stage::new(json!({}), "discovery");
    let cards = json!({"cards": [{"name": "m2", "tags": ["t"], "source": "x", "raw": raw}]});
    stage.ground.write("tree/hostile.json", &cards.to_string());
    stage.ground.user(&format!("schema = 1\n{}", stage.granted(&["files.read"], "scope.path = [\"$tree/**\"]")));
    (stage, cards)
}

#[test]
fn a_deep_card_is_refused_in_a_sentence() {
    let (stage, _) = discovered(&nested());
    let tree = stage.ground.path("tree").display().to_string();
    let answer = stage.call(&["discover", "--model-dir", &tree]);
    assert!(
        answer.code == Some(1) || answer.code == Some(3),
        "{:?} {}",
        answer.code,
        &answer.stderr[..answer.stderr.len().min(500)]
    );
    assert!(answer.stderr.contains("hostile") && answer.stderr.len() < 5_000, "{}", answer.stderr.len());
}

#[test]
fn a_card_that_is_no_card_is_refused_in_a_sentence() {
    for raw in ["", "[]", "null", "{\"name\":", "\"x\"", "1e999"] {
        let (stage, _) = discovered(raw);
        let tree = stage.ground.path("tree").display().to_string();
        let answer = stage.call(&["discover", "--model-dir", &tree]);
        assert!(answer.code != Some(0) && answer.code.is_some(), "{raw}: {answer:#?}");
        assert!(answer.stderr.contains("hostile"), "{answer:#?}");
    }
}

#[test]
fn a_huge_file_of_connections_is_not_read_whole() {
    let lair = Lair::new();
    // Four gigabytes without a block on the disk, and a plugin without any leave.
    let file = std::fs::File::create(lair.root().join("outside/huge")).unwrap();
    file.set_len(4 << 30).unwrap();
    let began = memory();
    let told = lair.order(json!({"do": "kube.list-owned", "kubeconfig": lair.at("outside/huge"), "namespace": "team"}));
    told.denied();
    assert!(memory() < began + (1 << 20), "the most that this process ever had grew by a gigabyte");
}

/// The most memory that this process has had, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Dockerfiles are read by the kernel, before anything is allowed of what they name.
#[test]
fn a_dockerfile_that_is_made_to_exhaust_its_reader_does_not() {
    let lair = Lair::new().grant(&["docker.build-image"], "").set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    let mut doubling = String::from("ARG A0=aaaaaaaaaaaaaaaa\n");
    (0..200).for_each(|at| doubling += &format!("ARG A{}=$A{at}$A{at}\n", at + 1));
    let build = |text: &str| {
        let file = lair.write("tree/Dockerfile", text);
        lair.order(
            json!({"do": "docker.build-image", "directory": lair.at("tree"), "dockerfile": file, "tags": ["x:1"]}),
        )
    };
    build(&format!("FROM a\n{}COPY a b\n", "ONBUILD ".repeat(30_000))).is("unavailable");
    build(&(doubling + "FROM $A200\n")).is("unavailable");
    build(&format!("FROM a\nRUN {}\n{}", "<<E ".repeat(30_000), "E\n".repeat(30_000))).is("unavailable");
    let images: String = (0..2_000).map(|at| format!("FROM a{at}\n")).collect();
    build(&images).is("invalid-input").says("more than 1000 images");
    build(&"# much\n".repeat(100_000)).says("longer than 262144 bytes");
}
