//! `kube`: a Kubernetes cluster by its API.
//!
//! Here each call is described to the gate; what acts lies in the modules below and needs a `Client`, which is had for a
//! permit only. What does not bear this run's label is never changed, entered or deleted, and nothing is ever deleted by an
//! empty name, a pattern or as a collection.

mod act;
mod cluster;
mod exec;
mod logs;
mod object;
mod owner;
mod position;
mod proxy;
mod reflect;
mod scope;
mod secret;
mod trouble;
mod upkeep;
mod view;
mod watch;

use std::time::Duration;

use maddock_bindings::api::kube::{
    self, Connection, ExecAnswer, LogEvent, Logs, Node, ObjectRef, SecretContent, Server, Snapshot,
};
use maddock_bindings::api::types::{Entry, ErrorKind};
use wasmtime::component::Resource;

use super::files::allowed;
use super::gate::{Call, Capability, Permit};
use super::{Answer, ApiError, error};
use crate::plugin::State;

pub use cluster::Clusters;
pub(super) use upkeep::{is_configured, sweep, version};

use cluster::{Client, Place};
use object::{Kind, Object, check_name};
use owner::{Owner, run_of};

/// The `kube` interface.
#[derive(Debug, PartialEq, Eq)]
pub enum Kube {}

impl Capability for Kube {
    const NAME: &'static str = "kube";
}

/// A detail of an error.
fn detail(name: &str, value: impl Into<String>) -> Entry {
    Entry { name: name.to_owned(), value: value.into() }
}

impl State {
    /// Finds the place that a connection names, and asks the gate for a call there. A connection that leads nowhere is
    /// asked for as written, so that a plugin without leave learns nothing about what is there.
    fn enter_cluster(
        &self,
        operation: &'static str,
        connection: &Connection,
        describe: impl FnOnce(Call<Kube>) -> Call<Kube>,
    ) -> Result<(Permit<Kube>, Place), ApiError> {
        self.refuse_own(&connection.kubeconfig)?;
        let call = Call::<Kube>::new(operation);
        match self.context.clusters.place(connection, &self.context.environment) {
            Ok(place) => Ok((self.gate.permit(describe(place.describe(call)))?, place)),
            Err(unknown) => {
                let call = call
                    .on("context", &connection.context)
                    .on("namespace", &connection.namespace)
                    .on("kubeconfig", &connection.kubeconfig);
                let permit = self.gate.permit(describe(call))?;
                let refused = permit.finish::<()>(Err(unknown)).err();
                Err(refused.unwrap_or_else(|| error(ErrorKind::Failed, "the cluster is not known")))
            }
        }
    }

    /// Connections in the run's own directory are a plugin's: it could call any server by the name of a context that it may
    /// use, and have files of this machine sent there for credentials.
    fn refuse_own(&self, file: &str) -> Result<(), ApiError> {
        let run = &self.context.roots.run;
        let path = std::path::Path::new(file);
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let own = !file.is_empty() && !run.as_os_str().is_empty() && (real.starts_with(run) || path.starts_with(run));
        if !own {
            return Ok(());
        }
        Err(super::error_with_hint(
            ErrorKind::Denied,
            "connections in the run's own directory are not used: plugins write there",
            "name a file of the user's",
        ))
    }

