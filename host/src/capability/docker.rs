//! `docker`: a container engine by the Docker Engine API.
//!
//! Here each call is described to the gate; what acts lies in the modules below and needs an `Engine`, which is had for a
//! permit only. No program is ever run, and no container of another run is ever touched.

mod archive;
mod bases;
mod build;
mod containers;
mod context;
pub(super) mod copy;
mod engine;
mod feed;
mod follow;
mod ignore;
mod images;
mod progress;
mod reference;
mod session;
mod spec;
#[cfg(test)]
mod tests;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use maddock_bindings::api::docker::{
    self, Build, BuildEvent, BuildSpec, ContainerEvent, ContainerInfo, ContainerSpec, Follow, ImageInfo,
};
use maddock_bindings::api::events::Level;
use maddock_bindings::api::types::{Entry, ErrorKind};
use tokio::sync::mpsc;
use wasmtime::component::Resource;

use super::events::{PluginEvent, printable};
use super::gate::{Call, Capability, Permit};
use super::mark::Mark;
use super::{Answer, ApiError, error_with_hint};
use crate::plugin::{RunContext, State};

pub(super) use build::surely_from;
pub use engine::Connection;
pub(super) use engine::patiently;
pub(super) use upkeep::{sweep, sweep_job, version};

use build::Building;
use engine::Engine;
use feed::{Feed, Next};
use reference::Reference;

/// The `docker` interface.
#[derive(Debug, PartialEq, Eq)]
pub enum Docker {}

impl Capability for Docker {
    const NAME: &'static str = "docker";
}

type Following = Feed<i32>;

/// A call on one container.
fn on_container(operation: &'static str, id: &str) -> Call<Docker> {
    Call::<Docker>::new(operation).on("container", id)
}

/// A call that speaks with the registry of an image.
fn on_registry(operation: &'static str, reference: &str, login: Option<&str>) -> Call<Docker> {
    let call = Call::<Docker>::new(operation).on("image", reference);
    let call = match Reference::parse(reference) {
        Ok(parsed) => call.on("registry", parsed.registry()),
        Err(_) => call,
    };
    call.on_all("secret", login)
}

/// Asks the gate, acts on the caller's behalf, and says how it went.
macro_rules! gated {
    ($state:ident, $call:expr, |$caller:ident, $permit:ident| $act:expr) => {{
        let $caller = Caller::of($state);
        let $permit = match $state.gate.permit($call) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        let answer = $act.await;
        Ok($permit.finish(answer))
    }};
}

/// What the acting code may know of the instance: it outlives no call, and is shared with nobody.
struct Caller {
    context: Arc<RunContext>,
    owner: spec::Owner,
    events: mpsc::Sender<PluginEvent>,
    /// Bytes that one copy may have.
    most: u64,
}

impl Caller {
    fn of(state: &State) -> Self {
        let owner = spec::Owner {
            run: state.context.run_id.clone(),
            job: state.job.clone(),
            plugin: state.gate.identity().name.clone(),
            mark: Mark::mine(),
            directory: state.context.roots.run.clone(),
        };
        Self { context: state.context.clone(), owner, events: state.events.clone(), most: state.ceilings.transfer }
    }

    async fn engine(&self, permit: &Permit<Docker>) -> Result<Engine, ApiError> {
        self.context.docker.open(permit, &self.context.environment).await
    }

    /// The run that this instance may own containers of.
    fn run(&self) -> Result<&str, ApiError> {
        match self.owner.run.as_str() {
            "" => Err(error_with_hint(
                ErrorKind::Unsupported,
                "this command belongs to no run, and containers belong to one",
                "`maddock run` makes runs",
            )),
            run => Ok(run),
        }
    }

    async fn describe(&self, permit: &Permit<Docker>) -> Result<docker::Engine, ApiError> {
        let engine = self.engine(permit).await?;
        let cannot = |cause| engine.failed("cannot ask the container engine what it is", &cause);
        let info = engine.client().info().await.map_err(cannot)?;
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        let text = |value: Option<String>| value.unwrap_or_default();
        let extra = [
            ("address", engine.address.to_string()),
            ("default-runtime", text(info.default_runtime)),
            ("storage-driver", text(info.driver)),
            ("logging-driver", text(info.logging_driver)),
        ];
        Ok(docker::Engine {
            version: engine.version.clone(),
            api_version: engine.api_version.clone(),
            operating_system: text(info.operating_system),
            architecture: text(info.architecture),
            runtimes,
            rootless: info
                .security_options
                .unwrap_or_default()
                .iter()
                .any(|option| option.starts_with("name=rootless")),
            extra: extra.into_iter().map(|(name, value)| Entry { name: name.to_owned(), value }).collect(),
        })
    }

    async fn create(
        &self,
        permit: &Permit<Docker>,
        spec: &ContainerSpec,
        paths: spec::Paths,
    ) -> Result<String, ApiError> {
        self.run()?;
        let body = spec::translate(spec, paths, &self.owner, &self.context.secrets)?;
        let engine = self.engine(permit).await?;
        self.context.docker.recovered(|| self.recover(&engine)).await;
        containers::create(&engine, &spec.name, body).await
    }

