//! What a job becomes, by profile and vendor.

use maddock_sdk::target::{JobPaths, NodeRole, Script, Topology};
use maddock_sdk::types::{DeviceRequest, EnvVar, ErrorKind};

use super::*;

pub fn job() -> Job {
    Job {
        run_id: "20250101-120000-1a2b".into(),
        id: "dummy".into(),
        model: "dummy".into(),
        card: "{}".into(),
        image: Some(Image {
            reference: "ci-dummy_dummy.ubuntu.amd".into(),
            digest: None,
            registry_reference: None,
            local: false,
        }),
        topology: Topology {
            nodes: 1,
            processes_per_node: 1,
            gpus_per_node: 0,
            launcher: "none".into(),
            main_port: 1,
            roles: Vec::new(),
        },
        script: Script {
            interpreter: vec!["bash".into()],
            file: "run.sh".into(),
            arguments: Vec::new(),
            encapsulate: String::new(),
            before: Vec::new(),
            after: Vec::new(),
            clone_url: None,
        },
        env: vec![EnvVar { name: "MAD_MODEL_NAME".into(), value: EnvValue::Text("dummy".into()) }],
        accelerators: None,
        time_limit: None,
        paths: JobPaths {
            directory: "/r/dummy".into(),
            workspace: "/r/dummy/workspace".into(),
            work_directory: "run_directory".into(),
            tree: "/mad".into(),
        },
        profile: String::new(),
        options: JobOptions::empty(),
        collect: Vec::new(),
        config: "{}".into(),
        extra: Vec::new(),
    }
}

fn around() -> Surroundings {
    Surroundings { script_directories: vec!["dummy".into()], fuse: true }
}

fn spec(job: &Job) -> ContainerSpec {
    prepare(job, &around()).unwrap().spec
}

fn amd() -> Attachment {
    Attachment {
        vendor: "AMD".into(),
        devices: vec!["/dev/kfd".into(), "/dev/dri/renderD128".into()],
        requests: Vec::new(),
        groups: vec!["video".into()],
        env: vec![Entry { name: "MAD_RUNTIME_NGPUS".into(), value: "1".into() }],
        capabilities: Vec::new(),
        resource_name: "amd.com/gpu".into(),
        count: 1,
        extra: Vec::new(),
    }
}

fn nvidia() -> Attachment {
    Attachment {
        vendor: "NVIDIA".into(),
        devices: Vec::new(),
        requests: vec![DeviceRequest {
            driver: "nvidia".into(),
            ids: vec!["0".into()],
            capabilities: vec!["gpu".into()],
        }],
        groups: Vec::new(),
        capabilities: vec!["SYS_NICE".into()],
        ..amd()
    }
}

#[test]
fn a_job_without_accelerators_gets_an_ordinary_container() {
    let spec = spec(&job());
    assert_eq!((spec.user.as_str(), spec.network.as_str(), spec.ipc.as_str()), ("root", "bridge", "private"));
    assert!(spec.add_capabilities.is_empty() && spec.security_options.is_empty() && spec.devices.is_empty());
    assert_eq!(spec.entrypoint, ["bash", "/myworkspace/.maddock/entry.sh"]);
    let mounts: Vec<_> = spec.mounts.iter().map(|m| (m.source.as_str(), m.destination.as_str(), m.read_only)).collect();
    let expected =
        [("/r/dummy/workspace", "/myworkspace", false), ("/mad/scripts/dummy", "/myworkspace/scripts/dummy", true)];
    assert_eq!(mounts, expected);
}

#[test]
fn a_vendor_of_none_is_no_accelerator() {
    let mut job = job();
    job.accelerators = Some(Attachment { vendor: "NONE".into(), devices: Vec::new(), groups: Vec::new(), ..amd() });
    assert_eq!(spec(&job).network, "bridge");
}

#[test]
fn the_compatible_profile_has_upstreams_options_for_amd() {
    let mut job = job();
    job.accelerators = Some(amd());
    let spec = spec(&job);
    assert_eq!((spec.user.as_str(), spec.network.as_str(), spec.ipc.as_str()), ("root", "host", "host"));
    assert_eq!(spec.groups, ["video"]);
    assert_eq!(spec.add_capabilities, ["SYS_PTRACE", "SYS_ADMIN"]);
    assert_eq!(spec.devices, ["/dev/fuse", "/dev/kfd", "/dev/dri/renderD128"]);
    assert_eq!(spec.security_options, ["seccomp=unconfined", "apparmor=unconfined"]);
    assert!(spec.env.iter().any(|variable| variable.name == "MAD_RUNTIME_NGPUS"));
}

