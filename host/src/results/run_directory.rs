//! The directory that a run has for itself, `<output>/.maddock/runs/<run id>/`, and the files in it.
//!
//! A run never writes into another's directory: the directory is made exclusively, and an id that is taken is not used
//! again. Files that others read while we write are replaced whole, by renaming.

use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::redact::Redactor;

/// Characters of a job id at most.
const JOB_ID: usize = 40;
/// Bytes of a file name at most, on the file systems that there are.
const FILE_NAME: usize = 255;
/// How many ids are tried before making a run directory is given up.
const TRIES: u32 = 64;
/// What came of a job, in its directory; it is there once the job has its verdict.
pub const JOB_FILE: &str = "job.json";
/// What a run says while its attendant has no terminal.
pub const CONSOLE_FILE: &str = "console.log";
/// Version of `events.jsonl`.
pub const EVENTS_VERSION: u32 = 1;

/// The name of a run: sorts by time, and fits paths and labels (`[a-z0-9-]`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// An id from a time and a random number.
    #[must_use]
    pub fn new(now: Timestamp, random: u64) -> Self {
        let time = now.strftime("%Y%m%d-%H%M%S");
        let mut rest = random;
        let letters: String = (0..4)
            .map(|_| {
                let letter = u8::try_from(rest % 26).unwrap_or(0);
                rest /= 26;
                char::from(b'a' + letter)
            })
            .collect();
        Self(format!("{time}-{letters}"))
    }

    /// An id that somebody typed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let edges = text.starts_with('-') || text.ends_with('-');
        (fits && !edges && !text.is_empty() && text.len() <= JOB_ID).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number that differs from call to call and from process to process. Not for secrets.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A run's own directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory {
    id: RunId,
    path: PathBuf,
}

fn runs(output: &Path) -> PathBuf {
    output.join(".maddock").join("runs")
}

impl RunDirectory {
    /// Makes a directory of its own for a run that begins now. `random` is asked for a number for each id that is tried.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(output: &Path, now: Timestamp, mut random: impl FnMut() -> u64) -> io::Result<Self> {
        let runs = runs(output);
        fs::create_dir_all(&runs)?;
        let ignore = output.join(".maddock").join(".gitignore");
        if !ignore.exists() {
            replace_file(&ignore, b"*\n")?;
        }
        for _ in 0..TRIES {
            let id = RunId::new(now, random());
            let path = runs.join(id.as_str());
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::create_dir(path.join("jobs"))?;
                    return Ok(Self { id, path: fs::canonicalize(path)? });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("no free run id in `{}`", runs.display())))
    }

    /// The directory of an earlier run.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn open(output: &Path, id: &RunId) -> io::Result<Self> {
        let path = fs::canonicalize(runs(output).join(id.as_str()))?;
        Ok(Self { id: id.clone(), path })
    }

    /// The run whose directory this is.
    ///
    /// # Errors
    /// It is none.
    pub fn at(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let id = path.file_name().and_then(|name| name.to_str()).and_then(RunId::parse);
        id.map(|id| Self { id, path }).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// The ids of the runs in an output directory, oldest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(output: &Path) -> io::Result<Vec<RunId>> {
        let entries = match fs::read_dir(runs(output)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<RunId> = names.filter_map(|name| RunId::parse(&name)).collect();
        ids.sort();
        Ok(ids)
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Absolute, links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces `run.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_run(&self, run: &Value) -> io::Result<()> {
        replace_file(&self.path.join("run.json"), format!("{run:#}\n").as_bytes())
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    /// It is not there, or not JSON.
    pub fn read_run(&self) -> io::Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.path.join("run.json"))?)?)
    }

    /// Opens `events.jsonl` for appending.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn events(&self, redactor: Redactor) -> io::Result<EventLog> {
        let file = File::options().create(true).append(true).open(self.path.join("events.jsonl"))?;
        Ok(EventLog { file: Mutex::new(file), redactor })
    }

    /// Makes the directory of a job.
    ///
    /// # Errors
    /// It cannot be made, or is there already.
    pub fn create_job(&self, job_id: &str) -> io::Result<PathBuf> {
        let path = self.job_path(job_id)?;
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Whether a job has its verdict.
    #[must_use]
    pub fn is_recorded(&self, job_id: &str) -> bool {
        self.job_path(job_id).is_ok_and(|path| path.join(JOB_FILE).exists())
    }

    /// The directory of a job, whether it is there or not.
    ///
    /// # Errors
    /// The id could lead elsewhere.
    pub fn job_path(&self, job_id: &str) -> io::Result<PathBuf> {
        if !is_job_id(job_id) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{job_id}` is not a job id")));
        }
        Ok(self.path.join("jobs").join(job_id))
    }
}

