//! What `build` and `run` share: the run's directory, the effective configuration, and the selected models.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::args::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::setup::Setup;
use super::terminal::Terminal;
use crate::capability::tape::{self, recorder::LIMIT};
use crate::capability::trace::Trace;
use crate::config::effective::{Effective, Inputs};
use crate::config::error::ConfigError;
use crate::config::presets::{self, Shelf};
use crate::config::schema::TargetKeys;
use crate::pipeline::card::Card;
use crate::pipeline::discover;
use crate::pipeline::event::{Event, Gravity, Listener, Stream};
use crate::pipeline::select;
use crate::plugin::manifest::Kind;
use crate::plugin::{Environment, RunContext, Session};
use crate::results::attendance::{Attendance, Attended};
use crate::results::redact::Redactor;
use crate::results::run_directory::{EventLog, RunDirectory, random};

/// One invocation that has a directory of its own.
#[derive(Debug)]
pub struct Invocation {
    /// Tree and plugins.
    pub setup: Setup,
    /// Its directory.
    pub directory: Arc<RunDirectory>,
    /// What plugin instances share.
    pub context: Arc<RunContext>,
    /// Who hears what happens.
    pub events: Stream,
    /// That this process attends the run; none where it only looks.
    pub attendance: Option<Attendance>,
    // A dry run's directory goes with it.
    _scratch: Option<tempfile::TempDir>,
}

/// Writes events to `events.jsonl`.
struct Recorder(EventLog);

impl Listener for Recorder {
    fn hear(&self, event: &Event) {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return };
        let Some(Value::String(name)) = fields.shift_remove("event") else { return };
        // A full disk must not end the run: rows and verdicts are written elsewhere too.
        let _ = self.0.append(jiff::Timestamp::now(), &name, &fields);
    }
}

/// How much of a run is recorded.
const RECORDING: &str = "MADDOCK_RECORDING";

/// The bytes that the recording of a run may have; none: nothing is recorded.
fn recording_limit(environment: &Environment) -> Result<Option<u64>, Failure> {
    let text = environment.get(RECORDING).unwrap_or_default();
    let bytes = || {
        let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1_u64 << 30)];
        let (number, unit) = units.into_iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))?;
        Some(number.parse::<u64>().ok()?.saturating_mul(unit))
    };
    match text {
        "" => Ok(Some(LIMIT)),
        "off" => Ok(None),
        _ => bytes().map(Some).ok_or_else(|| {
            Failure::new(Exit::Arguments, format!("the variable {RECORDING} is `{}`", text.escape_debug()))
                .hint("it is `off`, or how large the recording of a run may be, such as `256M`")
        }),
    }
}

/// How an invocation talks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Talk {
    /// The models' output comes on stdout.
    pub live_output: bool,
    /// More than is usual.
    pub verbose: bool,
}

