//! From a plugin's command to what will be executed: which file, with which environment, where.
//!
//! Until the gate has allowed it, a command has no secrets in it (`Asked`); a `Prepared` one has, and shows nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maddock_bindings::api::process::Command;
use maddock_bindings::api::types::{EnvValue, EnvVar, ErrorKind};

use super::{Process, interpreter};
use crate::capability::files::place;
use crate::capability::gate::{Call, Permit};
use crate::capability::policy::Policy;
use crate::capability::secrets::SecretStore;
use crate::capability::{ApiError, error, error_with_hint};
use crate::plugin::RunContext;

/// What every program gets.
const ALWAYS_INHERITED: [&str; 2] = ["PATH", "HOME"];

/// A command that is well formed, before the gate was asked.
pub(super) struct Asked {
    argv: Vec<String>,
    /// The arguments as policy and trace may see them.
    shown: String,
    /// The last part of `argv[0]`.
    name: String,
    /// None where the program is not there.
    program: Option<PathBuf>,
    inherited: BTreeMap<String, String>,
    inherit: Vec<String>,
    env: Vec<EnvVar>,
    directory: PathBuf,
    stdin: Option<Vec<u8>>,
    time_limit: Option<Duration>,
}

/// A command that may be executed. It holds secrets, hence no `Debug`.
pub(super) struct Prepared {
    pub(super) argv: Vec<String>,
    pub(super) program: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) time_limit: Option<Duration>,
}

fn invalid(message: impl Into<String>) -> ApiError {
    error(ErrorKind::InvalidInput, message)
}

impl Asked {
    /// Looks the program up and checks everything that does not depend on the policy.
    pub(super) fn new(command: Command, context: &RunContext) -> Result<Self, ApiError> {
        let Command { argv, env, inherit, directory, stdin, time_limit_ms, extra: _ } = command;
        let first = argv.first().filter(|first| !first.is_empty()).ok_or_else(|| invalid("the command is empty"))?;
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err(invalid("an argument contains a NUL byte"));
        }
        for name in env.iter().map(|variable| &variable.name).chain(&inherit) {
            check_name(name)?;
        }
        if let Some(bad) = env.iter().find(|v| matches!(&v.value, EnvValue::Text(text) if text.contains('\0'))) {
            return Err(invalid(format!("the value of `{}` contains a NUL byte", bad.name)));
        }
        let program = if first.contains('/') {
            Some(place::parse(first)?).filter(|path| path.metadata().is_ok_and(|meta| meta.is_file()))
        } else {
            context.environment.find_program(first)
        };
        let name = Path::new(first).file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| invalid(format!("`{first}` names no program")))?;
        let directory = match directory {
            Some(directory) => place::existing(&place::parse(&directory)?)?.path().to_owned(),
            // Commands that are no runs, such as one that lists devices, have no directory of their own.
            None if context.roots.run.as_os_str().is_empty() => PathBuf::from("/"),
            None => context.roots.run.clone(),
        };
        let inherited = ALWAYS_INHERITED
            .into_iter()
            .chain(inherit.iter().map(String::as_str))
            .filter_map(|name| Some((name.to_owned(), context.environment.get(name)?.to_owned())))
            .collect();
        let time_limit = time_limit_ms.map(Duration::from_millis);
        let shown = shown(argv.get(1..).unwrap_or_default(), &context.secrets);
        Ok(Self { shown, name, program, inherited, inherit, env, directory, stdin, time_limit, argv })
    }

    /// Adds what the command wants to touch to a call.
    pub(super) fn describe(&self, call: Call<Process>, policy: &Policy) -> Call<Process> {
        let mut call = call.on("program", &self.name);
        if self.program.is_none() && self.asked().contains('/') {
            // Whether it is there is not for everybody to learn.
            call = call.on("path", self.asked());
        }
        if let Some(program) = &self.program {
            // A link is judged by where it leads.
            let real = program.canonicalize().unwrap_or_else(|_| program.clone());
            call = call.on("path", real.to_string_lossy());
            // Reading a program whole costs time: only where a rule wants to know.
            if policy.speaks_of("program-digest") {
                call = call.on("program-digest", digest(program).unwrap_or_default());
            }
        }
        let arguments = self.argv.get(1..).unwrap_or_default();
        let time = self.time_limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.as_secs_f64().to_string());
        call = call.on("arguments", &self.shown).on("time", time);
        if let Some(interpreter) =
            interpreter::of_inline_code(&self.name, self.program.as_deref(), arguments, self.has_stdin())
        {
            call = call.on("inline-code", interpreter);
        }
        let secrets = self.env.iter().filter_map(|variable| match &variable.value {
            EnvValue::Secret(name) => Some(name),
            EnvValue::Text(_) => None,
        });
        call.on_all("env", self.env.iter().map(|variable| &variable.name).chain(&self.inherit))
            .on_all("secret", secrets)
            .on("directory", self.directory.to_string_lossy())
    }

    /// `argv[0]`.
    fn asked(&self) -> &str {
        self.argv.first().unwrap_or(&self.name)
    }

    pub(super) fn stdin_length(&self) -> usize {
        self.stdin.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn has_stdin(&self) -> bool {
        self.stdin.is_some()
    }

    /// Puts the secrets where they were asked for. What no policy may allow is refused here, so that the trace has it.
    pub(super) fn reveal(self, _: &Permit<Process>, secrets: &SecretStore) -> Result<Prepared, ApiError> {
        let names = self.env.iter().map(|variable| &variable.name).chain(&self.inherit);
        if let Some(name) = names.into_iter().find(|name| name.starts_with("LD_")) {
            return Err(error_with_hint(
                ErrorKind::Denied,
                format!("the variable `{name}` puts code into other programs and is always refused"),
                "set it inside the job's own script",
            ));
        }
        let Some(program) = self.program else {
            let asked = self.argv.first().unwrap_or(&self.name);
            return Err(error_with_hint(
                ErrorKind::NotFound,
                format!("the program `{asked}` is not there"),
                "install it, or add its directory to `PATH`",
            ));
        };
        if !self.directory.is_dir() {
            let message =
                format!("the directory `{}` to run `{}` in is not there", self.directory.display(), self.name);
            return Err(error(ErrorKind::NotFound, message));
        }
        let mut env = self.inherited;
        for EnvVar { name, value } in self.env {
            let value = match value {
                EnvValue::Text(text) => text,
                EnvValue::Secret(secret) => reveal_one(&secret, &name, secrets)?,
            };
            env.insert(name, value);
        }
        Ok(Prepared {
            argv: self.argv,
            program,
            env,
            directory: self.directory,
            stdin: self.stdin,
            time_limit: self.time_limit,
        })
    }
}

