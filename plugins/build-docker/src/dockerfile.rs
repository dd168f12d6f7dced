//! What a Dockerfile's text says to the builder: its CONTEXT header, its base, its accelerators' vendor and architecture.
//!
//! It is read as lines, as upstream reads it; the instructions are the engine's to understand.

use maddock_sdk::serde_json::{Map, Value};

use crate::literal;

/// The build argument by which an architecture is chosen.
pub const ARCHITECTURE: &str = "MAD_SYSTEM_GPU_ARCHITECTURE";
const HEADER: &str = "# CONTEXT ";
/// A header stands in one of the first lines.
const HEADER_LINES: usize = 5;

/// The headers, merged; an empty one where there is none.
///
/// # Errors
/// A header that is not a Python dictionary.
pub fn header(text: &str) -> Result<Map<String, Value>, String> {
    let mut merged = Map::new();
    for line in text.lines().take(HEADER_LINES) {
        let Some((_, literal)) = line.split_once(HEADER) else { continue };
        match literal::parse(literal)? {
            Value::Object(members) => merged.extend(members),
            other => return Err(format!("`{other}` is no dictionary")),
        }
    }
    Ok(merged)
}

/// Whether a Dockerfile with that header is for that context: no key of both has another value.
pub fn matches(header: &Map<String, Value>, context: &Map<String, Value>) -> bool {
    header.iter().all(|(key, value)| context.get(key).is_none_or(|other| other == value))
}

/// The default of `ARG BASE_DOCKER=`.
pub fn base(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("ARG BASE_DOCKER=")).map(|value| unquoted(value).to_owned())
}

/// Whose accelerators the image is for: by the file's name, else by what its text speaks of.
pub fn vendor(path: &str, text: &str) -> &'static str {
    let path = path.to_ascii_lowercase();
    if path.contains(".amd.") {
        return "AMD";
    }
    if path.contains(".nvidia.") {
        return "NVIDIA";
    }
    // The processor architecture is no vendor of accelerators.
    let text = text.to_ascii_lowercase().replace("amd64", "");
    let speaks = |words: [&str; 2]| words.iter().any(|word| text.contains(word));
    if speaks(["rocm", "amd"]) {
        "AMD"
    } else if speaks(["nvidia", "cuda"]) {
        "NVIDIA"
    } else {
        ""
    }
}

/// What the text says of [`ARCHITECTURE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Architecture {
    /// Nothing.
    Unsaid,
    /// It is an argument without a default.
    Asked,
    /// It has a value.
    Set(String),
}

/// The architecture that the image is for unless one is given.
pub fn architecture(text: &str) -> Architecture {
    let mut found = Architecture::Unsaid;
    for line in text.lines() {
        let mut words = line.trim().splitn(2, char::is_whitespace);
        let (Some(instruction), Some(rest)) = (words.next(), words.next()) else { continue };
        if !["ARG", "ENV"].iter().any(|known| instruction.eq_ignore_ascii_case(known)) {
            continue;
        }
        let Some(rest) = rest.trim().strip_prefix(ARCHITECTURE) else { continue };
        if let Some(value) = rest.strip_prefix(['=', ' ']) {
            let value = unquoted(value);
            // `ENV X=${X}` repeats the argument and says nothing.
            if !value.is_empty() && !value.contains('$') {
                return Architecture::Set(value.to_owned());
            }
        } else if rest.is_empty() {
            found = Architecture::Asked;
        }
    }
    found
}

/// The architecture of a name that may be a product's.
pub fn normalise(name: &str) -> String {
    match name.trim().to_ascii_lowercase().as_str() {
        "mi100" => "gfx908",
        "mi200" | "mi210" | "mi250" => "gfx90a",
        "mi300" | "mi300a" => "gfx940",
        "mi300x" => "gfx942",
        _ => return name.trim().to_owned(),
    }
    .to_owned()
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.split(quote).next()) {
            return inner;
        }
    }
    value.split([' ', '\t', '#']).next().unwrap_or(value)
}

/// Whether the text declares a build argument of that name.
pub fn has_argument(text: &str, name: &str) -> bool {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("ARG "))
        .any(|rest| rest.split_whitespace().any(|word| word.split('=').next() == Some(name)))
}

