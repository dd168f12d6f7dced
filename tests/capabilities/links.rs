//! Links that lead out of a root, among them such as are put there between the gate's answer and the act.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use maddock_bindings::api::files::{Host, HostLockedFile};
use maddock_bindings::api::types::ErrorKind;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{Place, again, kind, names, text};

/// How often a link is raced; without the check the first hundred see it.
const ATTEMPTS: usize = 4000;

#[test]
fn a_directory_that_becomes_a_link_at_any_moment_leads_nowhere() {
    let place = Place::new();
    let (door, away) = (place.run.join("door"), place.run.join("away"));
    fs::create_dir(&door).unwrap();
    fs::write(door.join("file"), "inside").unwrap();
    fs::write(place.outside.join("file"), "outside").unwrap();
    fs::write(place.outside.join("old"), "outside").unwrap();
    symlink(&place.outside, &away).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &door, CWD, &away, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let mut state = place.state();
                for attempt in 0..ATTEMPTS {
                    let (file, old) = (place.at("door/file"), place.at("door/old"));
                    if let Ok(bytes) = Host::read(&mut state, file, 99).await.unwrap() {
                        assert_eq!(bytes, b"inside", "attempt {attempt}");
                    }
                    if let Ok(Some(info)) = state.stat(old.clone()).await.unwrap() {
                        panic!("attempt {attempt} saw {info:?}");
                    }
                    if let Ok(entries) = state.list_directory(place.at("door")).await.unwrap() {
                        assert!(entries.iter().all(|entry| entry.name != "old"), "attempt {attempt}: {entries:?}");
                    }
                    let _ = state.write(place.at("door/new"), b"x".to_vec(), 0o600).await.unwrap();
                    let _ = state.make_directory(place.at("door/below/it")).await.unwrap();
                    let _ = state.remove(old).await.unwrap();
                    if let Ok(held) = state.lock(place.at("door/locked"), 0).await.unwrap() {
                        let _ = state.replace(again(&held), b"x".to_vec()).await.unwrap();
                        HostLockedFile::drop(&mut state, held).await.unwrap();
                    }
                }
            });
        }));
        over.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
    assert_eq!(names(&place.outside), ["file", "old"]);
    assert_eq!(fs::read(place.outside.join("file")).unwrap(), b"outside");
}

#[test]
fn a_copy_reads_and_writes_through_no_link_that_is_put_in_its_way() {
    let place = Place::new();
    let (door, away) = (place.run.join("door"), place.run.join("away"));
    fs::create_dir(&door).unwrap();
    for name in 0..8 {
        fs::write(door.join(name.to_string()), "inside").unwrap();
        fs::write(place.outside.join(name.to_string()), "outside").unwrap();
    }
    symlink(&place.outside, &away).unwrap();
    fs::create_dir(place.run.join("copy")).unwrap();
    fs::write(place.run.join("source"), "inside").unwrap();
    let before = names(&place.outside);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &door, CWD, &away, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let mut state = place.state();
                // Each is twenty files and more.
                for attempt in 0..ATTEMPTS / 10 {
                    let _ = state.copy(place.at("door"), place.at("copy")).await.unwrap();
                    for name in names(&place.run.join("copy")) {
                        let bytes = fs::read(place.run.join("copy").join(&name)).unwrap();
                        assert_eq!(bytes, b"inside", "attempt {attempt}: {name}");
                    }
                    let _ = state.copy(place.at("source"), place.at("door/9")).await.unwrap();
                }
            });
        }));
        over.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
    assert_eq!(names(&place.outside), before);
}

#[tokio::test]
async fn what_is_written_never_reaches_the_other_names_of_a_file() {
    let place = Place::new();
    let precious = place.outside.join("precious");
    fs::write(&precious, "mine").unwrap();
    fs::write(place.run.join("source"), "new").unwrap();
    let mut state = place.state();
    for name in ["written", "locked", "copied", "removed"] {
        fs::hard_link(&precious, place.run.join(name)).unwrap();
    }
    state.write(place.at("written"), b"new".to_vec(), 0o600).await.unwrap().unwrap();
    let held = state.lock(place.at("locked"), 0).await.unwrap().unwrap();
    state.replace(held, b"new".to_vec()).await.unwrap().unwrap();
    state.copy(place.at("source"), place.at("copied")).await.unwrap().unwrap();
    state.remove(place.at("removed")).await.unwrap().unwrap();
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
    assert_eq!(fs::metadata(&precious).unwrap().nlink(), 1);
    for name in ["written", "locked", "copied"] {
        assert_eq!(fs::read(place.run.join(name)).unwrap(), b"new", "{name}");
    }
}

#[tokio::test]
async fn a_file_that_somebody_else_has_linked_into_their_directory_is_not_opened() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make a directory another user's");
        return;
    }
    let place = Place::new();
    let secret = place.outside.join("secret");
    fs::write(&secret, "s").unwrap();
    let theirs = place.run.join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("single"), "fine").unwrap();
    for name in ["linked", ".rows.lock"] {
        fs::hard_link(&secret, theirs.join(name)).unwrap();
    }
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    let mut state = place.state();
    let error = Host::read(&mut state, place.at("theirs/linked"), 9).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Denied) && error.message.contains("3 names"), "{error:?}");
    for answer in [
        state.copy(place.at("theirs/linked"), place.at("copy")).await.unwrap().map(|()| Vec::new()),
        state.read_head(place.at("theirs/linked"), 9).await.unwrap(),
        state.read_from(place.at("theirs/linked"), 0, 9).await.unwrap(),
    ] {
        assert!(matches!(kind(answer), ErrorKind::Denied));
    }
    assert!(matches!(kind(state.lock(place.at("theirs/rows"), 0).await.unwrap()), ErrorKind::Denied));
    assert_eq!(Host::read(&mut state, place.at("theirs/single"), 9).await.unwrap().unwrap(), b"fine");
    // Both names in directories of the file's owner: nobody else can have made them.
    fs::write(place.run.join("one"), "own").unwrap();
    fs::hard_link(place.run.join("one"), place.run.join("two")).unwrap();
    assert_eq!(Host::read(&mut state, text(&place.run.join("two")), 9).await.unwrap().unwrap(), b"own");
}
