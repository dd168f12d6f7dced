//! The one table of host functions. From it come what records and what plays back; the compiler sees to it that no function
//! of a bound interface is missing, and a test that no interface of the WIT package is.

use maddock_bindings::api::docker::{BuildEvent, BuildSpec, ContainerEvent, ContainerInfo, ContainerSpec, ImageInfo};
use maddock_bindings::api::events::{Level, Phase};
use maddock_bindings::api::files::{DirectoryEntry, FileInfo};
use maddock_bindings::api::kube::{Connection, ExecAnswer, LogEvent, Node, ObjectRef, SecretContent, Server, Snapshot};
use maddock_bindings::api::process::{Command, Event, Finished};
use maddock_bindings::api::slurm::{Batch, Cluster, Job, Seen};
use maddock_bindings::api::types::{self, Entry, OutputStream};
use maddock_bindings::api::{docker, events, facts, files, kube, process, secrets, slurm};
use serde::de::DeserializeOwned;
use serde_json::Value;
use wasmtime::component::{HasData, Resource};

use super::recorder::answer_body;
use super::{Turn, body};
use crate::capability::Answer;
use crate::plugin::State;

/// A plugin's state with its tape before it: what the linker gives to plugins.
pub struct Taped<'a>(pub &'a mut State);

/// Says so to the linker.
pub(crate) struct HasTape;

impl HasData for HasTape {
    type Data<'a> = Taped<'a>;
}

/// An answer of a recording, as the function gives it.
fn played<T: DeserializeOwned>(mut answer: Value) -> Answer<T> {
    let Some(members) = answer.as_object_mut() else { return Err(wasmtime::Error::msg("an answer without a shape")) };
    if let Some(ends) = members.get("ends") {
        return Err(wasmtime::Error::msg(ends.as_str().unwrap_or_default().to_owned()));
    }
    if let Some(error) = members.shift_remove("error") {
        return Ok(Err(body::read(error).map_err(wasmtime::Error::new)?));
    }
    Ok(Ok(body::read(members.shift_remove("ok").unwrap_or_default()).map_err(wasmtime::Error::new)?))
}

