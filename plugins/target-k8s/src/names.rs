//! Names of objects, as a cluster takes them: one label of DNS, the same for the same job of the same run and no other.

use sha2::{Digest, Sha256};

/// Pods of an Indexed Job are called `NAME-INDEX`, and that is a host's name of 63 letters at most.
const LONGEST: usize = 52;
/// Letters of the digest that tell jobs of equal models apart.
const SUFFIX: usize = 10;
/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// The base name of a job's objects: the model's name for a reader, the rest for uniqueness.
#[must_use]
pub fn base(model: &str, run: &str, job: &str) -> String {
    let digest = Sha256::digest(format!("{run}/{job}"));
    let suffix: String =
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().chars().take(SUFFIX).collect();
    let room = LONGEST - "madengine-".len() - 1 - SUFFIX;
    let plain = plain(model, |letter| letter.is_ascii_alphanumeric());
    let cut: String = plain.chars().take(room).collect();
    let model = match cut.trim_matches('-') {
        "" => "model",
        cut => cut,
    };
    format!("madengine-{model}-{suffix}")
}

/// A model's name as the value of a label.
#[must_use]
pub fn label(model: &str) -> String {
    let plain = plain(model, |letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_'));
    let cut: String = plain.trim_matches(['-', '.', '_']).chars().take(LONGEST_LABEL).collect();
    match cut.trim_matches(['-', '.', '_']) {
        "" => "model".to_owned(),
        cut => cut.to_owned(),
    }
}

/// The end of a file's name as the end of a key of a ConfigMap.
#[must_use]
pub fn key(number: usize, path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let kept: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-') { letter } else { '-' })
        .take(100)
        .collect();
    format!("{number:05}-{kept}")
}

/// Lower case, with one `-` for whatever is not `kept`.
fn plain(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut plain = String::new();
    for letter in text.chars().flat_map(char::to_lowercase) {
        if kept(letter) {
            plain.push(letter);
        } else if !plain.ends_with('-') {
            plain.push('-');
        }
    }
    plain.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 12] = [
        "",
        "-",
        "--rm -rf",
        "dummy",
        "primus_pretrain/llama3.1_8b",
        "..",
        "$(id)`id`;\n",
        "ÜNÏCÖDE 日本",
        "A.B.C",
        "a--b",
        "x...........................................................................................................y",
        "bert-large-uncased-whole-word-masking-finetuned-squad-and-more",
    ];

    fn is_dns_label(name: &str) -> bool {
        (1..=63).contains(&name.len())
            && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
            && !name.starts_with('-')
            && !name.ends_with('-')
    }

    #[test]
    fn every_model_s_name_makes_a_label_of_dns_with_room_for_an_index() {
        for model in HOSTILE {
            let name = base(model, "20260101-000000-abcd", "0-x");
            assert!(is_dns_label(&name) && name.len() <= LONGEST, "{model:?}: {name}");
            assert!(is_dns_label(&format!("{name}-9999")), "{name}");
            assert!(!name.contains("--"), "{name}");
        }
    }

    #[test]
    fn every_model_s_name_makes_a_value_of_a_label() {
        for model in HOSTILE {
            let label = label(model);
            let ends = |letter: char| letter.is_ascii_alphanumeric();
            assert!((1..=63).contains(&label.len()), "{model:?}: {label}");
            assert!(label.starts_with(ends) && label.ends_with(ends), "{model:?}: {label}");
            assert!(label.chars().all(|letter| ends(letter) || "-._".contains(letter)), "{model:?}: {label}");
        }
        assert_eq!(label("primus_pretrain/Llama3.1"), "primus_pretrain-llama3.1");
    }

    #[test]
    fn no_two_jobs_share_a_name() {
        let name = base("dummy", "r1", "0-dummy");
        assert_eq!(name, base("dummy", "r1", "0-dummy"));
        assert_ne!(name, base("dummy", "r2", "0-dummy"));
        assert_ne!(name, base("dummy", "r1", "1-dummy"));
        let long = "m".repeat(80);
        assert_ne!(base(&format!("{long}a"), "r1", "0-m"), base(&format!("{long}b"), "r1", "1-m"));
    }

    #[test]
    fn keys_tell_files_apart_whose_names_would_collide() {
        assert_ne!(key(1, "a/b-c"), key(2, "a-b/c"));
        for name in ["a b$(id)", "日本", "x\ny", ""] {
            let key = key(7, name);
            assert!(key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter)), "{key}");
        }
    }
}
