//! The images that a Dockerfile builds from, for the gate: those of `FROM`, of `--from=` in `COPY`, `ADD` and mounts of `RUN`, and the
//! frontend of a `# syntax=` line. Stages of the file's own and `scratch` are no images.
//!
//! Where it is in doubt, a name is said as an image: too many are asked for, never too few. What cannot be put in, such as
//! the value of a secret, stays as written and matches no pattern of an image.

use std::collections::BTreeMap;

/// One image and the line that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) image: String,
    pub(super) line: usize,
}

/// The build argument that names a frontend, as a `# syntax=` line does.
const FRONTEND: &str = "BUILDKIT_SYNTAX";

/// Reads a Dockerfile. `given` are the build arguments whose values are known.
pub(super) fn bases(text: &str, given: &BTreeMap<&str, &str>) -> Vec<Base> {
    let mut reader = Reader { given, defaults: BTreeMap::new(), stages: Vec::new(), found: Vec::new() };
    if let Some(frontend) = given.get(FRONTEND) {
        reader.add(0, (*frontend).to_owned());
    }
    for (line, instruction) in instructions(text) {
        reader.read(line, &instruction);
    }
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}').trim();
        // It counts at the top only; anywhere else it is a remark that costs a question.
        let remark = line.strip_prefix('#').or_else(|| line.strip_prefix("//")).unwrap_or_default();
        if let Some((key, frontend)) = remark.split_once('=')
            && key.trim().eq_ignore_ascii_case("syntax")
            && let Some(frontend) = frontend.split_whitespace().next()
        {
            reader.add(at + 1, frontend.to_owned());
        }
    }
    reader.found
}

/// Instructions with the line that each begins in: continuations joined, remarks left out.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let escapes = |line: &str| {
        let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
        key.trim().eq_ignore_ascii_case("escape").then(|| value.trim().chars().next()).flatten()
    };
    let escape = text.lines().take_while(|line| line.trim_start().starts_with('#')).find_map(escapes).unwrap_or('\\');
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let bare = line.trim_start_matches('\u{feff}').trim();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let (piece, goes_on) = match bare.strip_suffix(escape) {
            Some(piece) => (piece, true),
            None => (bare, false),
        };
        let (from, mut so_far) = open.take().unwrap_or((at + 1, String::new()));
        so_far.push_str(piece);
        if goes_on {
            open = Some((from, so_far));
        } else {
            all.push((from, so_far));
        }
    }
    all.extend(open);
    all
}

struct Reader<'a> {
    given: &'a BTreeMap<&'a str, &'a str>,
    defaults: BTreeMap<String, String>,
    stages: Vec<String>,
    found: Vec<Base>,
}

