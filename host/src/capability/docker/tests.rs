//! With a real engine and registry: `MADDOCK_TEST_IMAGE_SMALL` names a busybox that the engine can pull, and
//! `MADDOCK_TEST_REGISTRY` a registry that takes images. Every test removes what it made and checks that nothing is left.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, RemoveImageOptions,
};
use maddock_bindings::api::docker::{
    Build, BuildEvent, BuildSpec, ContainerEvent, ContainerSpec, Follow, Host, HostBuild, HostFollow, ImageInfo, Mount,
};
use maddock_bindings::api::types::{EnvValue, EnvVar, ErrorKind, OutputStream};
use tokio::sync::mpsc;
use wasmtime::component::Resource;

use super::Connection;
use super::spec::tests::{entry, plain};
use crate::capability::ApiError;
use crate::capability::events::PluginEvent;
use crate::capability::gate::Identity;
use crate::capability::policy::{Policy, Roots};
use crate::capability::secrets::SecretStore;
use crate::capability::tape::Tape;
use crate::capability::trace::Trace;
use crate::plugin::{Ceilings, Environment, RunContext, State};

const PLUGIN: &str = "tester";
const SECRET: &str = "s3cr3t-never-shown";

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        eprintln!("skipped: this test needs a container engine ({name} is not set)");
    }
    value
}

/// An instance with a run of its own.
struct Bench {
    state: State,
    events: mpsc::Receiver<PluginEvent>,
    directory: tempfile::TempDir,
    run: String,
}

impl Bench {
    fn new() -> Self {
        Self::with_environment(Environment::of_process())
    }

    /// A script as a file that containers find at `/script`.
    fn script(&self, name: &str, text: &str) -> Mount {
        let file = self.directory.path().join(format!("{name}.sh"));
        std::fs::write(&file, text).unwrap();
        Mount { source: file.display().to_string(), destination: "/script".to_owned(), read_only: true }
    }

    /// A container that runs a script.
    fn scripted(&self, name: &str, image: &str, text: &str) -> ContainerSpec {
        ContainerSpec { mounts: vec![self.script(name, text)], ..plain(&self.name(name), image, &["sh", "/script"]) }
    }

    fn with_environment(environment: Environment) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let run = format!(
            "test-{}-{}",
            std::process::id(),
            root.file_name().unwrap().to_str().unwrap().trim_start_matches('.')
        );
        std::fs::create_dir(root.join("run")).unwrap();
        let roots = Roots { run: root.join("run"), ..Roots::default() };
        let mut secrets = SecretStore::default();
        secrets.add("credential/x/token", SECRET);
        let context = RunContext {
            run_id: run.clone(),
            roots: roots.clone(),
            environment,
            secrets,
            docker: Connection::default(),
            queue: crate::capability::Queue::default(),
            clusters: crate::capability::Clusters::default(),
            policy: Arc::new(Policy::permissive(PLUGIN, "docker", roots)),
            trace: Trace::to_file(&root.join("trace.jsonl"), &run).unwrap(),
            lifelines: Default::default(),
        };
        let identity =
            Identity { name: PLUGIN.to_owned(), digest: "sha256:0".to_owned(), built_in: true, signer: None };
        let (sender, events) = mpsc::channel(256);
        let state = State::new(
            Arc::new(identity),
            Arc::new(context),
            Some("job-1".to_owned()),
            sender,
            Ceilings::default(),
            Tape::Off,
        );
        Self { state, events, directory, run }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    fn trace(&self) -> String {
        std::fs::read_to_string(self.root().join("trace.jsonl")).unwrap()
    }