macro_rules! host_functions {
    ($(
        interface $interface:literal as $module:ident {
            $( ask $ask:ident ( $( $aa:ident : $at:ty ),* ) -> $ar:ty; )*
            $( open $open:ident ( $( $oa:ident : $ot:ty ),* ) -> $or:ty; )*
            $( tell $tell:ident ( $( $ta:ident : $tt:ty ),* ); )*
            $( resource $resource:literal as $trait:ident for $handle:ty {
                $( ask $rask:ident ( $( $ra:ident : $rt:ty ),* ) -> $rr:ty; )*
            } )*
        }
    )*) => {
        /// Every host function by its name in the WIT package, resources' among them.
        pub const FUNCTIONS: &[&str] = &[ $(
            $( concat!($interface, ".", stringify!($ask)), )*
            $( concat!($interface, ".", stringify!($open)), )*
            $( concat!($interface, ".", stringify!($tell)), )*
            $( $( concat!($interface, ".", $resource, ".", stringify!($rask)), )* )*
        )* ];

        $(
            impl $module::Host for Taped<'_> {
                $(
                    async fn $ask(&mut self, $( $aa: $at ),*) -> Answer<$ar> {
                        let function = concat!($interface, ".", stringify!($ask));
                        let turn = Turn::of(&self.0.tape, function, |_told| { $( _told.push(&$aa)?; )* Ok(()) })?;
                        match turn {
                            Turn::Live(pending) => {
                                let answer = <State as $module::Host>::$ask(self.0, $( $aa ),*).await;
                                if let Some(pending) = pending {
                                    pending.answered(|writer| answer_body(&answer, writer));
                                }
                                answer
                            }
                            Turn::Played(answer) => played(answer),
                        }
                    }
                )*
                $(
                    async fn $open(&mut self, $( $oa: $ot ),*) -> Answer<Resource<$or>> {
                        let function = concat!($interface, ".", stringify!($open));
                        let turn = Turn::of(&self.0.tape, function, |_told| { $( _told.push(&$oa)?; )* Ok(()) })?;
                        match turn {
                            Turn::Live(pending) => {
                                let answer = <State as $module::Host>::$open(self.0, $( $oa ),*).await;
                                if let Some(pending) = pending {
                                    let told = match &answer {
                                        Ok(Ok(resource)) => Ok(Ok(resource.rep())),
                                        Ok(Err(error)) => Ok(Err(error.clone())),
                                        Err(ended) => Err(wasmtime::Error::msg(ended.to_string())),
                                    };
                                    pending.answered(|writer| answer_body(&told, writer));
                                }
                                answer
                            }
                            // A handle is a number of the host's own; nothing is behind this one.
                            Turn::Played(answer) => Ok(played::<u32>(answer)?.map(Resource::new_own)),
                        }
                    }
                )*
                $(
                    async fn $tell(&mut self, $( $ta: $tt ),*) -> wasmtime::Result<()> {
                        let function = concat!($interface, ".", stringify!($tell));
                        let turn = Turn::of(&self.0.tape, function, |_told| { $( _told.push(&$ta)?; )* Ok(()) })?;
                        match turn {
                            Turn::Live(pending) => {
                                let answer = <State as $module::Host>::$tell(self.0, $( $ta ),*).await;
                                if let Some(pending) = pending {
                                    let told = match &answer {
                                        Ok(()) => Ok(Ok(())),
                                        Err(ended) => Err(wasmtime::Error::msg(ended.to_string())),
                                    };
                                    pending.answered(|writer| answer_body(&told, writer));
                                }
                                answer
                            }
                            // What a plugin tells has no effect but on who listens, and somebody may.
                            Turn::Played(_) => <State as $module::Host>::$tell(self.0, $( $ta ),*).await,
                        }
                    }
                )*
            }

            $(
                impl $module::$trait for Taped<'_> {
                    $(
                        async fn $rask(&mut self, handle: Resource<$handle>, $( $ra: $rt ),*) -> Answer<$rr> {
                            let function = concat!($interface, ".", $resource, ".", stringify!($rask));
                            let turn = Turn::of(&self.0.tape, function, |told| {
                                told.push(&handle.rep())?;
                                $( told.push(&$ra)?; )*
                                Ok(())
                            })?;
                            match turn {
                                Turn::Live(pending) => {
                                    let answer = <State as $module::$trait>::$rask(self.0, handle, $( $ra ),*).await;
                                    if let Some(pending) = pending {
                                        pending.answered(|writer| answer_body(&answer, writer));
                                    }
                                    answer
                                }
                                Turn::Played(answer) => played(answer),
                            }
                        }
                    )*

                    async fn drop(&mut self, handle: Resource<$handle>) -> wasmtime::Result<()> {
                        let function = concat!($interface, ".", $resource, ".drop");
                        match Turn::of(&self.0.tape, function, |told| told.push(&handle.rep()))? {
                            Turn::Live(pending) => {
                                let answer = <State as $module::$trait>::drop(self.0, handle).await;
                                if let Some(pending) = pending {
                                    pending.answered(|_| Ok(serde_json::json!({"ok": null})));
                                }
                                answer
                            }
                            Turn::Played(_) => Ok(()),
                        }
                    }
                }
            )*
        )*
    };
}

impl types::Host for Taped<'_> {}

