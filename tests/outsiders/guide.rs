//! The guide for authors and the READMEs of the outsiders, followed word for word by a newcomer.

use crate::workshop::{copy, has_componentize, newcomer, repository};

const IN_PYTHON: &str = "A reporter, in Python";
const LATER: &str = "A later version";

#[test]
fn the_guide_is_true() {
    let home = tempfile::tempdir().unwrap();
    let guide = repository().join("docs/writing-plugins.md");
    let mut session = newcomer(home.path());
    session.follow(&guide, None, Some(IN_PYTHON));
    if has_componentize() {
        session.follow(&guide, Some(IN_PYTHON), Some(LATER));
    }
    session.follow(&guide, Some(LATER), None);
}

#[test]
fn the_queues_readme_is_true() {
    // Its tests build it at the same place, and are to have done so.
    crate::queue::built();
    follow_readme("target-queue");
}

#[test]
fn the_python_reporters_readme_is_true() {
    if has_componentize() {
        follow_readme("report-markdown");
    }
}

fn follow_readme(example: &str) {
    let home = tempfile::tempdir().unwrap();
    let project = copy(example);
    let mut session = newcomer(home.path());
    session.enter(&project);
    session.follow(&project.join("README.md"), None, None);
}