    /// Before this invocation's first container: what killed ones have left behind could hold the devices that it needs.
    async fn recover(&self, engine: &Engine) {
        for (level, message) in upkeep::recover(&self.context, engine).await {
            let event = PluginEvent::Log { level, message: printable(&message), fields: Vec::new() };
            // Nobody listening is fine.
            let _ = self.events.send(event).await;
        }
    }

    async fn begin_build(
        &self,
        permit: &Permit<Docker>,
        spec: &BuildSpec,
        paths: build::Paths,
    ) -> Result<Building, ApiError> {
        let engine = self.engine(permit).await?;
        for (grave, message) in build::remarks(spec, &paths, &engine.version) {
            let level = if grave { Level::Warning } else { Level::Debug };
            let event = PluginEvent::Log { level, message: printable(&message), fields: Vec::new() };
            // Nobody listening is fine.
            let _ = self.events.send(event).await;
        }
        build::start(engine, build::order(spec, paths, &self.context.secrets)?).await
    }

    async fn begin_following(&self, permit: &Permit<Docker>, id: &str) -> Result<Following, ApiError> {
        let engine = self.engine(permit).await?;
        let container = containers::owned(&engine, self.run()?, id).await?;
        Ok(follow::start(engine, container.id.clone(), container.terminal()))
    }

    async fn copy(&self, permit: &Permit<Docker>, id: &str, path: &str, destination: &str) -> Result<u64, ApiError> {
        let destination = copy::destination(&self.context.roots.run, destination)?;
        let engine = self.engine(permit).await?;
        let container = containers::owned(&engine, self.run()?, id).await?;
        copy::copy_out(&engine, &container.id, path, destination, self.most).await
    }
}

