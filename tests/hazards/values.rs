//! Values as nobody should give them, other ones in every run: shared by the tests that hand them to real engines.

use maddock::capability::events::is_hostile;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// What shells, templates, schedulers and serialisers care about.
const PIECES: &[&str] = &[
    "'",
    "\"",
    "\\",
    "$",
    "`",
    "$(touch pwned)",
    "`touch pwned`",
    "${HOME}",
    "$HOME",
    "$(HOME)",
    "$$",
    "%s",
    "%j",
    "{{ x }}",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "*",
    "?",
    "~",
    "!",
    "#",
    "&",
    ";",
    "|",
    "<",
    ">",
    "=",
    "-",
    "--",
    "-rf",
    "%",
    "^",
    ",",
    ":",
    "/",
    "..",
    "@",
    "+",
    " ",
    "  ",
    "\t",
    "\n",
    "\r",
    "\n#SBATCH --nodes=9\n",
    "\n---\n",
    "EOF",
    "MODEL",
    "\nMODEL\n",
    "a",
    "Z",
    "0",
    "_",
    "é",
    "日",
    "\u{1f680}",
    "\u{7f}",
    "\u{1b}[31m",
    "\u{a0}",
    "\u{200b}",
    "\u{202e}",
    "\u{1}",
    "null",
    "yes",
    "0x10",
];

/// One job's values.
#[derive(Debug, Clone)]
pub struct Hostile {
    pub model: String,
    pub arguments: Vec<String>,
    pub variables: Vec<String>,
}

fn text(pieces: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let known = prop::sample::select(PIECES).prop_map(str::to_owned);
    // Any character but the one that ends a text.
    let any = any::<char>().prop_filter("NUL", |letter| *letter != '\0').prop_map(String::from);
    prop::collection::vec(prop_oneof![4 => known, 1 => any], pieces).prop_map(|pieces| pieces.concat())
}

fn hostile() -> impl Strategy<Value = Hostile> {
    // What could drive a terminal is refused in the names of models, and in nothing else.
    let model = text(1..6)
        .prop_map(|name| format!("-{}", name.replace(is_hostile, "")))
        .prop_filter("a name", |name| name.len() > 1);
    let texts = || prop::collection::vec(text(0..9), 24);
    (model, texts(), texts()).prop_map(|(model, arguments, variables)| Hostile { model, arguments, variables })
}

/// Has a job run with other values each time, and expects every one to arrive as it is: `run` answers what its model's output
/// says. What does not arrive is shown in full.
pub fn arrive(jobs: u32, run: impl Fn(&Hostile) -> String) {
    let config = Config { cases: jobs, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&hostile(), |values| {
        let told = told(&run(&values));
        let expected: Vec<&String> =
            [&values.model].into_iter().chain(&values.arguments).chain(&values.variables).collect();
        prop_assert_eq!(told.iter().collect::<Vec<_>>(), expected);
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}

/// The script of a model that tells, byte by byte, what it was given.
pub fn script() -> String {
    let names: Vec<String> = (0..24).map(|number| format!("\"$HOSTILE_{number}\"")).collect();
    format!(
        "printf 'told:%s.\\n' \"$(printf '%s\\0' \"$MAD_MODEL_NAME\" \"$@\" {} | od -An -v -tx1 | tr -d ' \\n')\"\n\
         [ ! -e pwned ] || exit 9\necho 'performance: 1 things_per_second'\n",
        names.join(" ")
    )
}

impl Hostile {
    pub fn card(&self) -> Value {
        let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
        json!({"name": self.model, "args": self.arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")})
    }

    pub fn environment(&self) -> Value {
        let variables = self.variables.iter().enumerate();
        variables
            .map(|(number, value)| (format!("HOSTILE_{number}"), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn told(output: &str) -> Vec<String> {
    let (_, from) = output.split_once("told:").unwrap_or_else(|| panic!("nothing was told: {output}"));
    let (line, _) = from.split_once('.').unwrap();
    let bytes = hex::decode(line).unwrap();
    let texts = bytes.strip_suffix(&[0]).unwrap().split(|byte| *byte == 0);
    texts.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
}
