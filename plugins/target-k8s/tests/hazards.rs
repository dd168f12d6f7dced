//! Hazards of `docs/targets/hazards.md` that show in the objects of a job.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use common::{job, surroundings, variable};
use serde_json::{Value, json};
use target_k8s::bundle::File;
use target_k8s::plan::prepare;

#[test]
fn no_text_of_a_script_or_a_variable_makes_an_object_unreadable() {
    for text in [
        "say \"hi\" and 'ho'",
        "    indented\nfirst: [line\n",
        "\ttab first\n- not: a list\n",
        "bell \u{7} escape \u{1b}[31m delete \u{7f} next line \u{85} separator \u{2028}",
        "# {{ template }} ${x} %s\n---\n...\n",
        "yes",
        "0x10",
        "~",
    ] {
        let mut job = job(2, json!({}));
        job.env.push(variable("TEXT", text));
        let mut here = surroundings();
        here.files.push(File { path: "w/run_directory/odd.sh".into(), bytes: text.into(), mode: 0o755 });
        let work = prepare(&job, here).unwrap();
        let shown = work.plan().unwrap().artefacts;
        assert_eq!(shown.len(), work.objects.len());
        for (artefact, object) in shown.iter().zip(&work.objects) {
            let read: Value =
                serde_yaml_ng::from_str(&artefact.content).unwrap_or_else(|why| panic!("{text:?}: {why}"));
            assert_eq!(&read, object, "{text:?}");
        }
        let maps = work.objects.iter().filter_map(|object| object["data"].as_object());
        assert!(maps.flat_map(|map| map.values()).any(|value| value == text), "{text:?} is brought along as it is");
        let env = &work.objects.last().unwrap()["spec"]["template"]["spec"]["containers"][0]["env"];
        let found = env.as_array().unwrap().iter().find(|entry| entry["name"] == "TEXT").unwrap();
        // The cluster would expand `$(…)`: to it, two of the sign mean one.
        assert_eq!(found["value"], text.replace('$', "$$"), "{text:?}");
    }
}
