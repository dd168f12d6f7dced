//! `files` on real trees.

// What clippy.toml allows in tests does not reach the functions that tests share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod links;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use maddock::capability::ApiError;
use maddock::capability::testing::Setting;
use maddock::capability::trace::Trace;
use maddock::plugin::State;
use maddock_bindings::api::files::{FileKind, Host, HostLockedFile, LockedFile};
use maddock_bindings::api::types::ErrorKind;
use wasmtime::component::Resource;

struct Place {
    directory: tempfile::TempDir,
    run: PathBuf,
    outside: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (run, outside) = (root.join("run"), root.join("outside"));
        fs::create_dir(&run).unwrap();
        fs::create_dir(&outside).unwrap();
        Self { directory, run, outside }
    }

    fn at(&self, name: &str) -> String {
        text(&self.run.join(name))
    }

    /// With rules that allow all of `files`, inside of the run's directory.
    fn state(&self) -> State {
        let rules = "schema = 1\n[[allow]]\nplugin = \"test\"\ncalls = [\"files.*\"]\nscope.path = [\"$run/**\"]\n";
        Setting { rules: rules.to_owned(), ..Setting::in_directory(&self.run) }.state().unwrap()
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn kind(answer: Result<impl Sized, ApiError>) -> ErrorKind {
    answer.err().expect("an error").kind
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_written_is_read_with_its_mode_and_nothing_temporary_stays() {
    let place = Place::new();
    let mut state = place.state();
    let path = place.at("a/b/file");
    state.write(path.clone(), b"one".to_vec(), 0o755).await.unwrap().unwrap();
    state.write(path.clone(), b"two!".to_vec(), 0o440).await.unwrap().unwrap();
    assert_eq!(Host::read(&mut state, path.clone(), 4).await.unwrap().unwrap(), b"two!");
    assert_eq!(state.read_head(path.clone(), 3).await.unwrap().unwrap(), b"two");
    assert!(matches!(kind(Host::read(&mut state, path.clone(), 3).await.unwrap()), ErrorKind::InvalidInput));
    let info = state.stat(path.clone()).await.unwrap().unwrap().unwrap();
    assert_eq!((info.kind, info.size, info.mode), (FileKind::File, 4, 0o440));
    assert_eq!(names(&place.run.join("a/b")), ["file"]);
    assert!(matches!(kind(state.write(path, Vec::new(), 0o4755).await.unwrap()), ErrorKind::InvalidInput));
    let info = state.stat(place.at("a")).await.unwrap().unwrap().unwrap();
    assert_eq!((info.kind, info.size), (FileKind::Directory, 0));
    assert!(state.stat(place.at("a/b/file/below")).await.unwrap().unwrap().is_none());
    assert!(state.stat(place.at("none")).await.unwrap().unwrap().is_none());
    assert!(matches!(kind(Host::read(&mut state, place.at("none"), 9).await.unwrap()), ErrorKind::NotFound));
    assert!(matches!(kind(state.write(place.at("a"), Vec::new(), 0o644).await.unwrap()), ErrorKind::Conflict));
}

#[tokio::test]
async fn a_link_out_of_the_root_is_refused_by_every_call() {
    let place = Place::new();
    fs::write(place.outside.join("secret"), "s").unwrap();
    symlink(place.outside.join("secret"), place.run.join("file")).unwrap();
    symlink(&place.outside, place.run.join("directory")).unwrap();
    let mut state = place.state();
    for path in [place.at("file"), place.at("directory/secret"), text(&place.outside.join("secret"))] {
        assert!(matches!(kind(state.stat(path.clone()).await.unwrap()), ErrorKind::Denied));
        assert!(matches!(kind(Host::read(&mut state, path.clone(), 9).await.unwrap()), ErrorKind::Denied));
        assert!(matches!(kind(state.read_head(path.clone(), 9).await.unwrap()), ErrorKind::Denied));
        assert!(matches!(kind(state.write(path.clone(), vec![1], 0o644).await.unwrap()), ErrorKind::Denied));
        assert!(matches!(kind(state.lock(path.clone(), 0).await.unwrap()), ErrorKind::Denied));
        assert!(matches!(kind(state.copy(path.clone(), place.at("copy")).await.unwrap()), ErrorKind::Denied));
    }
    let new = place.at("directory/new/one");
    assert!(matches!(kind(state.make_directory(new.clone()).await.unwrap()), ErrorKind::Denied));
    assert!(matches!(kind(state.write(new, vec![1], 0o644).await.unwrap()), ErrorKind::Denied));
    assert!(matches!(kind(state.list_directory(place.at("directory")).await.unwrap()), ErrorKind::Denied));
    assert!(matches!(kind(state.remove(place.at("directory/secret")).await.unwrap()), ErrorKind::Denied));
    assert_eq!(names(&place.outside), ["secret"]);
    assert_eq!(fs::read(place.outside.join("secret")).unwrap(), b"s");
}

#[tokio::test]
async fn a_path_that_cannot_be_resolved_says_so_only_to_who_may_ask() {
    let place = Place::new();
    for directory in [&place.run, &place.outside] {
        symlink("loop", directory.join("loop")).unwrap();
    }
    let mut state = place.state();
    assert!(matches!(kind(state.stat(place.at("loop")).await.unwrap()), ErrorKind::Failed));
    assert!(matches!(kind(state.stat(text(&place.outside.join("loop"))).await.unwrap()), ErrorKind::Denied));
}

#[tokio::test]
async fn odd_paths_are_invalid_input() {
    let place = Place::new();
    let mut state = place.state();
    for path in [String::new(), "relative".to_owned(), place.at("../run/x"), place.at("a\0b")] {
        assert!(matches!(kind(state.stat(path.clone()).await.unwrap()), ErrorKind::InvalidInput), "{path:?}");
        assert!(matches!(kind(state.remove(path).await.unwrap()), ErrorKind::InvalidInput));
    }
}

#[tokio::test]
async fn a_pipe_is_refused_and_not_waited_for() {
    let place = Place::new();
    let pipe = place.run.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600), 0).unwrap();
    let mut state = place.state();
    assert!(matches!(kind(Host::read(&mut state, text(&pipe), 9).await.unwrap()), ErrorKind::InvalidInput));
    assert_eq!(state.stat(text(&pipe)).await.unwrap().unwrap().unwrap().kind, FileKind::Other);
}