    /// A name that no other test uses.
    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.run).to_lowercase()
    }

    async fn started(&mut self, spec: ContainerSpec) -> String {
        let id = self.state.create_container(spec).await.unwrap().unwrap();
        self.state.start_container(id.clone()).await.unwrap().unwrap();
        id
    }

    async fn followed(&mut self, id: &str) -> (String, String, Result<i32, ApiError>) {
        let follow = self.state.follow_container(id.to_owned()).await.unwrap().unwrap();
        let end = self.drained(&follow).await;
        HostFollow::drop(&mut self.state, follow).await.unwrap();
        end
    }

    async fn drained(&mut self, follow: &Resource<Follow>) -> (String, String, Result<i32, ApiError>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let end = loop {
            match HostFollow::next_event(&mut self.state, Resource::new_borrow(follow.rep()), 120_000).await.unwrap() {
                Ok(ContainerEvent::Output((OutputStream::Stdout, bytes))) => out.extend(bytes),
                Ok(ContainerEvent::Output((OutputStream::Stderr, bytes))) => err.extend(bytes),
                Ok(ContainerEvent::Exited(code)) => break Ok(code),
                Ok(ContainerEvent::Timeout) => panic!("nothing for two minutes"),
                Err(error) => break Err(error),
            }
        };
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), end)
    }

    async fn built(&mut self, spec: BuildSpec) -> (String, Result<ImageInfo, ApiError>) {
        let build = self.state.build_image(spec).await.unwrap().unwrap();
        let mut output = Vec::new();
        let end = loop {
            match HostBuild::next_event(&mut self.state, Resource::<Build>::new_borrow(build.rep()), 300_000)
                .await
                .unwrap()
            {
                Ok(BuildEvent::Output(bytes)) => output.extend(bytes),
                Ok(BuildEvent::Finished(image)) => break Ok(image),
                Ok(BuildEvent::Timeout) => panic!("nothing for five minutes"),
                Err(error) => break Err(error),
            }
        };
        HostBuild::drop(&mut self.state, build).await.unwrap();
        (String::from_utf8(output).unwrap(), end)
    }

    /// Removes every container of this run, and the images named; checks that nothing is left.
    async fn leave(&mut self, images: &[&str]) {
        for container in self.state.find_containers(vec![]).await.unwrap().unwrap() {
            self.state.remove_container(container.id).await.unwrap().unwrap();
        }
        let engine = bollard::Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap();
        for image in images {
            engine.remove_image(image, None::<RemoveImageOptions>, None).await.unwrap();
        }
        let filters = HashMap::from([("label".to_owned(), vec![format!("maddock.run={}", self.run)])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        assert!(engine.list_containers(Some(options)).await.unwrap().is_empty());
    }

    fn build_spec(&self, directory: &Path, dockerfile: &Path, tag: &str) -> BuildSpec {
        BuildSpec {
            directory: directory.display().to_string(),
            dockerfile: dockerfile.display().to_string(),
            tags: vec![tag.to_owned()],
            arguments: vec![],
            contexts: vec![],
            no_cache: true,
            pull: false,
            network: String::new(),
            labels: vec![],
            secrets: vec![],
            extra: vec![],
        }
    }
}

/// A test that fails leaves nothing behind either.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let label = format!("maddock.run={}", self.run);
        let sweep = async move {
            let engine = bollard::Docker::connect_with_defaults().ok()?.negotiate_version().await.ok()?;
            let filters = HashMap::from([("label".to_owned(), vec![label])]);
            let options =
                ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
            let force = RemoveContainerOptions { v: true, force: true, link: false };
            for id in engine.list_containers(Some(options)).await.ok()?.into_iter().filter_map(|container| container.id)
            {
                engine.remove_container(&id, Some(force.clone())).await.ok()?;
            }
            Some(())
        };
        // The test's own runtime is busy unwinding.
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = std::thread::spawn(move || runtime().block_on(sweep)).join();
    }
}