#[test]
fn the_compatible_profile_has_upstreams_options_for_nvidia() {
    let mut job = job();
    job.accelerators = Some(nvidia());
    let spec = spec(&job);
    assert_eq!(spec.add_capabilities, ["SYS_PTRACE", "SYS_ADMIN", "SYS_NICE"]);
    assert_eq!((spec.groups.len(), spec.devices), (0, vec!["/dev/fuse".to_owned()]));
    assert_eq!(spec.device_requests, nvidia().requests);
}

#[test]
fn a_machine_without_fuse_gives_none() {
    let mut job = job();
    job.profile = "compatible".into();
    let work = prepare(&job, &Surroundings::default()).unwrap();
    assert!(work.spec.devices.is_empty());
    assert_eq!(work.warnings.len(), 1);
}

#[test]
fn the_restricted_profile_takes_everything_away_but_the_devices() {
    let mut job = job();
    job.profile = "restricted".into();
    job.accelerators = Some(nvidia());
    job.extra = vec![Entry { name: "user".into(), value: "1000:1000".into() }];
    let work = prepare(&job, &around()).unwrap();
    let spec = work.spec;
    assert_eq!((spec.network.as_str(), spec.ipc.as_str(), spec.user.as_str()), ("bridge", "private", "1000:1000"));
    assert_eq!(spec.add_capabilities, Vec::<String>::new());
    assert_eq!(spec.drop_capabilities, ["ALL"]);
    assert_eq!(spec.security_options, ["no-new-privileges"]);
    assert_eq!(spec.device_requests, nvidia().requests);
    assert_eq!(work.warnings.len(), 1);
}

#[test]
fn a_profile_that_is_not_known_is_refused() {
    let mut job = job();
    job.profile = "wide".into();
    assert!(prepare(&job, &around()).unwrap_err().message.contains("`wide`"));
}

#[test]
fn options_of_the_card_and_then_of_the_configuration_win() {
    let mut job = job();
    job.card =
        r#"{"additional_docker_run_options": "--shm-size=1g -e A=card -v /a:/data --cap-add=CAP_sys_nice"}"#.into();
    job.config =
        r#"{"additional_docker_run_options": "-e A=config -v /b:/data:ro --pid host", "docker_cpus": "0 - 3, 8"}"#
            .into();
    job.env.push(EnvVar { name: "A".into(), value: EnvValue::Text("job".into()) });
    let spec = spec(&job);
    let of_a: Vec<_> = spec.env.iter().filter(|variable| variable.name == "A").collect();
    assert_eq!(of_a, [&EnvVar { name: "A".into(), value: EnvValue::Text("config".into()) }]);
    let data: Vec<_> = spec.mounts.iter().filter(|mount| mount.destination == "/data").collect();
    assert_eq!(data, [&Mount { source: "/b".into(), destination: "/data".into(), read_only: true }]);
    assert_eq!(spec.shared_memory, Some(1 << 30));
    assert_eq!(spec.cpuset, "0-3,8");
    assert_eq!(spec.add_capabilities, ["SYS_NICE"]);
    assert_eq!(spec.extra, [Entry { name: "pid".into(), value: "host".into() }]);
}