    fn charge_moved(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge_transfer(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

/// Asks the gate, acts, and says how it went.
macro_rules! gated {
    ($state:ident, $operation:literal, $connection:ident, $describe:expr, |$client:ident, $permit:ident| $act:expr) => {{
        let ($permit, place) = allowed!($state.enter_cluster($operation, &$connection, $describe));
        let answer = match Client::open(&$permit, &place).await {
            Ok($client) => $act.await,
            Err(refused) => Err(refused),
        };
        Ok($permit.finish(answer))
    }};
}

/// Reads objects, whose namespace must be known for that.
fn read_objects(state: &State, connection: &Connection, texts: &[String]) -> Result<Vec<Object>, ApiError> {
    let place = state.context.clusters.place(connection, &state.context.environment);
    let namespace = place.as_ref().map_or(connection.namespace.as_str(), |place| place.namespace.as_str());
    let objects: Vec<Object> = texts.iter().map(|text| Object::read(text, namespace)).collect::<Result<_, _>>()?;
    for (index, object) in objects.iter().enumerate() {
        let same = |earlier: &&Object| earlier.kind == object.kind && earlier.name == object.name;
        if objects.iter().take(index).any(|earlier| same(&earlier)) {
            let message = format!("{} `{}` is there twice", object.kind.word(), object.name);
            return Err(error(ErrorKind::InvalidInput, message));
        }
    }
    Ok(objects)
}

fn describe_all(call: Call<Kube>, objects: &[Object]) -> Call<Kube> {
    objects.iter().fold(call, |call, object| object.describe(call))
}

fn on(call: Call<Kube>, kind: &str, name: &str) -> Call<Kube> {
    call.on("kind", kind).on("name", name)
}

impl kube::Host for State {
    async fn describe_server(&mut self, connection: Connection) -> Answer<Server> {
        gated!(self, "describe-server", connection, |call| call, |client, permit| act::server(&client))
    }

    async fn list_nodes(&mut self, connection: Connection) -> Answer<Vec<Node>> {
        gated!(self, "list-nodes", connection, |call| call, |client, permit| act::nodes(&client))
    }

    async fn check(&mut self, connection: Connection, objects: Vec<String>) -> Answer<()> {
        let owner = allowed!(Owner::of(self));
        let objects = allowed!(read_objects(self, &connection, &objects));
        gated!(self, "check", connection, |call| describe_all(call, &objects), |client, permit| act::check(
            &client, &objects, &owner
        ))
    }

    async fn create(&mut self, connection: Connection, objects: Vec<String>) -> Answer<Vec<ObjectRef>> {
        let owner = allowed!(Owner::of(self));
        let bytes: usize = objects.iter().map(String::len).sum();
        let objects = allowed!(read_objects(self, &connection, &objects));
        self.charge_transfer(bytes)?;
        let clusters = self.context.clusters.clone();
        gated!(self, "create", connection, |call| describe_all(call, &objects), |client, permit| async {
            // From here on there may be objects of this run, whatever becomes of the call.
            clusters.mark_used(&client.place);
            let jobs = objects.iter().filter(|object| object.kind == Kind::Job).map(|object| object.name.as_str());
            clusters.expect(&client.place, jobs);
            act::create(&client, &objects, &owner).await
        })
    }

    async fn create_secret(
        &mut self,
        connection: Connection,
        name: String,
        content: SecretContent,
    ) -> Answer<ObjectRef> {
        let owner = allowed!(Owner::of(self));
        allowed!(secret::check(&name, &content));
        let describe = |call| secret::describe(on(call, Kind::Secret.word(), &name), &content);
        let context = self.context.clone();
        gated!(self, "create-secret", connection, describe, |client, permit| async {
            let value = secret::object(&permit, &name, &content, &owner, &context.secrets)?;
            context.clusters.mark_used(&client.place);
            act::post(&client, Kind::Secret, &name, value, &Default::default()).await?;
            Ok(act::reference(Kind::Secret, &name))
        })
    }

    async fn get(&mut self, connection: Connection, what: ObjectRef) -> Answer<Option<String>> {
        let kind = allowed!(Kind::of(&what.kind));
        allowed!(check_name("the object's name", &what.name));
        if kind == Kind::Secret {
            return Ok(Err(error(ErrorKind::Unsupported, "secrets are not read, by nobody")));
        }
        let answer: Answer<Option<String>> =
            gated!(self, "get", connection, |call| on(call, kind.word(), &what.name), |client, permit| act::get(
                &client, kind, &what.name
            ));
        if let Ok(Ok(Some(text))) = &answer {
            self.charge_transfer(text.len())?;
        }
        answer
    }

    async fn list_owned(&mut self, connection: Connection) -> Answer<Vec<ObjectRef>> {
        let owner = allowed!(Owner::of(self));
        gated!(self, "list-owned", connection, |call| call, |client, permit| async {
            // What the account may not list is told once, by the kernel, which sweeps when the run ends.
            let found = act::labelled(&client, &owner.selector()).await?.found;
            let named = |(kind, metadata): (Kind, _)| -> ObjectRef {
                let metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta = metadata;
                act::reference(kind, &metadata.name.unwrap_or_default())
            };
            Ok(found.into_iter().map(named).collect())
        })
    }

    async fn next_change(
        &mut self,
        connection: Connection,
        job: String,
        seen: u64,
        timeout_ms: u32,
    ) -> Answer<Option<Snapshot>> {
        allowed!(check_name("the Job's name", &job));
        let run = allowed!(run_of(&self.context.run_id));
        let clusters = self.context.clusters.clone();
        let timeout = Duration::from_millis(timeout_ms.into());
        gated!(self, "next-change", connection, |call| on(call, "Job", &job), |client, permit| async {
            clusters.watch(&client, &run).next_change(&client, &job, seen, timeout).await
        })
    }

    async fn follow_logs(&mut self, connection: Connection, job: String, container: String) -> Answer<Resource<Logs>> {
        allowed!(check_name("the Job's name", &job));
        allowed!(check_name("the container's name", &container));
        let run = allowed!(run_of(&self.context.run_id));
        let clusters = self.context.clusters.clone();
        let begun: Answer<logs::Logs> =
            gated!(self, "follow-logs", connection, |call| on(call, "Job", &job), |client, permit| async {
                let watch = clusters.watch(&client, &run);
                if let Some(found) = act::metadata(&client, Kind::Job, &job).await? {
                    act::owned(Kind::Job, &job, &found, &run)?;
                }
                Ok(logs::Logs::begin(client, watch, &job, &container))
            });
        match begun? {
            Ok(logs) => Ok(Ok(Resource::new_own(self.table.push(logs)?.rep()))),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn exec(
        &mut self,
        connection: Connection,
        pod: String,
        container: String,
        command: Vec<String>,
    ) -> Answer<ExecAnswer> {
        allowed!(check_name("the pod's name", &pod));
        allowed!(check_name("the container's name", &container));
        let run = allowed!(run_of(&self.context.run_id));
        let program = allowed!(
            command
                .first()
                .filter(|program| !program.is_empty())
                .cloned()
                .ok_or_else(|| { error(ErrorKind::InvalidInput, "a command has a program") })
        );
        let describe = |call| on(call, Kind::Pod.word(), &pod).on("container", &container).on("command", &program);
        let answer: Answer<ExecAnswer> = gated!(self, "exec", connection, describe, |client, permit| async {
            act::own_pod(&client, &pod, &run).await?;
            exec::run(&client, &pod, &container, &command).await
        });
        if let Ok(Ok(answer)) = &answer {
            self.charge_transfer(answer.stdout.len().saturating_add(answer.stderr.len()))?;
        }
        answer
    }

    async fn copy_out(
        &mut self,
        connection: Connection,
        pod: String,
        container: String,
        directory: String,
        destination: String,
    ) -> Answer<Vec<String>> {
        allowed!(check_name("the pod's name", &pod));
        allowed!(check_name("the container's name", &container));
        let run = allowed!(run_of(&self.context.run_id));
        let most = self.ceilings.transfer;
        let root = self.context.roots.run.clone();
        let destination = super::docker::copy::judged(&destination);
        let describe = |call| {
            on(call, Kind::Pod.word(), &pod)
                .on("container", &container)
                .on("source", &directory)
                .on("path", &destination)
        };
        let copied: Answer<(Vec<String>, u64)> =
            gated!(self, "copy-out", connection, describe, |client, permit| async {
                let destination = super::docker::copy::destination(&root, &destination)?;
                act::own_pod(&client, &pod, &run).await?;
                exec::copy_out(&client, &pod, &container, &directory, destination, most).await
            });
        match copied? {
            Ok((names, bytes)) => {
                self.charge_moved(bytes)?;
                Ok(Ok(names))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn delete(&mut self, connection: Connection, what: ObjectRef) -> Answer<()> {
        let kind = allowed!(Kind::of(&what.kind));
        allowed!(check_name("the object's name", &what.name));
        let run = allowed!(run_of(&self.context.run_id));
        gated!(self, "delete", connection, |call| on(call, kind.word(), &what.name), |client, permit| act::delete(
            &client, kind, &what.name, &run
        ))
    }
}

impl kube::HostLogs for State {
    async fn next_event(&mut self, logs: Resource<Logs>, timeout_ms: u32) -> Answer<LogEvent> {
        let following = self.table.get_mut(&Resource::<logs::Logs>::new_borrow(logs.rep()))?;
        let event = following.next(Duration::from_millis(timeout_ms.into())).await;
        if let Ok(LogEvent::Chunk(chunk)) = &event {
            self.charge_transfer(chunk.bytes.len())?;
        }
        Ok(event)
    }

    async fn drop(&mut self, logs: Resource<Logs>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<logs::Logs>::new_own(logs.rep()))?;
        Ok(())
    }
}