fn text(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: EnvValue::Text(value.to_owned()) }
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn all_output_of_both_streams_comes_before_the_exit_code() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo trouble >&2; exit 7";
    let id = bench.started(bench.scripted("out", &image, script)).await;
    let (out, err, end) = bench.followed(&id).await;
    assert_eq!(end.unwrap(), 7);
    let expected: String = (0..20000).map(|i| format!("line {i}\n")).collect();
    assert!(out == expected, "{} bytes instead of {}", out.len(), expected.len());
    assert_eq!(err, "trouble\n");
    let info = bench.state.inspect_container(id).await.unwrap().unwrap();
    assert_eq!((info.state.as_str(), info.exit_code), ("exited", Some(7)));
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_container_may_be_followed_before_it_starts() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let id =
        bench.state.create_container(plain(&bench.name("early"), &image, &["echo", "hello"])).await.unwrap().unwrap();
    let follow = bench.state.follow_container(id.clone()).await.unwrap().unwrap();
    let idle = HostFollow::next_event(&mut bench.state, Resource::new_borrow(follow.rep()), 1).await.unwrap().unwrap();
    assert!(matches!(idle, ContainerEvent::Timeout));
    bench.state.start_container(id).await.unwrap().unwrap();
    let (out, _, end) = bench.drained(&follow).await;
    assert_eq!((out.as_str(), end.unwrap()), ("hello\n", 0));
    HostFollow::drop(&mut bench.state, follow).await.unwrap();
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_terminal_s_output_is_one_stream_and_complete() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let spec =
        ContainerSpec { tty: true, ..bench.scripted("tty", &image, "echo out; echo err >&2; printf end; exit 3") };
    let id = bench.started(spec).await;
    let (out, err, end) = bench.followed(&id).await;
    assert_eq!((out.trim_end(), err.as_str(), end.unwrap()), ("out\r\nerr\r\nend", "", 3));
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_secret_reaches_the_container_and_no_line_of_the_trace() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let token = EnvVar { name: "TOKEN".to_owned(), value: EnvValue::Secret("credential/x/token".to_owned()) };
    // The container says whether it has it, not what it is.
    let check = format!("[ \"$TOKEN\" = {SECRET} ] && echo has it");
    let spec =
        ContainerSpec { env: vec![token, text("PLAIN", "visible-value")], ..bench.scripted("env", &image, &check) };
    let id = bench.started(spec).await;
    let (out, _, end) = bench.followed(&id).await;
    assert_eq!((out.as_str(), end.unwrap()), ("has it\n", 0));
    let trace = bench.trace();
    assert!(
        trace.contains("credential/x/token")
            && trace.contains("\"TOKEN\"")
            && trace.contains("docker.create-container")
    );
    assert!(!trace.contains(SECRET) && !trace.contains("visible-value"), "{trace}");
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_container_of_another_run_is_refused_and_stays() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let engine = bollard::Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap();
    for labels in [HashMap::new(), HashMap::from([("maddock.run".to_owned(), "another".to_owned())])] {
        let body =
            ContainerCreateBody { image: Some(image.clone()), labels: Some(labels), ..ContainerCreateBody::default() };
        let name = CreateContainerOptions { name: Some(bench.name("foreign")), ..CreateContainerOptions::default() };
        let id = engine.create_container(Some(name), body).await.unwrap().id;
        let state = &mut bench.state;
        let into = bench.directory.path().join("run/x").display().to_string();
        let refusals = [
            state.start_container(id.clone()).await.unwrap().unwrap_err(),
            state.inspect_container(id.clone()).await.unwrap().unwrap_err(),
            state.stop_container(id.clone(), 0).await.unwrap().unwrap_err(),
            state.remove_container(id.clone()).await.unwrap().unwrap_err(),
            state.follow_container(id.clone()).await.unwrap().unwrap_err(),
            state.copy_out(id.clone(), "/etc/passwd".to_owned(), into).await.unwrap().unwrap_err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal.kind, ErrorKind::Denied), "{refusal:?}");
        }
        assert!(engine.inspect_container(&id, None).await.is_ok());
        engine.remove_container(&id, None).await.unwrap();
    }
    bench.leave(&[]).await;
}

#[tokio::test]
async fn nothing_is_done_to_a_container_without_a_name() {
    if variable("MADDOCK_TEST_IMAGE_SMALL").is_none() {
        return;
    }
    let mut bench = Bench::new();
    for id in ["", ".", "../images/x", "a?force=1"] {
        let error = bench.state.remove_container(id.to_owned()).await.unwrap().unwrap_err();
        assert!(matches!(error.kind, ErrorKind::InvalidInput), "{id:?}");
    }
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_container_stopped_in_the_middle_ends_its_follower_after_what_it_wrote() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 1 & wait $!; done";
    let id = bench.started(bench.scripted("stop", &image, script)).await;
    let follow = bench.state.follow_container(id.clone()).await.unwrap().unwrap();
    let first =
        HostFollow::next_event(&mut bench.state, Resource::new_borrow(follow.rep()), 60_000).await.unwrap().unwrap();
    assert!(matches!(first, ContainerEvent::Output((OutputStream::Stdout, bytes)) if bytes == b"ready\n"));
    bench.state.stop_container(id.clone(), 30).await.unwrap().unwrap();
    let (out, _, end) = bench.drained(&follow).await;
    assert_eq!((out.as_str(), end.unwrap()), ("bye\n", 9));
    HostFollow::drop(&mut bench.state, follow).await.unwrap();
    // Stopping what has ended and removing what is gone are fine.
    bench.state.stop_container(id.clone(), 0).await.unwrap().unwrap();
    bench.state.remove_container(id.clone()).await.unwrap().unwrap();
    bench.state.remove_container(id.clone()).await.unwrap().unwrap();
    bench.state.stop_container(id, 0).await.unwrap().unwrap();
    bench.leave(&[]).await;
}

