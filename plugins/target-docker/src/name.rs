//! Names of containers: the one that scripts around upstream know, and one that no other run can have.

use maddock_sdk::target::Job;

/// `container_<image>`, as upstream names it, with all that an engine does not take as `_`.
pub fn compatible(image: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    let image: String = image.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
    format!("container_{image}")
}

/// The compatible name and what makes it this job's alone.
pub fn unique(image: &str, job: &Job) -> String {
    let letters: Vec<char> = job.run_id.chars().filter(char::is_ascii_alphanumeric).collect();
    let run: String = letters.iter().skip(letters.len().saturating_sub(12)).collect();
    let node = job.extra.iter().find(|entry| entry.name == "node").map(|entry| entry.value.as_str());
    // One node's share of a job that several have is named after its node, as upstream does.
    let end = node.filter(|node| node.bytes().all(|byte| byte.is_ascii_digit())).map(|node| format!("_node{node}"));
    let shared = node.and_then(|node| job.id.strip_suffix(&format!("-node{node}")));
    let id: String = shared
        .unwrap_or(&job.id)
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-'))
        .collect();
    format!("{}_{run}_{id}{}", compatible(image), end.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::job;

    #[test]
    fn the_compatible_name_is_upstreams() {
        assert_eq!(compatible("ci-dummy_dummy.ubuntu.amd"), "container_ci-dummy_dummy.ubuntu.amd");
        assert_eq!(compatible("localhost:5000/a/b:1"), "container_localhost_5000_a_b_1");
        assert_eq!(compatible("a@sha256:00"), "container_a_sha256_00");
    }

    #[test]
    fn a_share_is_named_after_its_node() {
        let mut share = job();
        share.extra.push(maddock_sdk::types::Entry { name: "node".into(), value: "3".into() });
        assert!(unique("i", &share).ends_with("_node3"), "{}", unique("i", &share));
    }

    #[test]
    fn two_runs_of_one_image_never_collide() {
        let mut one = job();
        one.run_id = "20250101-120000-1a2b".into();
        let mut other = one.clone();
        other.run_id = "20250101-120000-1a2c".into();
        assert_eq!(unique("i", &one), "container_i_011200001a2b_dummy");
        assert_ne!(unique("i", &one), unique("i", &other));
    }
}