impl Invocation {
    /// Makes the directory, and everything that records into it. A dry run has a directory that goes away with it.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(setup: Setup, dry_run: bool, talk: Talk) -> Result<Self, Failure> {
        let scratch = if dry_run { Some(tempfile::tempdir().map_err(|error| cannot(&error))?) } else { None };
        let place = scratch.as_ref().map_or(setup.output.as_path(), |scratch| scratch.path()).to_owned();
        let directory = RunDirectory::create(&place, jiff::Timestamp::now(), random).map_err(|error| cannot(&error))?;
        let taken = Attendance::take(directory.path(), "run").map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot lock the run's directory: {error}"))
                .hint("runs are kept in `.maddock/runs` of the working directory, whose file system must know locks")
        })?;
        let attendance = match taken {
            Attended::Here(attendance) => Some(attendance),
            // A lock in a directory that was made just now is nobody else's, but for a file system that says so.
            Attended::Elsewhere(_) => None,
        };
        let invocation = Self::of(setup, directory, attendance, talk)?;
        tape::forget_older(&place);
        Ok(Self { _scratch: scratch, ..invocation })
    }

    /// An invocation that goes on in the directory of an earlier run.
    ///
    /// # Errors
    /// Its files cannot be opened.
    pub fn of(
        setup: Setup,
        directory: RunDirectory,
        attendance: Option<Attendance>,
        talk: Talk,
    ) -> Result<Self, Failure> {
        let mut warnings = Vec::new();
        let secrets = setup.secrets(&mut |warning| warnings.push(warning));
        let redactor = Redactor::new(secrets.values());
        let id = directory.id().as_str().to_owned();
        let trace = Trace::to_file(&directory.path().join("trace.jsonl"), &id).map_err(|error| cannot(&error))?;
        // Whoever only looks changes nothing that a replay would miss, and may not know the secrets of the jobs it looks at.
        let limit = recording_limit(&setup.environment)?.filter(|_| attendance.is_some());
        // Without a recording a run runs all the same.
        let recorder =
            limit.and_then(|limit| tape::Recorder::open(directory.path(), &id, redactor.clone(), limit).ok());
        let trace = trace.recording(recorder);
        let context = setup.context_in(id, directory.path(), trace, secrets)?;
        let terminal = Arc::new(Terminal::new(talk.live_output, talk.verbose));
        let events = match &attendance {
            Some(_) => {
                let recorder = Recorder(directory.events(redactor).map_err(|error| cannot(&error))?);
                Stream::to(Arc::new(recorder)).and(terminal)
            }
            // Whoever only looks has no part in what happened.
            None => Stream::to(terminal),
        };
        for warning in warnings {
            events.say(Gravity::Warning, "", warning);
        }
        Ok(Self { setup, directory: Arc::new(directory), context, events, attendance, _scratch: None })
    }

    /// Masks what this invocation knows as secrets.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        Redactor::new(self.context.secrets.values())
    }

    /// A session of this invocation.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::quiet(self.context.clone())
    }

    /// Reads the additional context and lays it over the defaults. Unknown keys are looked for by the caller, who knows
    /// what else gives keys a meaning.
    ///
    /// # Errors
    /// It cannot be read or says something that cannot be: exit 4.
    pub fn configuration(
        &self,
        context: &Context,
        target: Option<&str>,
        build_defaults: bool,
    ) -> Result<Effective, Failure> {
        let targets = self
            .setup
            .plugins
            .catalog()
            .of_kind(Kind::Target)
            .map(|entry| TargetKeys(entry.manifest.provides.clone()))
            .collect();
        Effective::load(&Inputs {
            file: context.additional_context_file.as_deref(),
            text: Some(&context.additional_context),
            environment: self.setup.environment.iter().map(|(name, _)| name.to_owned()).collect(),
            targets,
            target,
            presets: &context.presets,
            directory: self.setup.output.clone(),
            strict: context.strict,
            build_defaults,
            ..Inputs::default()
        })
        .map_err(|error| of_configuration(&error))
    }

    /// Lays the presets of a target under what is said, and refuses what cannot be before anything is done.
    ///
    /// # Errors
    /// A preset is not there, or what is said cannot be together: exit 4.
    pub fn apply_presets(&self, effective: &mut Effective, target: &str, cards: &[Card]) -> Result<(), Failure> {
        let model = presets::common(cards.iter().map(|card| &card.model));
        Shelf::shipped()
            .and_then(|shelf| effective.apply_presets(&shelf, target, &model))
            .map_err(|error| of_configuration(&error))
    }

    /// The models that tags select, completed.
    ///
    /// # Errors
    /// Nothing can be discovered, or a tag matches nothing: with the given code.
    pub async fn select(&self, tags: &[String], exit: Exit) -> Result<Vec<Card>, Failure> {
        let session = self.session();
        let wrapped =
            |failure: Failure| if failure.exit == Exit::Refused { failure } else { Failure { exit, ..failure } };
        let tree = &self.setup.tree;
        let plugins = &self.setup.plugins;
        let found = discover::models(plugins, &session, tree)
            .await
            .map_err(|error| wrapped(super::discover::failure(&error)))?;
        for skipped in &found.skipped {
            let hint = skipped.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            self.events.say(Gravity::Warning, "", format!("skipped `{}`: {}{hint}", skipped.path, skipped.reason));
        }
        let selected =
            select::select(&found.cards, tags).map_err(|error| Failure::new(exit, &error).hint(error.hint()))?;
        discover::finalise(plugins, &session, tree, selected)
            .await
            .map_err(|error| wrapped(super::discover::failure(&error)))
    }

    /// Looks for keys that mean nothing, now that the models are known: the definitions of their images may filter on some.
    /// Tells every warning that the configuration has gathered.
    ///
    /// # Errors
    /// There is an unknown key, and `strict` is set: exit 4.
    pub async fn check_keys(&self, effective: &mut Effective, cards: &[Card], strict: bool) -> Result<(), Failure> {
        let mut known = BTreeSet::new();
        let tree = self.setup.tree.display().to_string();
        let described: Vec<_> = cards.iter().map(discover::write_card).collect();
        let builders =
            self.setup.plugins.all(Kind::Builder).map_err(|error| Failure::of_plugin(Exit::Build, &error))?;
        for builder in builders {
            // A tree whose definitions cannot be read has no keys; building will say what is wrong with it.
            known.extend(builder.context_keys(&self.session(), &tree, &described).await.unwrap_or_default());
        }
        effective.check_keys(&known, strict).map_err(|error| of_configuration(&error))?;
        for warning in effective.warnings() {
            self.events.say(Gravity::Warning, "", warning);
        }
        Ok(())
    }

    /// Writes `run.json`: what was asked for, what came of it so far, and who attended it. What an earlier process wrote
    /// stays, but for what is said anew.
    pub fn record(&self, command: &str, state: &str, members: Map<String, Value>) {
        let now = jiff::Timestamp::now().to_string();
        let mut run = match self.directory.read_run() {
            Ok(Value::Object(run)) => run,
            _ => Map::from_iter([("v".to_owned(), json!(1)), ("started".to_owned(), json!(now))]),
        };
        let attendants = self.attendants(run.get("attendants"), state, &now);
        for (name, value) in [
            ("run", json!(self.directory.id().as_str())),
            ("command", json!(command)),
            ("state", json!(state)),
            ("time", json!(now)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("tree", json!(self.setup.tree)),
            ("output", json!(self.setup.output)),
            ("attendants", attendants),
        ] {
            run.insert(name.to_owned(), value);
        }
        run.extend(members);
        let run = self.redactor().json(&Value::Object(run));
        if let Err(error) = self.directory.write_run(&run) {
            self.events.say(Gravity::Error, "", format!("cannot write `run.json`: {error}"));
        }
    }

    /// Who attended the run, in order; of this process also until when, once it says more than that the run goes on.
    fn attendants(&self, earlier: Option<&Value>, state: &str, now: &str) -> Value {
        let mut all: Vec<Value> = earlier.and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(attendance) = &self.attendance else { return Value::Array(all) };
        let mut mine = json!(attendance.who);
        all.retain(|other| other.get("since") != mine.get("since") || other.get("process") != mine.get("process"));
        if let Some(mine) = mine.as_object_mut().filter(|_| state != "running") {
            mine.insert("until".to_owned(), json!(now));
            mine.insert("left_it".to_owned(), json!(state));
        }
        all.push(mine);
        Value::Array(all)
    }
}

fn cannot(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("cannot make a directory for this run: {error}"))
        .hint("runs are kept in `.maddock/runs` of the working directory, which must be writable")
}

/// Configuration errors end with 4.
pub fn of_configuration(error: &ConfigError) -> Failure {
    Failure::new(Exit::Arguments, error).maybe_hint(error.hint.clone())
}

/// Writes a JSON file that the user named, replaced as a whole.
///
/// # Errors
/// It cannot be written: exit 1.
pub fn write_json(path: &std::path::Path, value: &Value) -> Result<(), Failure> {
    let cannot =
        |error: std::io::Error| Failure::new(Exit::Failure, format!("cannot write `{}`: {error}", path.display()));
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(cannot)?;
    }
    crate::results::run_directory::replace_file(path, format!("{value:#}\n").as_bytes()).map_err(cannot)
}

/// A path that the user gave, made absolute against the working directory.
#[must_use]
pub fn absolute(output: &std::path::Path, path: &std::path::Path) -> PathBuf {
    output.join(path)
}