/// Whether the text mounts a secret of that name.
pub fn has_secret(text: &str, name: &str) -> bool {
    text.split(|letter: char| letter.is_whitespace() || letter == ',').any(|word| {
        word.strip_prefix("id=")
            .or_else(|| word.strip_prefix("--mount=id="))
            .is_some_and(|id| id.trim_matches('"') == name)
    })
}

#[cfg(test)]
mod tests {
    use maddock_sdk::serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    #[test]
    fn a_header_stands_in_the_first_lines() {
        let header_of = |text: &str| header(text).unwrap();
        assert_eq!(header_of("# CONTEXT {'gpu_vendor': 'AMD'}\nFROM x"), object(json!({"gpu_vendor": "AMD"})));
        assert_eq!(header_of("\n\n\n\n# CONTEXT {'a': 1}\n"), object(json!({"a": 1})));
        assert!(header_of("\n\n\n\n\n# CONTEXT {'a': 1}\n").is_empty());
        assert!(header_of("FROM x\n").is_empty());
        assert!(header("# CONTEXT {'a': true}\n").is_err());
        assert!(header("# CONTEXT ['a']\n").is_err());
    }

    #[test]
    fn a_header_fits_unless_a_known_key_has_another_value() {
        let context = object(json!({"gpu_vendor": "AMD", "guest_os": "UBUNTU"}));
        let fits = |header: Value| matches(&object(header), &context);
        assert!(fits(json!({})));
        assert!(fits(json!({"gpu_vendor": "AMD", "unknown": "x"})));
        assert!(!fits(json!({"gpu_vendor": "amd"})));
        assert!(!fits(json!({"gpu_vendor": "AMD", "guest_os": "CENTOS"})));
    }

    #[test]
    fn the_base_is_the_arguments_default() {
        assert_eq!(base("ARG BASE_DOCKER=rocm/pytorch\nFROM $BASE_DOCKER").as_deref(), Some("rocm/pytorch"));
        assert_eq!(base("ARG BASE_DOCKER=\"a:1\" \n").as_deref(), Some("a:1"));
        assert_eq!(base("FROM x\n"), None);
    }

    #[test]
    fn the_vendor_is_in_the_name_or_in_the_text() {
        assert_eq!(vendor("docker/a.ubuntu.amd.Dockerfile", "cuda"), "AMD");
        assert_eq!(vendor("docker/a.nvidia.Dockerfile", "rocm"), "NVIDIA");
        assert_eq!(vendor("docker/a.Dockerfile", "FROM rocm/x"), "AMD");
        assert_eq!(vendor("docker/a.Dockerfile", "FROM nvcr.io/NVIDIA/x"), "NVIDIA");
        assert_eq!(vendor("docker/a.Dockerfile", "FROM --platform=linux/amd64 debian"), "");
    }

    #[test]
    fn the_architecture_is_an_argument_or_a_variable() {
        let of = architecture;
        assert_eq!(of("ARG MAD_SYSTEM_GPU_ARCHITECTURE=gfx90a"), Architecture::Set("gfx90a".into()));
        assert_eq!(of("  env MAD_SYSTEM_GPU_ARCHITECTURE \"gfx942\""), Architecture::Set("gfx942".into()));
        let both = "ARG MAD_SYSTEM_GPU_ARCHITECTURE\nENV MAD_SYSTEM_GPU_ARCHITECTURE=${MAD_SYSTEM_GPU_ARCHITECTURE}";
        assert_eq!(of(both), Architecture::Asked);
        assert_eq!(of("ARG MAD_SYSTEM_GPU_ARCHITECTURES=gfx90a"), Architecture::Unsaid);
        assert_eq!(normalise("MI300X"), "gfx942");
        assert_eq!(normalise("gfx1100"), "gfx1100");
    }

    #[test]
    fn arguments_and_secrets_are_found_by_their_whole_name() {
        let text = "ARG A_USERNAME\nARG X=1 A_TOKEN=\nRUN --mount=type=secret,id=A_PASSWORD,required cat\n";
        assert!(has_argument(text, "A_USERNAME") && has_argument(text, "A_TOKEN"));
        assert!(!has_argument(text, "A_USER") && !has_argument(text, "A_PASSWORD"));
        assert!(has_secret(text, "A_PASSWORD") && !has_secret(text, "A_PASS") && !has_secret(text, "A_USERNAME"));
    }
}
