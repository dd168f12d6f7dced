//! `files`: files, scoped by roots.
//!
//! The gate is asked for the path that will be touched, with every link resolved, so that a link cannot lead out of a
//! root; what acts reaches that path through no link at all. Nothing here may act on a path as the plugin wrote it, and no
//! function that acts can be called without a permit.

pub(crate) mod copy;
mod held;
pub(crate) mod lock;
pub(crate) mod place;
pub(crate) mod touch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use maddock_bindings::api::files::{self, DirectoryEntry, FileInfo};
use maddock_bindings::api::types::ErrorKind;
use wasmtime::component::Resource;

use self::lock::Locked;
use self::place::Place;
use super::gate::{Call, Capability, Permit};
use super::{Answer, ApiError, error, error_with_hint};
use crate::plugin::State;

/// The `files` interface.
#[derive(Debug)]
pub enum Files {}

impl Capability for Files {
    const NAME: &'static str = "files";
}

impl State {
    /// Resolves a path and asks the gate for it. A path that cannot be resolved is asked for as written, so that a
    /// plugin without leave learns nothing about what is there.
    fn enter(
        &self,
        operation: &'static str,
        path: &str,
        resolve: fn(&Path) -> Result<Place, ApiError>,
    ) -> Result<(Permit<Files>, Place), ApiError> {
        self.enter_with(operation, path, resolve, |call| call)
    }

    /// The same, where the call touches something else beside the path.
    fn enter_with(
        &self,
        operation: &'static str,
        path: &str,
        resolve: fn(&Path) -> Result<Place, ApiError>,
        describe: impl Fn(Call<Files>) -> Call<Files>,
    ) -> Result<(Permit<Files>, Place), ApiError> {
        let asked = place::parse(path)?;
        match resolve(&asked) {
            Ok(place) => {
                let call = describe(Call::<Files>::new(operation)).on("path", place.path().to_string_lossy());
                Ok((self.gate.permit(call)?, place))
            }
            Err(unresolved) => {
                let call = describe(Call::<Files>::new(operation)).on("path", asked.to_string_lossy());
                let permit = self.gate.permit(call)?;
                Err(permit
                    .finish::<()>(Err(unresolved))
                    .err()
                    .unwrap_or_else(|| error(ErrorKind::Failed, "cannot resolve it")))
            }
        }
    }

    /// More than the plugin's memory holds can never be handed to it: the limit that keeps the host's memory safe.
    fn deliverable(&self, limit: u64) -> u64 {
        limit.min(u64::try_from(self.ceilings.memory).unwrap_or(u64::MAX))
    }

    fn refuse_roots(&self, path: &Path) -> Result<(), ApiError> {
        let roots = &self.context.roots;
        let holds_root = [&roots.tree, &roots.run, &roots.output, &roots.results]
            .into_iter()
            .any(|root| !root.as_os_str().is_empty() && root.starts_with(path));
        if holds_root || path.parent().is_none() {
            return Err(error_with_hint(
                ErrorKind::InvalidInput,
                format!("refusing to remove `{}`, which is or holds a root of this run", path.display()),
                "name what is to go below it",
            ));
        }
        Ok(())
    }
}

/// Answers an error to the plugin instead of going on.
macro_rules! allowed {
    ($asked:expr) => {
        match $asked {
            Ok(value) => value,
            Err(refused) => return Ok(Err(refused)),
        }
    };
}
pub(crate) use allowed;

impl files::Host for State {
    async fn stat(&mut self, path: String) -> Answer<Option<FileInfo>> {
        let (permit, place) = allowed!(self.enter("stat", &path, place::existing));
        let answer = touch::stat(&permit, &place);
        Ok(permit.finish(answer))
    }

    async fn read(&mut self, path: String, limit: u64) -> Answer<Vec<u8>> {
        let (permit, place) = allowed!(self.enter("read", &path, place::existing));
        let answer = touch::read(&permit, place.path(), self.deliverable(limit));
        if let Ok(bytes) = &answer {
            self.charge_transfer(bytes.len())?;
        }
        Ok(permit.finish(answer))
    }

    async fn read_head(&mut self, path: String, limit: u64) -> Answer<Vec<u8>> {
        let (permit, place) = allowed!(self.enter("read-head", &path, place::existing));
        let answer = touch::read_head(&permit, place.path(), self.deliverable(limit));
        if let Ok(bytes) = &answer {
            self.charge_transfer(bytes.len())?;
        }
        Ok(permit.finish(answer))
    }

    async fn read_from(&mut self, path: String, offset: u64, limit: u64) -> Answer<Vec<u8>> {
        let (permit, place) = allowed!(self.enter("read-from", &path, place::existing));
        let answer = touch::read_from(&permit, place.path(), offset, self.deliverable(limit));
        if let Ok(bytes) = &answer {
            self.charge_transfer(bytes.len())?;
        }
        Ok(permit.finish(answer))
    }