#[tokio::test]
async fn a_directory_is_listed_by_name_with_links_as_what_they_point_to() {
    let place = Place::new();
    fs::create_dir(place.run.join("b")).unwrap();
    for name in ["c", "a", "Z"] {
        fs::write(place.run.join(name), "").unwrap();
    }
    symlink("b", place.run.join("d")).unwrap();
    symlink("nowhere", place.run.join("dangling")).unwrap();
    symlink("loop", place.run.join("loop")).unwrap();
    let entries = place.state().list_directory(text(&place.run)).await.unwrap().unwrap();
    let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    let (file, directory) = (FileKind::File, FileKind::Directory);
    assert_eq!(entries, [("Z", file), ("a", file), ("b", directory), ("c", file), ("d", directory)]);
}

#[tokio::test]
async fn remove_follows_no_link_and_spares_roots() {
    let place = Place::new();
    let mut state = Setting::in_directory(&place.run).state().unwrap();
    fs::write(place.outside.join("kept"), "").unwrap();
    symlink(&place.outside, place.run.join("link")).unwrap();
    fs::create_dir_all(place.run.join("tree/deep")).unwrap();
    symlink(&place.outside, place.run.join("tree/deep/link")).unwrap();
    for path in [place.at("link/"), place.at("tree"), place.at("tree"), place.at("never/was")] {
        state.remove(path).await.unwrap().unwrap();
    }
    assert!(names(&place.run).is_empty());
    assert_eq!(names(&place.outside), ["kept"]);
    for path in ["/", "//", "/.", &text(&place.run), &text(place.directory.path())] {
        assert!(matches!(kind(state.remove(path.to_owned()).await.unwrap()), ErrorKind::InvalidInput), "{path}");
    }
    assert!(place.run.exists());
}