#[test]
fn mounts_of_the_user_are_container_to_host() {
    let mut job = job();
    job.config = r#"{"docker_mounts": {"/data/": "/mnt/data/"}}"#.into();
    job.extra = vec![Entry { name: "mount".into(), value: "/srv/set:/data_dlm_0:ro".into() }];
    let mounts = spec(&job).mounts;
    assert!(mounts.contains(&Mount { source: "/mnt/data".into(), destination: "/data".into(), read_only: false }));
    assert!(mounts.contains(&Mount { source: "/srv/set".into(), destination: "/data_dlm_0".into(), read_only: true }));
    for wrong in
        [r#"{"docker_mounts": {"/data": "data"}}"#, r#"{"docker_mounts": {"/": "/mnt"}}"#, r#"{"docker_mounts": []}"#]
    {
        job.config = wrong.into();
        assert!(prepare(&job, &around()).is_err(), "{wrong}");
    }
}

#[test]
fn variables_of_the_launcher_beat_the_jobs_and_those_the_accelerators() {
    let mut job = job();
    job.accelerators = Some(amd());
    let entry = |name: &str, value: &str| Entry { name: name.into(), value: value.into() };
    let env = vec![entry("RUNNER", "launcher")];
    job.topology.roles = vec![NodeRole { node: 0, name: "worker".into(), env, command: None }];
    let text = |name: &str, value: &str| EnvVar { name: name.into(), value: EnvValue::Text(value.into()) };
    job.env = vec![text("RUNNER", "job"), text("MAD_RUNTIME_NGPUS", "8")];
    assert_eq!(spec(&job).env, [text("MAD_RUNTIME_NGPUS", "8"), text("RUNNER", "launcher")]);
}

#[test]
fn a_script_that_uses_a_scheduler_is_told_that_there_is_none() {
    let mut job = job();
    let role = NodeRole { node: 0, name: "batch".into(), env: Vec::new(), command: None };
    job.topology.roles = vec![role];
    let work = prepare(&job, &around()).unwrap();
    assert!(work.warnings.iter().any(|warning| warning.contains("--target slurm")), "{:?}", work.warnings);
}

#[test]
fn a_plan_tells_all_that_is_asked_for_and_no_secret() {
    let mut job = job();
    job.accelerators = Some(amd());
    job.env.push(EnvVar { name: "KEY".into(), value: EnvValue::Secret("env/MAD_SECRETS_KEY".into()) });
    let plan = prepare(&job, &around()).unwrap().plan(&job);
    let calls: Vec<&str> = plan.steps.iter().map(|step| step.call.as_str()).collect();
    assert_eq!(calls, ["docker.inspect-image", "files.write", "docker.create-container", "docker.start-container"]);
    let scope = |name: &str| -> Vec<&str> {
        plan.steps[2].scope.iter().filter(|entry| entry.name == name).map(|entry| entry.value.as_str()).collect()
    };
    assert_eq!(scope("network"), ["host"]);
    assert_eq!(scope("device"), ["/dev/fuse", "/dev/kfd", "/dev/dri/renderD128"]);
    assert_eq!(scope("secret"), ["env/MAD_SECRETS_KEY"]);
    let container = &plan.artefacts[1].content;
    assert!(container.contains("\"KEY=<secret env/MAD_SECRETS_KEY>\""), "{container}");
    assert!(plan.steps[2].summary.contains("compatible profile"));
}

#[test]
fn several_nodes_and_no_image_are_refused() {
    let mut several = job();
    several.topology.nodes = 2;
    assert_eq!(prepare(&several, &around()).unwrap_err().kind, ErrorKind::Unsupported);
    let mut none = job();
    none.image = None;
    assert_eq!(prepare(&none, &around()).unwrap_err().kind, ErrorKind::InvalidInput);
}

#[test]
fn a_job_kept_alive_has_upstreams_name_to_try() {
    let mut job = job();
    job.options = JobOptions::KEEP_ALIVE;
    let work = prepare(&job, &around()).unwrap();
    assert_eq!(work.plain_name.as_deref(), Some("container_ci-dummy_dummy.ubuntu.amd"));
}

#[test]
fn models_find_the_vendor_s_libraries_where_user_or_image_say() {
    let located = |vendor: &str, user: &[(&str, &str)], image: &[&str]| {
        let mut job = job();
        let text = |value: &str| EnvValue::Text(value.to_owned());
        job.env.extend(user.iter().map(|(name, value)| EnvVar { name: (*name).to_owned(), value: text(value) }));
        job.accelerators = (!vendor.is_empty()).then(|| Attachment { vendor: vendor.to_owned(), ..amd() });
        let mut work = prepare(&job, &around()).unwrap();
        work.locate_runtime(&job, &image.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>());
        let mut found = work.spec.env.into_iter().filter(|variable| variable.name == "ROCM_PATH");
        match (found.next().map(|variable| variable.value), found.next()) {
            (Some(EnvValue::Text(value)), None) => value,
            (None, None) => "none".to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(located("AMD", &[], &["PATH=/bin"]), "/opt/rocm");
    assert_eq!(located("AMD", &[], &["ROCM_HOME=/a", "ROCM_PATH=/b"]), "/b");
    assert_eq!(located("AMD", &[], &["ROCM_HOME=/a"]), "/a");
    assert_eq!(located("AMD", &[("MAD_ROCM_PATH", "/m")], &["ROCM_PATH=/b"]), "/m");
    assert_eq!(located("AMD", &[("ROCM_PATH", "/u"), ("MAD_ROCM_PATH", "/m")], &["ROCM_PATH=/b"]), "/u");
    assert_eq!(located("NVIDIA", &[], &[]), "none");
    assert_eq!(located("", &[], &[]), "none");
}

#[test]
fn the_host_is_told_of_a_container_that_is_to_be_kept() {
    let mut job = job();
    assert!(spec(&job).labels.is_empty());
    job.options = JobOptions::KEEP_ALIVE;
    assert_eq!(spec(&job).labels, [Entry { name: "maddock.keep-alive".into(), value: "true".into() }]);
}
