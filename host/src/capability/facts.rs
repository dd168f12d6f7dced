//! `facts`: environment, host name, programs. Answers are calls, so that a trace can replay them.

use maddock_bindings::api::{facts, types::ErrorKind};

use super::gate::{Call, Capability};
use super::{Answer, error};
use crate::plugin::State;

/// The `facts` interface.
#[derive(Debug)]
pub enum Facts {}

impl Capability for Facts {
    const NAME: &'static str = "facts";
}

impl facts::Host for State {
    async fn environment(&mut self, name: String) -> Answer<Option<String>> {
        let permit = match self.gate.permit(Call::<Facts>::new("environment").on("variable", &name)) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(permit.finish(Ok(self.context.environment.get(&name).map(str::to_owned))))
    }

    async fn hostname(&mut self) -> Answer<String> {
        let permit = match self.gate.permit(Call::<Facts>::new("hostname")) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(permit.finish(Ok(name)))
    }

    async fn find_program(&mut self, name: String) -> Answer<Option<String>> {
        let permit = match self.gate.permit(Call::<Facts>::new("find-program").on("program", &name)) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        if name.contains('/') || name.is_empty() {
            return Ok(
                permit.finish(Err(error(ErrorKind::InvalidInput, format!("`{name}` is not a bare program name"))))
            );
        }
        let found = self.context.environment.find_program(&name).map(|path| path.display().to_string());
        Ok(permit.finish(Ok(found)))
    }
}