    async fn list_directory(&mut self, path: String) -> Answer<Vec<DirectoryEntry>> {
        let (permit, place) = allowed!(self.enter("list-directory", &path, place::existing));
        let answer = touch::list(&permit, place.path());
        if let Ok(entries) = &answer {
            self.charge_transfer(entries.iter().map(|entry| entry.name.len()).sum())?;
        }
        Ok(permit.finish(answer))
    }

    async fn write(&mut self, path: String, bytes: Vec<u8>, mode: u32) -> Answer<()> {
        let (permit, place) = allowed!(self.enter("write", &path, place::existing));
        self.charge_transfer(bytes.len())?;
        let answer = touch::write(&permit, place.path(), &bytes, mode);
        Ok(permit.finish(answer))
    }

    async fn make_directory(&mut self, path: String) -> Answer<()> {
        let (permit, place) = allowed!(self.enter("make-directory", &path, place::existing));
        let answer = touch::make_directory(&permit, place.path());
        Ok(permit.finish(answer))
    }

    async fn copy(&mut self, source: String, destination: String) -> Answer<()> {
        let (read, from) = allowed!(self.enter("read", &source, place::existing));
        let source = from.path().to_string_lossy().into_owned();
        let entered = self.enter_with("copy", &destination, place::existing, |call| call.on("source", source.as_str()));
        let (write, to) = match entered {
            Ok(entered) => entered,
            Err(refused) => return Ok(read.finish(Err(refused))),
        };
        let stop = copy::StopOnDrop::default();
        let (gate, flag, source, destination): (_, _, PathBuf, PathBuf) =
            (self.gate.clone(), stop.flag(), from.path().to_owned(), to.path().to_owned());
        // Everything is looked at and asked for before anything is written: a refusal leaves no half of a tree.
        let planned = tokio::task::spawn_blocking(move || {
            let plan = copy::plan(&read, &gate, &source, &destination, &flag);
            (read.finish(plan.as_ref().map(|_| ()).map_err(Clone::clone)), plan)
        });
        let plan = match planned.await {
            Ok((_, Ok(plan))) => plan,
            Ok((_, Err(refused))) => return Ok(write.finish(Err(refused))),
            Err(_) => return Ok(write.finish(Err(error(ErrorKind::Failed, "the copy did not come to an end")))),
        };
        self.charge_transfer(usize::try_from(plan.bytes()).unwrap_or(usize::MAX))?;
        let flag = stop.flag();
        let done = tokio::task::spawn_blocking(move || {
            let answer = plan.carry_out(&write, &flag);
            write.finish(answer)
        });
        Ok(done.await.unwrap_or_else(|_| Err(error(ErrorKind::Failed, "the copy did not come to an end"))))
    }

    async fn remove(&mut self, path: String) -> Answer<()> {
        let (permit, place) = allowed!(self.enter("remove", &path, place::itself));
        let answer = match self.refuse_roots(place.path()) {
            Ok(()) => {
                // Handed over and back, because removing a large tree waits for the disk.
                let done = tokio::task::spawn_blocking(move || {
                    let answer = touch::remove(&permit, place.path());
                    permit.finish(answer)
                });
                return Ok(done
                    .await
                    .unwrap_or_else(|_| Err(error(ErrorKind::Failed, "the removal did not come to an end"))));
            }
            Err(refused) => Err(refused),
        };
        Ok(permit.finish(answer))
    }

    async fn lock(&mut self, path: String, timeout_ms: u32) -> Answer<Resource<files::LockedFile>> {
        let (permit, place) = allowed!(self.enter("lock", &path, place::existing));
        let taken = Locked::take(&permit, place.path(), Duration::from_millis(timeout_ms.into())).await;
        let locked = allowed!(permit.finish(taken));
        let resource = self.table.push(locked)?;
        Ok(Ok(Resource::new_own(resource.rep())))
    }
}

impl files::HostLockedFile for State {
    async fn read(&mut self, resource: Resource<files::LockedFile>, limit: u64) -> Answer<Option<Vec<u8>>> {
        let limit = self.deliverable(limit);
        let answer = self.table.get(&Resource::<Locked>::new_borrow(resource.rep()))?.read(limit);
        if let Ok(Some(bytes)) = &answer {
            self.charge_transfer(bytes.len())?;
        }
        Ok(answer)
    }

    async fn replace(&mut self, resource: Resource<files::LockedFile>, bytes: Vec<u8>) -> Answer<()> {
        self.charge_transfer(bytes.len())?;
        Ok(self.table.get(&Resource::<Locked>::new_borrow(resource.rep()))?.replace(&bytes))
    }

    async fn drop(&mut self, resource: Resource<files::LockedFile>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Locked>::new_own(resource.rep()))?;
        Ok(())
    }
}