/// Whether a text can be the id of a job, and so the name of a file that leads nowhere else.
#[must_use]
pub fn is_job_id(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    !text.is_empty() && !text.starts_with(['.', '-']) && text.chars().all(fits)
}

/// The id of the n-th job of a run, after its model: `[a-z0-9][a-z0-9.-]*`, fit for a label's value.
#[must_use]
pub fn job_id(number: usize, model: &str) -> String {
    let mut id = format!("{number}-");
    for c in model.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' };
        if !(matches!(c, '-' | '.') && id.ends_with(['-', '.'])) {
            id.push(c);
        }
    }
    id.truncate(JOB_ID);
    id.truncate(id.trim_end_matches(['-', '.']).len());
    id
}

/// The compatible name of a run log, from the model's name and the image's reference.
#[must_use]
pub fn run_log_name(model: &str, image: &str) -> String {
    const ENDING: &str = ".run.live.log";
    let model = model.replace('/', "_");
    let part = image_part(image);
    let part = part.strip_prefix(&format!("{}_", model.to_lowercase())).unwrap_or(&part);
    let mut name: String =
        format!("{model}_{part}").chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }).collect();
    let mut longest = FILE_NAME - ENDING.len();
    while !name.is_char_boundary(longest.min(name.len())) {
        longest -= 1;
    }
    name.truncate(longest);
    name + ENDING
}

/// The part of a reference that log names have.
fn image_part(image: &str) -> String {
    let reference = image.split('@').next().unwrap_or_default();
    let last = reference.rsplit('/').next().unwrap_or_default();
    let part = match last.split_once(':') {
        Some((_, tag)) if tag.starts_with("ci-") => tag.to_owned(),
        _ => reference.replace(['/', ':'], "_"),
    };
    part.replace("ci-", "")
}

/// Shows a file of the run under its compatible name in the output directory: a hard link, or a copy where the file system
/// has none. An older file of that name is replaced.
///
/// # Errors
/// Neither works.
pub fn publish(source: &Path, output: &Path, name: &str) -> io::Result<PathBuf> {
    let destination = output.join(name);
    let place = tempfile::Builder::new().prefix(".maddock-").tempdir_in(output)?;
    let temporary = place.path().join("log");
    if fs::hard_link(source, &temporary).is_err() {
        fs::copy(source, &temporary)?;
    }
    // Renaming one link of a file over another of the same file does nothing; the directory goes with what is left in it.
    fs::rename(&temporary, &destination)?;
    Ok(destination)
}

/// Replaces a file as a whole: readers see the old or the new content, never a part.
///
/// # Errors
/// The file cannot be written; the old content is still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Readable as the umask says: what is replaced is meant to be read by others.
    replace(path, bytes, 0o666)
}

/// The same for what only its owner should read.
///
/// # Errors
/// The file cannot be written; the old content is still there.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = Permissions::from_mode(mode);
    let mut file = tempfile::Builder::new().prefix(".maddock-").permissions(permissions).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// `events.jsonl`: what happened, one JSON object a line.
#[derive(Debug)]
pub struct EventLog {
    file: Mutex<File>,
    redactor: Redactor,
}