fn tree(place: &Place) -> PathBuf {
    let source = place.run.join("source");
    fs::create_dir_all(source.join("sub/empty")).unwrap();
    fs::write(source.join("run.sh"), "#!/bin/bash\n").unwrap();
    fs::set_permissions(source.join("run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(source.join("sub/data"), vec![7; 300_000]).unwrap();
    fs::set_permissions(source.join("sub"), fs::Permissions::from_mode(0o555)).unwrap();
    source
}

#[tokio::test]
async fn a_copy_dereferences_links_and_keeps_permissions() {
    let place = Place::new();
    let source = tree(&place);
    fs::create_dir(place.run.join("outer")).unwrap();
    fs::write(place.run.join("outer/lib"), "lib").unwrap();
    symlink("../outer", source.join("outer")).unwrap();
    symlink("run.sh", source.join("alias.sh")).unwrap();
    symlink("nowhere", source.join("dangling")).unwrap();
    let mut state = place.state();
    let copy = place.run.join("new/copy");
    state.copy(text(&source), text(&copy)).await.unwrap().unwrap();
    assert_eq!(names(&copy), ["alias.sh", "outer", "run.sh", "sub"]);
    assert!(!copy.join("outer").is_symlink() && !copy.join("alias.sh").is_symlink());
    assert_eq!(fs::read(copy.join("outer/lib")).unwrap(), b"lib");
    assert_eq!(fs::read(copy.join("sub/data")).unwrap(), vec![7; 300_000]);
    assert!(copy.join("sub/empty").is_dir());
    assert_eq!((mode(copy.join("run.sh")), mode(copy.join("alias.sh")), mode(copy.join("sub"))), (0o750, 0o750, 0o555));

    // Again over what is there: files are replaced, others stay, and a link there is not written through.
    fs::write(copy.join("run.sh"), "old").unwrap();
    fs::write(copy.join("mine"), "mine").unwrap();
    fs::remove_file(copy.join("alias.sh")).unwrap();
    symlink(copy.join("mine"), copy.join("alias.sh")).unwrap();
    state.copy(text(&source), text(&copy)).await.unwrap().unwrap();
    assert_eq!(fs::read(copy.join("run.sh")).unwrap(), b"#!/bin/bash\n");
    assert_eq!(fs::read(copy.join("mine")).unwrap(), b"mine");

    // One file.
    state.copy(place.at("source/alias.sh"), place.at("one/file")).await.unwrap().unwrap();
    assert_eq!(fs::read(place.run.join("one/file")).unwrap(), b"#!/bin/bash\n");
    for directory in [source.join("sub"), copy.join("sub")] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn a_link_in_a_tree_pulls_in_nothing_that_may_not_be_read_and_nothing_is_half_copied() {
    let place = Place::new();
    let source = tree(&place);
    fs::create_dir(place.outside.join("below")).unwrap();
    fs::write(place.outside.join("below/secret"), "s").unwrap();
    let mut state = place.state();
    for target in [place.outside.clone(), place.outside.join("below/secret")] {
        symlink(&target, source.join("zz")).unwrap();
        let error = state.copy(text(&source), place.at("copy")).await.unwrap().unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Denied) && error.message.contains("outside/below/secret"), "{error:?}");
        assert!(!place.run.join("copy").exists());
        fs::remove_file(source.join("zz")).unwrap();
    }
    fs::set_permissions(source.join("sub"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_copy_does_not_write_through_a_link_of_the_destination() {
    let place = Place::new();
    fs::create_dir_all(place.run.join("source/sub")).unwrap();
    fs::write(place.run.join("source/sub/file"), "new").unwrap();
    fs::create_dir(place.run.join("copy")).unwrap();
    symlink(&place.outside, place.run.join("copy/sub")).unwrap();
    let answer = place.state().copy(place.at("source"), place.at("copy")).await.unwrap();
    assert!(matches!(kind(answer), ErrorKind::Conflict));
    assert!(names(&place.outside).is_empty());
}

#[tokio::test]
async fn loops_of_links_and_copies_into_themselves_end_with_an_error() {
    let place = Place::new();
    fs::create_dir_all(place.run.join("up/down")).unwrap();
    symlink("..", place.run.join("up/down/up")).unwrap();
    fs::create_dir(place.run.join("self")).unwrap();
    symlink("self", place.run.join("self/self")).unwrap();
    let mut state = place.state();
    let error = state.copy(place.at("up"), place.at("copy")).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::InvalidInput) && error.message.contains("leads back"), "{error:?}");
    assert!(state.copy(place.at("self"), place.at("copy")).await.unwrap().is_err());
    assert!(matches!(
        kind(state.copy(place.at("up"), place.at("up/down/copy")).await.unwrap()),
        ErrorKind::InvalidInput
    ));
    assert!(matches!(kind(state.copy(place.at("none"), place.at("copy")).await.unwrap()), ErrorKind::NotFound));
    assert!(!place.run.join("copy").exists());
}

#[tokio::test]
async fn a_chain_of_links_is_followed_only_so_deep() {
    let place = Place::new();
    for level in 0..2000 {
        fs::create_dir(place.run.join(level.to_string())).unwrap();
        symlink(format!("../{}", level + 1), place.run.join(format!("{level}/next"))).unwrap();
    }
    let error = place.state().copy(place.at("0"), place.at("copy")).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Failed) && error.message.contains("levels deep"), "{error:?}");
}

