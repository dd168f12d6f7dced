//! The ignore file of a build context: which paths are not sent. Patterns as the engine's own tools read them: `*` and `?`
//! within one segment, `**` over any number, `!` takes back, the last pattern that matches decides, and what lies below
//! an ignored directory is ignored.

use regex::Regex;

/// The patterns of one ignore file.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    takes_back: bool,
    text: String,
    regex: Regex,
}

impl Ignore {
    /// Reads a file's text; a line that is no pattern is said.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let Some(text) = clean(pattern) else {
                if takes_back && pattern.is_empty() {
                    return Err(format!("line {}: `!` takes back nothing", number + 1));
                }
                continue;
            };
            let regex = Regex::new(&expression(&text))
                .map_err(|_| format!("line {}: `{line}` is not a pattern", number + 1))?;
            patterns.push(Pattern { takes_back, text, regex });
        }
        Ok(Self { patterns })
    }

    /// Whether a path, relative and with `/`, is left out.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        let ways: Vec<&str> = parents.chain([path]).collect();
        let mut out = false;
        for pattern in &self.patterns {
            // A pattern can only change what is not so already.
            if out == pattern.takes_back && ways.iter().any(|way| pattern.regex.is_match(way)) {
                out = !pattern.takes_back;
            }
        }
        out
    }

    /// Whether something below a directory that is left out may have been taken back.
    pub(super) fn may_take_back_below(&self, directory: &str) -> bool {
        self.patterns.iter().filter(|pattern| pattern.takes_back).any(|pattern| {
            let start = pattern.text.split(['*', '?', '[', '\\']).next().unwrap_or_default();
            start.len() != pattern.text.len()
                && directory.starts_with(start.rsplit_once('/').map_or("", |(fixed, _)| fixed))
                || format!("{}/", pattern.text).starts_with(&format!("{directory}/"))
        })
    }
}

/// The pattern without `.`, `..`, doubled and outer slashes. `None`: it says nothing.
fn clean(pattern: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn expression(pattern: &str) -> String {
    let mut expression = String::from("^(?s:");
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                if rest.next_if_eq(&'/').is_none() && rest.peek().is_none() {
                    expression.push_str(".*");
                } else {
                    expression.push_str("(?:.*/)?");
                }
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '\\' => expression.push_str(&regex::escape(&rest.next().unwrap_or('\\').to_string())),
            // A class is written the same way in both languages, but for the brackets within.
            '[' => {
                expression.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    expression.push('^');
                }
            }
            ']' | '-' => expression.push(c),
            other => expression.push_str(&regex::escape(&other.to_string())),
        }
    }
    expression.push_str(")$");
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(patterns: &str, path: &str) -> bool {
        Ignore::parse(patterns).unwrap().leaves_out(path)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_the_engine() {
        let cases = [
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("**/*.md", "docs/a/README.md", true),
            ("**/*.md", "README.md", true),
            ("/build", "build/x/y", true),
            ("build/", "build/x", true),
            ("build", "builder", false),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/z", true),
            ("te?t", "test", true),
            ("te?t", "te/t", false),
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            ("[^a-c].txt", "d.txt", true),
            ("x^", "x^", true),
            ("a.c", "abc", false),
            ("# comment", "# comment", false),
            ("./x/../y", "y", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("!keep\n*", "keep", true),
            ("dir\n!dir/keep", "dir/keep", false),
            ("dir\n!dir/keep", "dir/other", true),
        ];
        for (patterns, path, expected) in cases {
            assert_eq!(out(patterns, path), expected, "{patterns:?} on {path}");
        }
    }

    #[test]
    fn a_directory_is_entered_only_where_something_is_taken_back() {
        let ignore = Ignore::parse("*\n!a/b/keep\n!**/*.txt\n").unwrap();
        assert!(ignore.may_take_back_below("a") && ignore.may_take_back_below("anything"));
        let ignore = Ignore::parse("*\n!a/b/keep\n").unwrap();
        assert!(ignore.may_take_back_below("a/b"));
        assert!(!ignore.may_take_back_below("c"));
        assert!(!ignore.may_take_back_below("a/bc"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,60}", path in "[a-z*/.]{0,20}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.leaves_out(&path);
            }
        }
    }
}