impl EventLog {
    /// Appends one event with one write, so that lines of several writers never mix.
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn append(&self, now: Timestamp, event: &str, fields: &Map<String, Value>) -> io::Result<()> {
        let mut line = json!({ "v": EVENTS_VERSION, "time": now.to_string(), "event": event });
        if let (Some(line), Value::Object(fields)) =
            (line.as_object_mut(), self.redactor.json(&Value::Object(fields.clone())))
        {
            for (name, value) in fields {
                line.entry(name).or_insert(value);
            }
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn noon() -> Timestamp {
        "2026-11-23T12:00:05Z".parse().unwrap()
    }

    #[test]
    fn ids_sort_by_time_and_fit_labels() {
        assert_eq!(RunId::new(noon(), 27).as_str(), "20261123-120005-bbaa");
        let later = RunId::new("2026-11-23T12:00:06Z".parse().unwrap(), 0);
        assert!(RunId::new(noon(), u64::MAX) < later);
        assert_eq!(RunId::parse(later.as_str()), Some(later));
        for wrong in ["", "..", "a/b", "A", "a_b", "-a", "a-"] {
            assert_eq!(RunId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_id_that_is_taken_is_not_used_again() {
        let output = tempfile::tempdir().unwrap();
        let first = RunDirectory::create(output.path(), noon(), || 1).unwrap();
        fs::write(first.path().join("mine"), "x").unwrap();
        let mut numbers = [1, 1, 2].into_iter();
        let second = RunDirectory::create(output.path(), noon(), || numbers.next().unwrap()).unwrap();
        assert_ne!(first.id(), second.id());
        assert!(!second.path().join("mine").exists());
        assert_eq!(RunDirectory::create(output.path(), noon(), || 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(RunDirectory::list(output.path()).unwrap(), [first.id().clone(), second.id().clone()]);
        assert_eq!(RunDirectory::open(output.path(), first.id()).unwrap(), first);
        assert_eq!(fs::read_to_string(output.path().join(".maddock/.gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn many_runs_at_once_have_directories_of_their_own() {
        let output = tempfile::tempdir().unwrap();
        let ids: Vec<RunId> = std::thread::scope(|scope| {
            let create = || RunDirectory::create(output.path(), noon(), random).unwrap().id().clone();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn run_json_is_replaced_whole_and_leaves_nothing_behind() {
        let output = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(output.path(), noon(), random).unwrap();
        run.write_run(&json!({"a": 1})).unwrap();
        run.write_run(&json!({"a": 2})).unwrap();
        assert_eq!(run.read_run().unwrap(), json!({"a": 2}));
        let mut names: Vec<_> = fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["jobs", "run.json"]);
    }

    #[test]
    fn events_are_lines_without_secrets() {
        let output = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(output.path(), noon(), random).unwrap();
        let events = run.events(Redactor::new(["hun\"ter2"])).unwrap();
        let fields = json!({"message": "x hun\"ter2\ny", "v": 9});
        events.append(noon(), "log", fields.as_object().unwrap()).unwrap();
        run.events(Redactor::default()).unwrap().append(noon(), "end", &Map::new()).unwrap();
        let text = fs::read_to_string(run.path().join("events.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], json!({"v": 1, "time": "2026-11-23T12:00:05Z", "event": "log", "message": "x ***\ny"}));
        assert_eq!(lines[1]["event"], "end");
    }

    #[test]
    fn job_ids_are_safe_and_short() {
        assert_eq!(job_id(1, "dummy"), "1-dummy");
        assert_eq!(job_id(12, "Primus_Pretrain/Llama 3.1"), "12-primus-pretrain-llama-3.1");
        assert_eq!(job_id(3, "../../etc"), "3-etc");
        assert_eq!(job_id(4, ""), "4");
        assert_eq!(job_id(5, &"x-".repeat(60)).len(), 39);
        let output = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(output.path(), noon(), random).unwrap();
        assert!(run.create_job("1-dummy").unwrap().is_dir());
        assert_eq!(run.create_job("1-dummy").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for wrong in ["..", ".", "", "a/b", "A"] {
            assert!(run.job_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn run_logs_have_their_compatible_names() {
        for (model, image, name) in [
            ("dummy", "ci-dummy_dummy.ubuntu.x86", "dummy_dummy.ubuntu.x86.run.live.log"),
            ("m", "ubuntu:22.04", "m_ubuntu_22.04.run.live.log"),
            ("dummy", "localhost:5000/ci-dummy_x", "dummy_localhost_5000_dummy_x.run.live.log"),
            ("dummy", "registry.example/repo:ci-dummy_x@sha256:0123", "dummy_x.run.live.log"),
            ("dummy2/Model1", "ci-dummy2_model1_dummy.ubuntu.x86", "dummy2_Model1_dummy.ubuntu.x86.run.live.log"),
            ("m", "a/b@sha256:00", "m_a_b.run.live.log"),
        ] {
            assert_eq!(run_log_name(model, image), name);
        }
    }

    #[test]
    fn a_published_log_replaces_an_older_one_and_twice_is_once() {
        let output = tempfile::tempdir().unwrap();
        let source = output.path().join("source");
        fs::write(&source, "new").unwrap();
        fs::write(output.path().join("x.log"), "old").unwrap();
        for _ in 0..2 {
            let published = publish(&source, output.path(), "x.log").unwrap();
            assert_eq!(fs::read_to_string(&published).unwrap(), "new");
            assert_eq!(fs::metadata(&published).unwrap().ino(), fs::metadata(&source).unwrap().ino());
        }
        assert_eq!(fs::read_dir(output.path()).unwrap().count(), 2);
        assert!(publish(&output.path().join("none"), output.path(), "y.log").is_err());
        assert_eq!(fs::read_dir(output.path()).unwrap().count(), 2);
    }

    proptest! {
        #[test]
        fn any_model_and_image_have_usable_names(model in ".{0,300}", image in ".{0,300}") {
            let name = run_log_name(&model, &image);
            prop_assert!(name.len() <= FILE_NAME && !name.contains('/') && !name.chars().any(char::is_control) && name.ends_with(".run.live.log"));
            let id = job_id(7, &model);
            prop_assert!(id.len() <= JOB_ID && id.starts_with('7') && !id.ends_with(['-', '.']) && !id.contains(".."));
            prop_assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-'));
        }
    }
}