#[tokio::test]
async fn containers_of_the_run_are_found_by_their_labels() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    for (part, node) in [("a", "0"), ("b", "1")] {
        let spec = ContainerSpec { labels: vec![entry("node", node)], ..plain(&bench.name(part), &image, &["true"]) };
        bench.state.create_container(spec).await.unwrap().unwrap();
    }
    let found = bench.state.find_containers(vec![entry("node", "1")]).await.unwrap().unwrap();
    assert_eq!(found.iter().map(|container| container.name.clone()).collect::<Vec<_>>(), [bench.name("b")]);
    let label = |name: &str| found[0].labels.iter().find(|label| label.name == name).map(|label| label.value.clone());
    assert_eq!((label("maddock.job").as_deref(), label("maddock.plugin").as_deref()), (Some("job-1"), Some(PLUGIN)));
    let again = bench.state.create_container(plain(&bench.name("a"), &image, &[])).await.unwrap().unwrap_err();
    assert!(matches!(again.kind, ErrorKind::Conflict), "{again:?}");
    bench.leave(&[]).await;
}

#[tokio::test]
async fn an_image_that_is_not_there_is_said_to_be() {
    if variable("MADDOCK_TEST_IMAGE_SMALL").is_none() {
        return;
    }
    let mut bench = Bench::new();
    let error =
        bench.state.create_container(plain(&bench.name("none"), "no/such:image", &[])).await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::NotFound) && error.hint.unwrap().contains("pull or build"),
        "{}",
        error.message
    );
    let error = bench.state.inspect_image("no/such:image".to_owned()).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound));
    bench.leave(&[]).await;
}

#[tokio::test]
async fn mounts_and_limits_arrive_and_a_tree_is_copied_out_of_a_stopped_container() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let data = bench.root().join("data");
    write(&data.join("in"), "given");
    let script = "cat /data/in; touch /data/x 2>/dev/null || echo read-only; ulimit -n; pwd; mkdir -p d/e; echo kept > d/e/f; ln -s f d/e/l";
    let spec = ContainerSpec {
        mounts: vec![
            Mount { source: data.display().to_string(), destination: "/data".to_owned(), read_only: true },
            bench.script("mount", script),
        ],
        directory: "/tmp".to_owned(),
        ulimits: vec![entry("nofile", "77:99")],
        network: "none".to_owned(),
        shared_memory: Some(8 << 20),
        extra: vec![entry("tmpfs", "/scratch:size=1m"), entry("add-host", "here:127.0.0.1")],
        ..plain(&bench.name("mount"), &image, &["sh", "/script"])
    };
    let id = bench.started(spec).await;
    let (out, _, end) = bench.followed(&id).await;
    assert_eq!((out.as_str(), end.unwrap()), ("givenread-only\n77\n/tmp\n", 0));
    let into = bench.root().join("run/copied");
    bench.state.copy_out(id.clone(), "/tmp/d".to_owned(), into.display().to_string()).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(into.join("d/e/l")).unwrap(), "kept\n");
    let outside = bench.root().join("elsewhere").display().to_string();
    let error = bench.state.copy_out(id.clone(), "/tmp/d".to_owned(), outside).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Denied), "{error:?}");
    let into = into.display().to_string();
    let error = bench.state.copy_out(id.clone(), "/no/such".to_owned(), into.clone()).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound), "{error:?}");
    // /etc/mtab points to /proc: out of the destination.
    let error = bench.state.copy_out(id, "/etc/mtab".to_owned(), into).await.unwrap();
    assert!(error.is_ok() || matches!(error.unwrap_err().kind, ErrorKind::Denied | ErrorKind::NotFound));
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_build_streams_its_steps_and_honours_arguments_labels_and_every_tag() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let (context, dockerfile) = (bench.root().join("context"), bench.root().join("docker/x.Dockerfile"));
    write(&context.join("file"), "content");
    write(&context.join("ignored/big"), "big");
    write(&context.join(".dockerignore"), "ignored\n");
    write(
        &dockerfile,
        &format!(
            "FROM {image}\nARG WHAT=nothing\nCOPY . /got\nRUN echo \"building $WHAT\" && ls -R /got && test ! -e /got/ignored\nENV WHAT=$WHAT\n"
        ),
    );
    let (first, second) = (format!("{}:1", bench.name("built")), format!("{}:2", bench.name("built")));
    let spec = BuildSpec {
        tags: vec![first.clone(), second.clone()],
        arguments: vec![text("WHAT", "a 'hostile' \"value\" $(x)")],
        labels: vec![entry("made.by", "test")],
        network: "host".to_owned(),
        pull: true,
        contexts: vec![entry("tools", &context.display().to_string())],
        ..bench.build_spec(&context, &dockerfile, &first)
    };
    let (output, end) = bench.built(spec).await;
    let built = end.unwrap_or_else(|error| panic!("{}\n{output}", error.message));
    assert!(
        output.contains("building a 'hostile' \"value\" $(x)") && output.contains("#1 [internal] load"),
        "{output}"
    );
    assert!(built.env.iter().any(|line| line == "WHAT=a 'hostile' \"value\" $(x)"), "{:?}", built.env);
    assert!(built.labels.iter().any(|label| label.name == "made.by" && label.value == "test"));
    let other = bench.state.inspect_image(second.clone()).await.unwrap().unwrap();
    assert_eq!(other.id, built.id);
    let told: Vec<PluginEvent> = std::iter::from_fn(|| bench.events.try_recv().ok()).collect();
    assert!(
        told.iter().any(|event| matches!(event, PluginEvent::Log { message, .. } if message.contains("`tools`"))),
        "{told:?}"
    );
    bench.leave(&[&first, &second]).await;
}