impl State {
    fn charge(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge_transfer(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

impl docker::Host for State {
    async fn describe_engine(&mut self) -> Answer<docker::Engine> {
        gated!(self, Call::<Docker>::new("describe-engine"), |caller, permit| caller.describe(&permit))
    }

    async fn inspect_image(&mut self, reference: String) -> Answer<ImageInfo> {
        gated!(self, Call::<Docker>::new("inspect-image").on("image", &reference), |caller, permit| async {
            let reference = Reference::parse(&reference)?;
            images::inspect(&caller.engine(&permit).await?, &reference).await
        })
    }

    async fn pull_image(&mut self, reference: String, login: Option<String>) -> Answer<ImageInfo> {
        gated!(self, on_registry("pull-image", &reference, login.as_deref()), |caller, permit| async {
            let reference = Reference::parse(&reference)?;
            let login = images::login(&reference, login.as_deref(), &caller.context.secrets)?;
            images::pull(&caller.engine(&permit).await?, &reference, login, &caller.events).await
        })
    }

    async fn tag_image(&mut self, reference: String, new_reference: String) -> Answer<()> {
        let call = Call::<Docker>::new("tag-image").on("image", &reference).on("tag", &new_reference);
        gated!(self, call, |caller, permit| async {
            let (reference, new) = (Reference::parse(&reference)?, Reference::parse(&new_reference)?);
            images::tag(&caller.engine(&permit).await?, &reference, &new).await
        })
    }

    async fn push_image(&mut self, reference: String, login: Option<String>) -> Answer<String> {
        gated!(self, on_registry("push-image", &reference, login.as_deref()), |caller, permit| async {
            let reference = Reference::parse(&reference)?;
            let login = images::login(&reference, login.as_deref(), &caller.context.secrets)?;
            images::push(&caller.engine(&permit).await?, &reference, login, &caller.events).await
        })
    }

    async fn registry_digest(&mut self, reference: String, login: Option<String>) -> Answer<String> {
        gated!(self, on_registry("registry-digest", &reference, login.as_deref()), |caller, permit| async {
            let reference = Reference::parse(&reference)?;
            let login = images::login(&reference, login.as_deref(), &caller.context.secrets)?;
            images::registry_digest(&caller.engine(&permit).await?, &reference, login).await
        })
    }

    async fn save_image(&mut self, reference: String, path: String) -> Answer<ImageInfo> {
        let place = match archive::destination(&self.context.roots.run, &path) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        let call = Call::<Docker>::new("save-image").on("image", &reference).on("path", place.to_string_lossy());
        gated!(self, call, |caller, permit| async {
            let reference = Reference::parse(&reference)?;
            archive::save(&caller.engine(&permit).await?, &reference, &place).await
        })
    }

    async fn load_image(&mut self, path: String, id: String) -> Answer<ImageInfo> {
        let place = match archive::source(&path) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        let call = Call::<Docker>::new("load-image").on("image", &id).on("path", place.to_string_lossy());
        gated!(self, call, |caller, permit| async { archive::load(&caller.engine(&permit).await?, &place, &id).await })
    }

    async fn build_image(&mut self, spec: BuildSpec) -> Answer<Resource<Build>> {
        let mut paths = build::Paths::of(&spec);
        // What may not be built at all is not read, either: a refusal of images tells names that stand in the file.
        if let Err(denied) = self.gate.ask(&build::scope(&spec, &paths, &[])) {
            return Ok(Err(denied));
        }
        let (bases, unreadable) = match paths.bases(&spec) {
            Ok(bases) => (bases, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let permit = match self.gate.permit(build::scope(&spec, &paths, &bases)) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(build::with_line(denied, &spec, &bases))),
        };
        let caller = Caller::of(self);
        let answer = match unreadable {
            Some(error) => Err(error),
            None => caller.begin_build(&permit, &spec, paths).await,
        };
        match permit.finish(answer) {
            Ok(building) => Ok(Ok(Resource::new_own(self.table.push(building)?.rep()))),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn create_container(&mut self, spec: ContainerSpec) -> Answer<String> {
        let here = engine::Address::of(&self.context.environment).is_ok_and(|address| address.is_local());
        let paths = spec::Paths::of(&spec, here);
        gated!(self, spec::scope(&spec, &paths), |caller, permit| caller.create(&permit, &spec, paths))
    }

    async fn start_container(&mut self, id: String) -> Answer<()> {
        gated!(self, on_container("start-container", &id), |caller, permit| async {
            containers::start(&caller.engine(&permit).await?, caller.run()?, &id).await
        })
    }

    async fn inspect_container(&mut self, id: String) -> Answer<ContainerInfo> {
        gated!(self, on_container("inspect-container", &id), |caller, permit| async {
            containers::owned(&caller.engine(&permit).await?, caller.run()?, &id)
                .await
                .map(|container| container.info())
        })
    }

    async fn find_containers(&mut self, labels: Vec<Entry>) -> Answer<Vec<ContainerInfo>> {
        let words = labels.iter().map(|label| format!("{}={}", label.name, label.value));
        gated!(self, Call::<Docker>::new("find-containers").on_all("label", words), |caller, permit| async {
            containers::find(&caller.engine(&permit).await?, caller.run()?, &labels).await
        })
    }

    async fn stop_container(&mut self, id: String, grace_seconds: u32) -> Answer<()> {
        gated!(self, on_container("stop-container", &id), |caller, permit| async {
            containers::stop(&caller.engine(&permit).await?, caller.run()?, &id, grace_seconds).await
        })
    }

    async fn remove_container(&mut self, id: String) -> Answer<()> {
        gated!(self, on_container("remove-container", &id), |caller, permit| async {
            containers::remove(&caller.engine(&permit).await?, caller.run()?, &id).await
        })
    }

    async fn copy_out(&mut self, id: String, path: String, destination: String) -> Answer<()> {
        let destination = copy::judged(&destination);
        let call = on_container("copy-out", &id).on("source", &path).on("path", &destination);
        let copied: Answer<u64> = gated!(self, call, |caller, permit| caller.copy(&permit, &id, &path, &destination));
        match copied? {
            Ok(bytes) => {
                self.charge(bytes)?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn follow_container(&mut self, id: String) -> Answer<Resource<Follow>> {
        let begun: Answer<Following> =
            gated!(self, on_container("follow-container", &id), |caller, permit| caller.begin_following(&permit, &id));
        match begun? {
            Ok(following) => Ok(Ok(Resource::new_own(self.table.push(following)?.rep()))),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl docker::HostBuild for State {
    async fn next_event(&mut self, build: Resource<Build>, timeout_ms: u32) -> Answer<BuildEvent> {
        let building = self.table.get_mut(&Resource::<Building>::new_borrow(build.rep()))?;
        let next = building.feed.next(Duration::from_millis(timeout_ms.into())).await;
        let sent = building.newly_sent();
        self.charge(sent)?;
        Ok(match next {
            Ok(Next::Output(_, bytes)) => {
                self.charge(bytes.len() as u64)?;
                Ok(BuildEvent::Output(bytes))
            }
            Ok(Next::Ended(image)) => Ok(BuildEvent::Finished(image)),
            Ok(Next::Timeout) => Ok(BuildEvent::Timeout),
            Err(error) => Err(error),
        })
    }

    async fn drop(&mut self, build: Resource<Build>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Building>::new_own(build.rep()))?;
        Ok(())
    }
}

impl docker::HostFollow for State {
    async fn next_event(&mut self, follow: Resource<Follow>, timeout_ms: u32) -> Answer<ContainerEvent> {
        let following = self.table.get_mut(&Resource::<Following>::new_borrow(follow.rep()))?;
        Ok(match following.next(Duration::from_millis(timeout_ms.into())).await {
            Ok(Next::Output(stream, bytes)) => {
                self.charge(bytes.len() as u64)?;
                Ok(ContainerEvent::Output((stream, bytes)))
            }
            Ok(Next::Ended(code)) => Ok(ContainerEvent::Exited(code)),
            Ok(Next::Timeout) => Ok(ContainerEvent::Timeout),
            Err(error) => Err(error),
        })
    }

    async fn drop(&mut self, follow: Resource<Follow>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Following>::new_own(follow.rep()))?;
        Ok(())
    }
}
