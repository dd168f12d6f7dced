//! Accelerators in containers, on a pretended host: `MADDOCK_FAKE_ROCM` names a ROCm root whose tools answer for at least two
//! devices of one architecture, and the device nodes are there. Nothing computes.

use std::path::Path;

use serde_json::{Value, json};

use crate::scene::{Scene, needed};

/// Leaves what there is of devices and variables.
const TELL: &str = "ls /dev/dri 2> /dev/null > /shared/render\nls /dev/kfd 2> /dev/null > /shared/kfd\nenv > /shared/env\necho 'performance: 1 u'\n";

/// A scene with the pretended root as its context; none where there is none.
fn scene(n_gpus: &str) -> Option<(Scene, Value)> {
    let root = needed("MADDOCK_FAKE_ROCM")?;
    if !Path::new("/dev/kfd").exists() {
        eprintln!("skipped: the pretended host has no `/dev/kfd` (it is made as root)");
        return None;
    }
    let mut scene = Scene::new()?;
    scene.model("gpu", TELL, &json!({"n_gpus": n_gpus}));
    Some((scene, json!({"MAD_ROCM_PATH": root})))
}

/// A context with more in it.
fn and(context: &Value, more: &Value) -> Value {
    let mut context = context.clone();
    context.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    context
}

fn variable(scene: &Scene, name: &str) -> Option<String> {
    scene.left("env").lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// The render nodes that the machine has for the pretended devices, in order.
fn nodes() -> Vec<String> {
    let listed = std::fs::read_dir("/dev/dri").unwrap();
    let mut names: Vec<String> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("renderD"));
    names.sort();
    names
}

fn seen(scene: &Scene) -> Vec<String> {
    scene.left("render").lines().map(str::to_owned).collect()
}