/// Arguments as one line, without any secret that somebody has put there: the line goes into the trace.
fn shown(arguments: &[String], secrets: &SecretStore) -> String {
    let values = secrets.values();
    let hidden = arguments
        .iter()
        .map(|argument| values.iter().fold(argument.clone(), |argument, value| argument.replace(value, "[secret]")));
    let hidden: Vec<String> = hidden.collect();
    // What cannot be quoted has a NUL byte, and was refused before.
    shlex::try_join(hidden.iter().map(String::as_str)).unwrap_or_default()
}

/// `sha256:…` of a program's file. It is read before it is executed: whoever can replace the file in between can deceive this.
fn digest(program: &Path) -> std::io::Result<String> {
    use std::io::BufRead;

    use sha2::Digest;

    let mut file = std::io::BufReader::with_capacity(1 << 16, std::fs::File::open(program)?);
    let mut hasher = sha2::Sha256::new();
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(format!("sha256:{}", hex::encode(hasher.finalize())));
        }
        hasher.update(bytes);
        let read = bytes.len();
        file.consume(read);
    }
}

fn reveal_one(secret: &str, variable: &str, secrets: &SecretStore) -> Result<String, ApiError> {
    let value = secrets.reveal(secret).ok_or_else(|| {
        error_with_hint(
            ErrorKind::NotFound,
            format!("there is no secret `{secret}` for the variable `{variable}`"),
            "secrets are members of `credential.json` and variables of the environment",
        )
    })?;
    if value.contains('\0') {
        return Err(invalid(format!(
            "the secret `{secret}` contains a NUL byte and cannot be the variable `{variable}`"
        )));
    }
    Ok(value.to_owned())
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let good =
        name.chars().enumerate().all(|(at, c)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()));
    if good && !name.is_empty() {
        return Ok(());
    }
    let shown = crate::capability::events::printable(name);
    Err(error_with_hint(
        ErrorKind::InvalidInput,
        format!("`{shown}` is not the name of a variable"),
        "names are letters, digits and `_`, and begin with no digit",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_among_arguments_is_not_in_what_the_trace_will_hold() {
        let mut secrets = SecretStore::default();
        secrets.add("credential/x/token", "s3cret value");
        let arguments = ["--token=s3cret value", "a b", "s3"].map(str::to_owned);
        assert_eq!(shown(&arguments, &secrets), "'--token=[secret]' 'a b' s3");
    }
}