host_functions! {
    interface "docker" as docker {
        ask describe_engine() -> docker::Engine;
        ask inspect_image(reference: String) -> ImageInfo;
        ask pull_image(reference: String, login: Option<String>) -> ImageInfo;
        ask tag_image(reference: String, new_reference: String) -> ();
        ask push_image(reference: String, login: Option<String>) -> String;
        ask registry_digest(reference: String, login: Option<String>) -> String;
        ask save_image(reference: String, path: String) -> ImageInfo;
        ask load_image(path: String, id: String) -> ImageInfo;
        ask create_container(spec: ContainerSpec) -> String;
        ask start_container(id: String) -> ();
        ask inspect_container(id: String) -> ContainerInfo;
        ask find_containers(labels: Vec<Entry>) -> Vec<ContainerInfo>;
        ask stop_container(id: String, grace_seconds: u32) -> ();
        ask remove_container(id: String) -> ();
        ask copy_out(id: String, path: String, destination: String) -> ();
        open build_image(spec: BuildSpec) -> docker::Build;
        open follow_container(id: String) -> docker::Follow;
        resource "build" as HostBuild for docker::Build {
            ask next_event(timeout_ms: u32) -> BuildEvent;
        }
        resource "follow" as HostFollow for docker::Follow {
            ask next_event(timeout_ms: u32) -> ContainerEvent;
        }
    }
    interface "events" as events {
        tell log(level: Level, message: String, fields: Vec<Entry>);
        tell output(node: u32, stream: OutputStream, bytes: Vec<u8>);
        tell state(phase: Phase, reason: String);
        tell progress(activity: String, done: Option<u64>, total: Option<u64>, unit: String);
    }
    interface "facts" as facts {
        ask environment(name: String) -> Option<String>;
        ask hostname() -> String;
        ask find_program(name: String) -> Option<String>;
    }
    interface "files" as files {
        ask stat(path: String) -> Option<FileInfo>;
        ask read(path: String, limit: u64) -> Vec<u8>;
        ask read_head(path: String, limit: u64) -> Vec<u8>;
        ask read_from(path: String, offset: u64, limit: u64) -> Vec<u8>;
        ask list_directory(path: String) -> Vec<DirectoryEntry>;
        ask write(path: String, bytes: Vec<u8>, mode: u32) -> ();
        ask make_directory(path: String) -> ();
        ask copy(source: String, destination: String) -> ();
        ask remove(path: String) -> ();
        open lock(path: String, timeout_ms: u32) -> files::LockedFile;
        resource "locked-file" as HostLockedFile for files::LockedFile {
            ask read(limit: u64) -> Option<Vec<u8>>;
            ask replace(bytes: Vec<u8>) -> ();
        }
    }
    interface "kube" as kube {
        ask describe_server(connection: Connection) -> Server;
        ask list_nodes(connection: Connection) -> Vec<Node>;
        ask check(connection: Connection, objects: Vec<String>) -> ();
        ask create(connection: Connection, objects: Vec<String>) -> Vec<ObjectRef>;
        ask create_secret(connection: Connection, name: String, content: SecretContent) -> ObjectRef;
        ask get(connection: Connection, what: ObjectRef) -> Option<String>;
        ask list_owned(connection: Connection) -> Vec<ObjectRef>;
        ask next_change(connection: Connection, job: String, seen: u64, timeout_ms: u32) -> Option<Snapshot>;
        ask exec(connection: Connection, pod: String, container: String, command: Vec<String>) -> ExecAnswer;
        ask copy_out(connection: Connection, pod: String, container: String, directory: String, destination: String) -> Vec<String>;
        ask delete(connection: Connection, what: ObjectRef) -> ();
        open follow_logs(connection: Connection, job: String, container: String) -> kube::Logs;
        resource "logs" as HostLogs for kube::Logs {
            ask next_event(timeout_ms: u32) -> LogEvent;
        }
    }
    interface "process" as process {
        ask run(command: Command, output_limit: u32) -> Finished;
        ask launch(command: Command, directory: String) -> String;
        open attach(handle: String) -> process::Child;
        resource "child" as HostChild for process::Child {
            ask next_event(timeout_ms: u32) -> Event;
            ask stop(grace_ms: u32) -> ();
        }
    }
    interface "secrets" as secrets {
        ask available(name: String) -> bool;
        ask members(name: String) -> Vec<String>;
    }
    interface "slurm" as slurm {
        ask describe_cluster() -> Cluster;
        ask submit(batch: Batch) -> String;
        ask query(ids: Vec<String>) -> Vec<Job>;
        ask next_change(seen: Vec<Seen>, timeout_ms: u32) -> Vec<Job>;
        ask cancel(id: String) -> ();
        ask find(job: Option<String>) -> Vec<Job>;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_flags_of_a_job_have_their_names_in_the_record() {
        use maddock_bindings::target::exports::maddock::plugin::target::JobOptions;
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
        let target = resolve.packages[package].interfaces["target"];
        let wit_parser::TypeDefKind::Flags(flags) =
            &resolve.types[resolve.interfaces[target].types["job-options"]].kind
        else {
            panic!("no flags")
        };
        let names: Vec<&String> = flags.flags.iter().map(|flag| &flag.name).collect();
        let all: JobOptions = serde_json::from_value(serde_json::json!(names)).unwrap();
        assert_eq!(serde_json::to_value(all).unwrap(), serde_json::json!(names));
    }

    #[test]
    fn the_table_has_every_function_of_every_capability() {
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
        let world = resolve.select_world(&[package], Some("capabilities")).unwrap();
        let mut wanted = BTreeSet::new();
        for item in resolve.worlds[world].imports.values() {
            let wit_parser::WorldItem::Interface { id, .. } = item else { panic!("a bare import") };
            let interface = &resolve.interfaces[*id];
            let name = interface.name.clone().unwrap();
            for function in interface.functions.values() {
                let function = function.name.replace("[method]", "");
                wanted.insert(format!("{name}.{function}"));
            }
        }
        let there: BTreeSet<String> = FUNCTIONS.iter().map(|name| super::super::in_wit(name)).collect();
        assert_eq!(there, wanted);
    }
}