#[tokio::test]
async fn a_build_secret_is_mounted_and_nowhere_else() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let context = bench.root().join("context");
    let run = format!("RUN --mount=type=secret,id=token [ \"$(cat /run/secrets/token)\" = {SECRET} ] && echo has it");
    write(&context.join("Dockerfile"), &format!("FROM {image}\n{run}\n"));
    let tag = format!("{}:1", bench.name("secret"));
    let spec = BuildSpec {
        secrets: vec![entry("token", "credential/x/token")],
        ..bench.build_spec(&context, &context.join("Dockerfile"), &tag)
    };
    let (output, end) = bench.built(spec).await;
    end.unwrap_or_else(|error| panic!("{}\n{output}", error.message));
    assert!(output.lines().any(|line| line.ends_with(" has it") && !line.contains("RUN")), "{output}");
    assert!(!bench.trace().contains(SECRET));
    bench.leave(&[&tag]).await;
}

#[tokio::test]
async fn a_build_that_fails_says_what_its_commands_said_last() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let context = bench.root().join("context");
    write(&context.join("Dockerfile"), &format!("FROM {image}\nRUN echo the reason is here && exit 3\n"));
    let tag = format!("{}:1", bench.name("fails"));
    let (output, end) = bench.built(bench.build_spec(&context, &context.join("Dockerfile"), &tag)).await;
    let error = end.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Failed));
    assert!(
        error.message.contains("exit code: 3") && error.message.ends_with("the reason is here"),
        "{}",
        error.message
    );
    assert!(output.contains("ERROR"), "{output}");
    bench.leave(&[]).await;
}

#[tokio::test]
async fn an_image_is_pushed_and_its_digest_is_what_the_registry_has() {
    let (Some(image), Some(registry)) = (variable("MADDOCK_TEST_IMAGE_SMALL"), variable("MADDOCK_TEST_REGISTRY"))
    else {
        return;
    };
    let mut bench = Bench::new();
    let pulled = bench.state.pull_image(image.clone(), None).await.unwrap().unwrap();
    let name = format!("{registry}/{}:1", bench.name("pushed"));
    bench.state.tag_image(image, name.clone()).await.unwrap().unwrap();
    let digest = bench.state.push_image(name.clone(), None).await.unwrap().unwrap();
    assert!(digest.starts_with("sha256:"), "{digest}");
    assert_eq!(bench.state.registry_digest(name.clone(), None).await.unwrap().unwrap(), digest);
    let info = bench.state.inspect_image(name.clone()).await.unwrap().unwrap();
    assert_eq!(info.id, pulled.id);
    assert!(info.repository_digests.iter().any(|found| found.ends_with(&digest)), "{info:?}");
    let error =
        bench.state.push_image(format!("{registry}/{}:none", bench.name("pushed")), None).await.unwrap().unwrap_err();
    assert!(!matches!(error.kind, ErrorKind::Denied), "{error:?}");
    let error = bench.state.registry_digest(format!("{registry}/no/such:1"), None).await.unwrap().unwrap_err();
    assert!(error.message.contains("no/such:1"), "{error:?}");
    bench.leave(&[&name]).await;
}