impl Reader<'_> {
    fn read(&mut self, line: usize, instruction: &str) {
        let (word, rest) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
        match word.to_ascii_uppercase().as_str() {
            // Only arguments before the first stage can be put into `FROM`.
            "ARG" if self.stages.is_empty() => {
                for pair in shlex::split(rest).unwrap_or_default() {
                    let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    let value = self.put_in(value);
                    self.defaults.insert(name.to_owned(), value);
                }
            }
            "FROM" => self.stage(line, rest),
            "COPY" | "ADD" | "RUN" => {
                for flag in rest.split_whitespace().take_while(|word| word.starts_with("--")) {
                    let named = flag.strip_prefix("--from=").or_else(|| {
                        flag.strip_prefix("--mount=")?.split(',').find_map(|part| part.strip_prefix("from="))
                    });
                    if let Some(named) = named {
                        let named = self.put_in(named.trim_matches(['"', '\'']));
                        self.unless_stage(line, named);
                    }
                }
            }
            _ => {}
        }
    }

    fn stage(&mut self, line: usize, rest: &str) {
        let words: Vec<&str> = rest.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
        // Anything else is no instruction that a builder takes, such as a line of a program within the file.
        let (image, name) = match words.as_slice() {
            [image] => (*image, ""),
            [image, middle, name] if middle.eq_ignore_ascii_case("as") => (*image, *name),
            _ => return,
        };
        let image = self.put_in(image.trim_matches(['"', '\'']));
        if image != "scratch" {
            let known = self.stages.iter().any(|stage| stage.eq_ignore_ascii_case(&image));
            if !known {
                self.add(line, image);
            }
        }
        self.stages.push(name.to_owned());
    }

    /// A stage may be named by its number as well, in `--from=`.
    fn unless_stage(&mut self, line: usize, named: String) {
        let by_number = named.parse::<usize>().is_ok_and(|number| number < self.stages.len());
        if !by_number && !self.stages.iter().any(|stage| stage.eq_ignore_ascii_case(&named)) {
            self.add(line, named);
        }
    }

    fn add(&mut self, line: usize, image: String) {
        if !image.is_empty() && !self.found.iter().any(|base| base.image == image) {
            self.found.push(Base { image, line });
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        let given = self.given.get(name).filter(|_| self.defaults.contains_key(name)).copied();
        given.or_else(|| self.defaults.get(name).map(String::as_str))
    }

    /// Puts arguments in: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`. What is not known stays as it is.
    fn put_in(&self, text: &str) -> String {
        let (mut done, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            done.push_str(before);
            let (asked, behind) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((inner, behind)) => (inner, behind),
                None => {
                    after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()))
                }
            };
            let name = asked.split([':', '-', '+']).next().unwrap_or(asked);
            let known = self.value(name).filter(|value| !value.is_empty());
            let form = asked.get(name.len()..).unwrap_or_default();
            let value = match (form.get(..2), known) {
                (None, Some(value)) if form.is_empty() => Some(value.to_owned()),
                (Some(":-"), Some(value)) => Some(value.to_owned()),
                (Some(":-"), None) => Some(self.put_in(form.get(2..).unwrap_or_default())),
                (Some(":+"), Some(_)) => Some(self.put_in(form.get(2..).unwrap_or_default())),
                (Some(":+"), None) => Some(String::new()),
                _ => None,
            };
            match value {
                Some(value) => done.push_str(&value),
                None => {
                    done.push('$');
                    done.push_str(after.get(..after.len() - behind.len()).unwrap_or_default());
                }
            }
            rest = behind;
        }
        done + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, given: &[(&str, &str)]) -> Vec<(usize, String)> {
        let given = given.iter().copied().collect();
        bases(text, &given).into_iter().map(|base| (base.line, base.image)).collect()
    }

    fn names(text: &str) -> Vec<String> {
        of(text, &[]).into_iter().map(|(_, image)| image).collect()
    }

    #[test]
    fn every_image_is_found_with_its_line_and_no_stage_of_the_files_own() {
        let text = "FROM --platform=linux/amd64 one:1 AS Build\nFROM scratch as empty\nfrom build\nCOPY --chown=1 --from=BUILD a b\n\
                    COPY --from=0 a b\nCOPY --from=two c d\nRUN --mount=type=bind,from=three,target=/x \\\n# remark\n --mount=type=cache,target=/y cat\n\
                    FROM later\nFROM four AS later\n";
        let expected = [(1, "one:1"), (6, "two"), (7, "three"), (10, "later"), (11, "four")];
        assert_eq!(of(text, &[]), expected.map(|(line, image)| (line, image.to_owned())));
    }

    #[test]
    fn arguments_are_put_in_as_the_builder_does() {
        let text = "ARG BASE=ours/a TAG=1\nARG WHOLE=\"$BASE:${TAG}\"\nFROM $WHOLE\nFROM ${NONE:-b}:${TAG}\nFROM c${TAG:+x}\nFROM ${UNKNOWN}/d\n";
        assert_eq!(names(text), ["ours/a:1", "b:1", "cx", "${UNKNOWN}/d"]);
        let given = of(text, &[("BASE", "evil/z"), ("NONE", "not-declared")]);
        assert_eq!(given[0].1, "evil/z:1");
        assert_eq!(given[1].1, "b:1", "an argument that is not declared is not put in");
    }

    #[test]
    fn frontends_are_images_too() {
        assert_eq!(names("# Syntax = evil/front:1\nFROM a\n"), ["a", "evil/front:1"]);
        assert_eq!(of("FROM a\n", &[("BUILDKIT_SYNTAX", "evil/f")])[0], (0, "evil/f".to_owned()));
    }

    #[test]
    fn a_line_that_goes_on_hides_nothing() {
        assert_eq!(names("FROM \\\n  evil/x\n"), ["evil/x"]);
        assert_eq!(names("# escape=`\nFROM `\n evil/x\nRUN a \\\nFROM evil/y\n"), ["evil/x", "evil/y"]);
        assert_eq!(names("FROM a\nRUN python <<E\nfrom os import path\nE\n"), ["a"]);
    }
}