fn again(file: &Resource<LockedFile>) -> Resource<LockedFile> {
    Resource::new_own(file.rep())
}

#[tokio::test]
async fn a_second_lock_times_out_naming_the_file_until_the_first_is_dropped() {
    let place = Place::new();
    let (mut one, mut two) = (place.state(), place.state());
    let path = place.at("rows/perf.csv");
    let held = one.lock(path.clone(), 0).await.unwrap().unwrap();
    let error = two.lock(path.clone(), 30).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::TimedOut) && error.message.contains("perf.csv"), "{error:?}");
    assert!(HostLockedFile::read(&mut one, again(&held), 9).await.unwrap().unwrap().is_none());
    one.replace(again(&held), b"rows".to_vec()).await.unwrap().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    one.replace(again(&held), b"more".to_vec()).await.unwrap().unwrap();
    assert_eq!(mode(&path), 0o604);
    assert!(matches!(kind(HostLockedFile::read(&mut one, again(&held), 3).await.unwrap()), ErrorKind::InvalidInput));
    HostLockedFile::drop(&mut one, held).await.unwrap();
    let held = two.lock(path, 0).await.unwrap().unwrap();
    assert_eq!(HostLockedFile::read(&mut two, held, 9).await.unwrap().unwrap().unwrap(), b"more");
    assert_eq!(names(&place.run.join("rows")), [".perf.csv.lock", "perf.csv"]);
}

#[test]
fn no_change_is_lost_among_many_who_lock() {
    let place = Place::new();
    let path = place.at("count");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut state = place.state();
                    for _ in 0..10 {
                        let held = state.lock(path.clone(), 60_000).await.unwrap().unwrap();
                        let text = HostLockedFile::read(&mut state, again(&held), 99).await.unwrap().unwrap();
                        let count: u32 = text.map_or(0, |text| String::from_utf8(text).unwrap().parse().unwrap());
                        state.replace(again(&held), (count + 1).to_string().into_bytes()).await.unwrap().unwrap();
                        HostLockedFile::drop(&mut state, held).await.unwrap();
                    }
                });
            });
        }
        // Who reads without the lock sees whole contents only.
        scope.spawn(
            || {
                while fs::read_to_string(&path).is_ok_and(|text| text != "80" && text.parse::<u32>().is_ok()) {}
            },
        );
    });
    assert_eq!(fs::read_to_string(&path).unwrap(), "80");
}

#[tokio::test]
async fn the_trace_tells_the_place_that_was_touched() {
    let place = Place::new();
    fs::write(place.run.join("real"), "r").unwrap();
    symlink("real", place.run.join("link")).unwrap();
    let file = place.outside.join("trace");
    let trace = Trace::to_file(&file, "r").unwrap();
    let mut state = Setting { trace, ..Setting::in_directory(&place.run) }.state().unwrap();
    Host::read(&mut state, place.at("link"), 9).await.unwrap().unwrap();
    let trace = fs::read_to_string(file).unwrap();
    assert!(trace.contains("\"files.read\"") && trace.contains("/run/real\"") && !trace.contains("link"), "{trace}");
}