#[tokio::test]
async fn an_image_goes_by_an_archive_and_no_other_is_taken_for_it() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let context = bench.root().join("context");
    let tag = format!("{}:1", bench.name("archived"));
    write(&context.join("Dockerfile"), &format!("FROM {image}\nRUN echo {tag} > /own\n"));
    let spec = bench.build_spec(&context, &context.join("Dockerfile"), &tag);
    let (output, built) = bench.built(spec).await;
    let built = built.unwrap_or_else(|error| panic!("{}\n{output}", error.message));
    let path = bench.root().join("run/images/own.tar").display().to_string();
    let saved = bench.state.save_image(tag.clone(), path.clone()).await.unwrap().unwrap();
    assert_eq!(saved.id, built.id);
    bench.leave(&[&tag]).await;
    let gone = bench.state.inspect_image(tag.clone()).await.unwrap().unwrap_err();
    assert!(matches!(gone.kind, ErrorKind::NotFound), "{}", gone.message);

    let other = format!("sha256:{}", "0".repeat(64));
    let refused = bench.state.load_image(path.clone(), other.clone()).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Conflict) && refused.message.contains(&other), "{}", refused.message);
    bench.leave(&[&tag]).await;

    let loaded = bench.state.load_image(path.clone(), built.id.clone()).await.unwrap().unwrap();
    assert_eq!(loaded.id, built.id);
    assert_eq!(bench.state.inspect_image(tag.clone()).await.unwrap().unwrap().id, built.id, "its name came along");
    // What is there is not loaded again: the archive is not even looked at.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(bench.state.load_image(path, built.id.clone()).await.unwrap().unwrap().id, built.id);
    bench.leave(&[&tag]).await;
}

#[tokio::test]
async fn an_archive_is_written_below_the_run_only_and_there_as_a_whole_or_not_at_all() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let outside = bench.root().join("image.tar").display().to_string();
    let refused = bench.state.save_image(image, outside.clone()).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Denied) && !Path::new(&outside).exists(), "{}", refused.message);
    let path = bench.root().join("run/image.tar").display().to_string();
    let absent = bench.state.save_image("maddock-no-such-image:1".to_owned(), path).await.unwrap().unwrap_err();
    assert!(matches!(absent.kind, ErrorKind::NotFound), "{}", absent.message);
    assert_eq!(std::fs::read_dir(bench.root().join("run")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_engine_says_what_it_is() {
    if variable("MADDOCK_TEST_IMAGE_SMALL").is_none() {
        return;
    }
    let engine = Bench::new().state.describe_engine().await.unwrap().unwrap();
    assert!(!engine.version.is_empty() && engine.api_version.contains('.'));
    assert!(engine.runtimes.iter().any(|runtime| runtime == "runc"), "{engine:?}");
}

#[tokio::test]
async fn without_an_engine_every_call_says_which_socket_and_what_to_do() {
    let nowhere = [("DOCKER_HOST".to_owned(), "unix:///nowhere/engine.sock".to_owned())].into_iter().collect();
    let mut bench = Bench::with_environment(nowhere);
    let error = bench.state.describe_engine().await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Unavailable) && error.message.contains("/nowhere/engine.sock"),
        "{error:?}"
    );
    assert!(bench.trace().contains("\"outcome\":\"error\""));
}

/// A way to the engine that can be cut and mended, as when the engine is restarted.
struct Way {
    socket: PathBuf,
    traffic: tokio::task::JoinSet<()>,
}

impl Way {
    fn new(socket: PathBuf) -> Self {
        let mut way = Self { socket, traffic: tokio::task::JoinSet::new() };
        way.mend();
        way
    }

    fn environment(&self) -> Environment {
        [("DOCKER_HOST".to_owned(), format!("unix://{}", self.socket.display()))].into_iter().collect()
    }

    fn mend(&mut self) {
        let listener = tokio::net::UnixListener::bind(&self.socket).unwrap();
        self.traffic.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut far = tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
    }

    async fn cut(&mut self) {
        self.traffic.shutdown().await;
        std::fs::remove_file(&self.socket).unwrap();
    }
}