#[test]
fn a_model_for_one_device_sees_that_one_and_what_the_machine_is() {
    let Some((scene, context)) = scene("1") else { return };
    scene.run(&context, &[]).with(0);
    assert_eq!(seen(&scene), nodes()[..1]);
    assert_eq!(scene.left("kfd"), "/dev/kfd\n");
    let system = nodes().len().to_string();
    for (name, value) in [
        ("MAD_GPU_VENDOR", "AMD"),
        ("MAD_SYSTEM_NGPUS", system.as_str()),
        ("MAD_RUNTIME_NGPUS", "1"),
        ("MAD_MULTI_NODE_RUNNER", "torchrun --standalone --nproc_per_node=1"),
    ] {
        assert_eq!(variable(&scene, name).as_deref(), Some(value), "{name}");
    }
    let architecture = variable(&scene, "MAD_SYSTEM_GPU_ARCHITECTURE").unwrap();
    assert!(architecture.starts_with("gfx"), "{architecture}");
    for name in ["MAD_SYSTEM_HIP_VERSION", "MAD_SYSTEM_GPU_PRODUCT_NAME", "ROCM_PATH"] {
        assert!(variable(&scene, name).is_some_and(|value| !value.is_empty()), "{name}");
    }
    assert_ne!(variable(&scene, "ROCM_PATH"), needed("MADDOCK_FAKE_ROCM"), "the host's root is nothing to a container");
    let row = scene.rows().remove(0);
    assert_eq!((row["n_gpus"].as_str(), row["gpus_per_node"].as_str()), ("1", "1"));
    assert_eq!(row["gpu_architecture"], architecture);
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn a_model_for_all_devices_sees_all() {
    let Some((scene, context)) = scene("-1") else { return };
    scene.run(&context, &[]).with(0);
    assert_eq!(seen(&scene), nodes());
    assert_eq!(variable(&scene, "MAD_RUNTIME_NGPUS"), Some(nodes().len().to_string()));
    assert_eq!(scene.rows()[0]["n_gpus"], nodes().len().to_string());
}

#[test]
fn a_model_sees_only_devices_that_the_context_allows() {
    let Some((scene, context)) = scene("-1") else { return };
    scene.run(&and(&context, &json!({"docker_gpus": "1"})), &[]).with(0);
    assert_eq!(seen(&scene), nodes()[1..2]);
    assert_eq!(variable(&scene, "MAD_RUNTIME_NGPUS").as_deref(), Some("1"));
    assert_eq!(variable(&scene, "MAD_SYSTEM_NGPUS"), Some(nodes().len().to_string()));
}

#[test]
fn jobs_at_once_never_share_a_device() {
    let Some((mut scene, context)) = scene("1") else { return };
    let script = "ls /dev/dri > /shared/$MAD_MODEL_NAME\nfor _ in $(seq 600); do [ \"$(ls /shared | wc -l)\" -ge 2 ] && break; sleep 0.05; done\n[ \"$(ls /shared | wc -l)\" -ge 2 ] || exit 5\necho 'performance: 1 u'\n";
    let [one, other] =
        ["one", "other"].map(|part| scene.model(part, script, &json!({"n_gpus": "1", "tags": ["pair"]})));
    let context = scene.context(&context);
    scene.maddock(&["run", "--tags", "pair", "--jobs", "2", "-c", &context]).with(0);
    assert_ne!(scene.left(&one), scene.left(&other));
}

#[test]
fn more_devices_than_there_are_fail_the_setup() {
    let Some((scene, context)) = scene("99") else { return };
    scene.run(&context, &[]).with(3).says("Too many gpus requested");
    assert_eq!(scene.left("env"), "", "nothing ran");
    let row = scene.rows().remove(0);
    assert_eq!((row["status"].as_str(), row["launcher"].as_str()), ("FAILURE", ""));
    scene.run(&and(&context, &json!({"n_gpus": 2, "docker_gpus": "0"})), &[]).with(3).says("Too many gpus requested");
}

#[test]
fn without_accelerators_the_same_model_runs_on_the_processor() {
    if Path::new("/opt/rocm").exists() || Path::new("/usr/bin/nvidia-smi").exists() {
        eprintln!("skipped: this machine may have accelerators");
        return;
    }
    let Some(mut scene) = Scene::new() else { return };
    scene.model("gpu", TELL, &json!({"n_gpus": "-1"}));
    scene.run(&json!({}), &[]).with(0);
    assert_eq!((seen(&scene), scene.left("kfd")), (Vec::new(), String::new()));
    assert_eq!(variable(&scene, "MAD_RUNTIME_NGPUS").as_deref(), Some("0"));
    assert_eq!(scene.rows()[0]["gpu_architecture"], "");
}

#[test]
fn a_model_that_does_not_support_the_architecture_is_skipped_with_a_row() {
    let Some((mut scene, context)) = scene("1") else { return };
    scene.run(&context, &[]).with(0);
    let architecture = variable(&scene, "MAD_SYSTEM_GPU_ARCHITECTURE").unwrap();
    std::fs::remove_file(scene.shared.join("env")).unwrap();
    let card = json!({"n_gpus": "1", "skip_gpu_arch": format!("gfx000, {architecture}"), "tags": ["picky"]});
    let model = scene.model("picky", TELL, &card);
    let text = scene.context(&context);
    let said = format!("Skipping model {model} as it is not supported on {architecture} architecture.");
    scene.maddock(&["run", "--tags", "picky", "-c", &text]).with(0).says(&said);
    assert_eq!(scene.left("env"), "", "it did not run");
    let row = scene.rows().pop().unwrap();
    assert_eq!((&row["model"], row["status"].as_str(), row["performance"].as_str()), (&model, "SKIPPED", ""));
    scene.maddock(&["run", "--tags", "picky", "-c", &text, "--disable-skip-gpu-arch"]).with(0);
    assert_eq!(scene.rows().pop().unwrap()["status"], "SUCCESS");
}

#[test]
fn an_image_for_another_vendor_is_not_run() {
    let Some((mut scene, context)) = scene("1") else { return };
    let model = scene.model("green", TELL, &json!({"n_gpus": "1", "tags": ["green"]}));
    scene.dockerfile("green.ubuntu.nvidia.Dockerfile", "# CONTEXT {'gpu_vendor': 'NVIDIA'}", "");
    scene.maddock(&["build", "--tags", "green", "-c", "{'gpu_vendor': 'NVIDIA'}"]).with(0);
    let text = scene.context(&context);
    scene.maddock(&["run", "-m", "build_manifest.json", "-c", &text]).with(3).says("NVIDIA").says(&model);
    assert_eq!(scene.left("env"), "");
}

#[test]
fn a_run_builds_for_the_machine_that_it_is_on() {
    let Some((mut scene, context)) = scene("1") else { return };
    let model = scene.model("here", TELL, &json!({"n_gpus": "1", "tags": ["here"]}));
    scene.dockerfile(
        "here.ubuntu.amd.Dockerfile",
        "# CONTEXT {'gpu_vendor': 'AMD'}",
        "ARG MAD_SYSTEM_GPU_ARCHITECTURE\nLABEL arch=$MAD_SYSTEM_GPU_ARCHITECTURE",
    );
    let mut context = and(&context, &json!({"docker_mounts": {"/shared": scene.shared}}));
    context.as_object_mut().unwrap().remove("MAD_CONTAINER_IMAGE");
    scene.maddock(&["run", "--tags", "here", "-c", &context.to_string()]).with(0);
    let image = crate::engine::inspect("image", &format!("ci-{model}_here.ubuntu.amd")).unwrap();
    assert_eq!(image["Config"]["Labels"]["arch"], json!(variable(&scene, "MAD_SYSTEM_GPU_ARCHITECTURE")));
}