#[tokio::test]
async fn a_follower_survives_an_engine_that_goes_away_and_repeats_and_loses_nothing() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let keep = tempfile::tempdir().unwrap();
    let mut way = Way::new(keep.path().join("engine.sock"));
    let mut bench = Bench::with_environment(way.environment());
    for tty in [false, true] {
        // The second half comes when the last cut is mended.
        let script = "i=0; while [ $i -lt 400 ]; do echo line $i; usleep 5000; i=$((i+1)); \
            while [ $i -eq 200 ] && [ ! -e /go/on ]; do sleep 0.05; done; done; exit 4";
        let word = tempfile::tempdir().unwrap();
        let mut spec = ContainerSpec { tty, ..bench.scripted(&format!("cut-{tty}"), &image, script) };
        spec.mounts.push(Mount {
            source: word.path().display().to_string(),
            destination: "/go".to_owned(),
            read_only: true,
        });
        let id = bench.started(spec).await;
        let follow = bench.state.follow_container(id).await.unwrap().unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let bytes = match HostFollow::next_event(&mut bench.state, Resource::new_borrow(follow.rep()), 60_000)
                .await
                .unwrap()
            {
                Ok(ContainerEvent::Output((_, bytes))) => bytes,
                other => panic!("{other:?} after {} bytes", seen.len()),
            };
            seen.extend(bytes);
            way.cut().await;
            // While it is away there is nothing to tell but what was under way.
            loop {
                match HostFollow::next_event(&mut bench.state, Resource::new_borrow(follow.rep()), 150).await.unwrap() {
                    Ok(ContainerEvent::Output((_, bytes))) => seen.extend(bytes),
                    Ok(ContainerEvent::Timeout) => break,
                    other => panic!("{other:?} while the engine was away"),
                }
            }
            way.mend();
        }
        std::fs::write(word.path().join("on"), "").unwrap();
        let (rest, _, end) = bench.drained(&follow).await;
        assert_eq!(end.unwrap(), 4);
        let all = String::from_utf8(seen).unwrap() + &rest;
        let expected: String = (0..400).map(|i| format!("line {i}{}", if tty { "\r\n" } else { "\n" })).collect();
        assert!(all == expected, "terminal {tty}: {} bytes instead of {}", all.len(), expected.len());
        HostFollow::drop(&mut bench.state, follow).await.unwrap();
    }
    bench.leave(&[]).await;
}

#[tokio::test]
async fn a_removal_is_not_lost_on_an_engine_that_restarts() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let keep = tempfile::tempdir().unwrap();
    let mut way = Way::new(keep.path().join("engine.sock"));
    let mut bench = Bench::with_environment(way.environment());
    let id = bench.started(plain(&bench.name("restart"), &image, &["sleep", "300"])).await;
    way.cut().await;
    let mut removal = Box::pin(bench.state.remove_container(id));
    // It waits instead of failing, and goes on when the engine is back.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(500), &mut removal).await.is_err());
    way.mend();
    removal.await.unwrap().unwrap();
    bench.leave(&[]).await;
}

/// Whether a process with that argument runs on this machine: the engine's containers do.
fn runs(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
    })
}

#[tokio::test]
async fn dropping_a_build_cancels_it() {
    let Some(image) = variable("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let mut bench = Bench::new();
    let context = bench.root().join("context");
    let unique = format!("{}", 100_000_000 + std::process::id());
    write(&context.join("Dockerfile"), &format!("FROM {image}\nRUN echo begun; sleep {unique}\n"));
    let tag = format!("{}:1", bench.name("cancelled"));
    let spec = bench.build_spec(&context, &context.join("Dockerfile"), &tag);
    let build = bench.state.build_image(spec).await.unwrap().unwrap();
    let mut output = String::new();
    while !output.contains(" begun\n") {
        match HostBuild::next_event(&mut bench.state, Resource::<Build>::new_borrow(build.rep()), 60_000).await.unwrap()
        {
            Ok(BuildEvent::Output(bytes)) => output += &String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}\n{output}"),
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
    let visible = runs(&unique);
    HostBuild::drop(&mut bench.state, build).await.unwrap();
    while runs(&unique) {
        assert!(std::time::Instant::now() < deadline, "the build goes on");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    if !visible {
        eprintln!("the engine's processes are not visible from here: only that the drop returns was seen");
    }
    bench.leave(&[]).await;
}
