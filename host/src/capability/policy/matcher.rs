//! Patterns of scope values, and how each kind of value is compared. No pattern means anything inside a segment.

use std::borrow::Cow;

use super::Roots;

/// How the values of a kind of scope are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path of the host, links resolved.
    Path,
    /// A path of the host that stands for everything below it, too.
    Tree,
    /// An image's name, with its registry whether written or not; a tag or digest only where the pattern has one. What is no name
    /// of an image is covered by `*` and `**` only, and touched by every denial.
    Image,
    /// Segments between slashes.
    Text,
    /// The same, where upper and lower case mean the same to whoever is asked.
    AnyCase,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A capability of Linux: `CAP_` and case make no difference.
    Capability,
    /// The words of a command line after the program.
    Arguments,
    /// Belongs to the run, which the host sees to: its names are new each time.
    Own,
    /// A number with a ceiling.
    Count,
    /// Bytes with a ceiling.
    Bytes,
    /// Seconds with a ceiling.
    Seconds,
    /// Minutes with a ceiling.
    Minutes,
}

impl Kind {
    /// Whether rules give a ceiling instead of patterns.
    #[must_use]
    pub fn is_number(self) -> bool {
        matches!(self, Self::Count | Self::Bytes | Self::Seconds | Self::Minutes)
    }
}

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// `*`: one segment.
    One,
    /// `**` at the end: the rest, which may be nothing.
    Rest,
}

/// A pattern that is ready to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As it stands in the file.
    text: String,
    pieces: Vec<Piece>,
    /// `:tag` and `@digest` of an image.
    version: [Option<String>; 2],
    /// A word of a command line each.
    words: Vec<Vec<Piece>>,
    /// Speaks of a directory that this invocation does not have.
    nowhere: bool,
}

/// What a rule says of one kind of scope.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    /// Each value matches one of these.
    Patterns(Vec<Pattern>),
    /// Each value is a number that is not above.
    Max(f64),
}

/// Roots that patterns may begin with.
pub const ROOTS: [&str; 4] = ["$tree", "$run", "$output", "$results"];

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A wildcard inside a segment or in a place where it means nothing, or a root that there is not.
    pub fn new(text: &str, kind: Kind, roots: &Roots) -> Result<Self, String> {
        let mut pattern = Self {
            text: text.to_owned(),
            pieces: Vec::new(),
            version: [None, None],
            words: Vec::new(),
            nowhere: false,
        };
        if let Some(literal) = text.strip_prefix('=') {
            if kind == Kind::Arguments {
                let words = shlex::split(literal).ok_or_else(|| format!("the quotes of `{literal}` do not close"))?;
                pattern.words = words.iter().map(|word| literals(word)).collect();
            } else {
                pattern.set(kind, literals(&canonical(kind, literal)));
            }
            return Ok(pattern);
        }
        match kind {
            Kind::Arguments => {
                let words = shlex::split(text).ok_or_else(|| format!("the quotes of `{text}` do not close"))?;
                let last = words.len().saturating_sub(1);
                for (at, word) in words.iter().enumerate() {
                    if word == "**" && at != last {
                        return Err("`**` stands for the rest of the words, and at the end only".to_owned());
                    }
                    let pieces = pattern.pieces_of(word, roots)?;
                    pattern.words.push(pieces);
                }
            }
            Kind::Image if text != "*" && text != "**" => {
                let (name, version) = split_image(text);
                pattern.version = version.map(|part| part.map(str::to_owned));
                let pieces = pattern.pieces_of(&full_name(name), roots)?;
                pattern.pieces = pieces;
            }
            _ => {
                let pieces = pattern.pieces_of(&canonical(kind, text), roots)?;
                pattern.pieces = pieces;
            }
        }
        Ok(pattern)
    }

    /// As it stands in the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn set(&mut self, kind: Kind, pieces: Vec<Piece>) {
        if kind == Kind::Image {
            let text = self.text.get(1..).unwrap_or_default();
            let (name, version) = split_image(text);
            self.version = version.map(|part| part.map(str::to_owned));
            self.pieces = literals(&full_name(name));
        } else {
            self.pieces = pieces;
        }
    }

    fn pieces_of(&mut self, text: &str, roots: &Roots) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        if text.starts_with('$') {
            let (name, after) = text.split_at(text.find('/').unwrap_or(text.len()));
            let root = match name {
                "$tree" => &roots.tree,
                "$run" => &roots.run,
                "$output" => &roots.output,
                "$results" => &roots.results,
                _ => return Err(format!("there is no directory `{name}`")),
            };
            // A root that this invocation does not have allows nothing.
            self.nowhere |= root.as_os_str().is_empty();
            pieces = literals(root.to_string_lossy().trim_end_matches('/'));
            rest = match after.strip_prefix('/') {
                None => return Ok(pieces),
                Some(rest) => rest,
            };
        }
        let segments: Vec<&str> = rest.split('/').collect();
        let last = segments.len().saturating_sub(1);
        for (at, segment) in segments.into_iter().enumerate() {
            pieces.push(match segment {
                "*" => Piece::One,
                "**" if at == last => Piece::Rest,
                "**" => return Err("`**` stands for the rest, and at the end only".to_owned()),
                _ if segment.contains('*') => {
                    return Err(format!(
                        "`*` stands for a whole segment between slashes, not for a part of `{segment}`"
                    ));
                }
                _ => Piece::Literal(segment.to_owned()),
            });
        }
        Ok(pieces)
    }

    /// Whether it stands for everything.
    fn is_any(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::One] | [Piece::Rest]) && self.version == [None, None]
    }

    /// `denies`: of a denial, which speaks of what may be meant; else of a grant, which speaks of what surely is.
    fn matches(&self, kind: Kind, value: &str, denies: bool) -> bool {
        if self.nowhere {
            return false;
        }
        match kind {
            Kind::Arguments => {
                let Some(words) = shlex::split(value) else { return false };
                words_match(&self.words, &words)
            }
            Kind::Image if self.is_any() => true,
            Kind::Image if !is_image_name(value) => denies,
            Kind::Image => {
                let (name, version) = split_image(value);
                self.is_version(version, denies) && segments_match(&self.pieces, full_name(name).split('/'), false)
            }
            _ => segments_match(&self.pieces, canonical(kind, value).split('/'), kind == Kind::AnyCase),
        }
    }

    /// Whether tag and digest are those that the pattern wants. A digest alone says which image it is: whoever allows a tag does not
    /// allow any image that somebody says is of that tag.
    fn is_version(&self, [tag, digest]: [Option<&str>; 2], denies: bool) -> bool {
        // Neither of them is `latest`, to every engine.
        let tag = tag.or_else(|| digest.is_none().then_some("latest"));
        let is =
            |wanted: &Option<String>, has: Option<&str>| wanted.as_deref().is_some_and(|wanted| has == Some(wanted));
        let [wanted_tag, wanted_digest] = &self.version;
        match (wanted_tag, wanted_digest) {
            (None, None) => true,
            _ if denies => is(wanted_tag, tag) || is(wanted_digest, digest),
            (Some(_), None) => is(wanted_tag, tag) && digest.is_none(),
            (None, Some(_)) => is(wanted_digest, digest),
            (Some(_), Some(_)) => is(wanted_tag, tag) && is(wanted_digest, digest),
        }
    }

    /// Whether the value lies above what the pattern begins with, so that it holds some of it.
    fn lies_below(&self, value: &str) -> bool {
        let value = value.trim_end_matches('/');
        let mut pieces = self.pieces.iter();
        !self.nowhere
            && value.split('/').all(|segment| match pieces.next() {
                Some(Piece::Literal(literal)) => literal == segment,
                Some(Piece::One | Piece::Rest) => true,
                None => false,
            })
    }
}

impl Matcher {
    /// Whether a value is within.
    #[must_use]
    pub fn covers(&self, kind: Kind, value: &str) -> bool {
        match self {
            Self::Max(max) => number(value).is_some_and(|value| value <= *max),
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches(kind, value, false)),
        }
    }

    /// Whether a denial of this speaks of a value: one that is within, or one that holds some of it.
    #[must_use]
    pub fn touches(&self, kind: Kind, value: &str) -> bool {
        match self {
            // No denial has a ceiling: `[[narrow]]` is for that.
            Self::Max(_) => false,
            Self::Patterns(patterns) => patterns
                .iter()
                .any(|pattern| pattern.matches(kind, value, true) || (kind == Kind::Tree && pattern.lies_below(value))),
        }
    }
}

/// A number as calls tell it; `unlimited` is above every ceiling.
#[must_use]
pub fn number(value: &str) -> Option<f64> {
    if value == "unlimited" { Some(f64::INFINITY) } else { value.parse().ok().filter(|number: &f64| !number.is_nan()) }
}

fn literals(text: &str) -> Vec<Piece> {
    text.split('/').map(|segment| Piece::Literal(segment.to_owned())).collect()
}

fn canonical(kind: Kind, value: &str) -> Cow<'_, str> {
    if kind != Kind::Capability {
        return Cow::Borrowed(value);
    }
    let upper = value.to_ascii_uppercase();
    Cow::Owned(upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper))
}

/// Name, tag, digest.
fn split_image(text: &str) -> (&str, [Option<&str>; 2]) {
    // An id is a digest without a name.
    if text.starts_with("sha256:") && !text.contains('/') {
        return ("", [None, Some(text)]);
    }
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest.get(last..).and_then(|segment| segment.find(':')) {
        Some(colon) => {
            let (name, tag) = rest.split_at(last + colon);
            (name, [tag.strip_prefix(':'), digest])
        }
        None => (rest, [None, digest]),
    }
}

/// Whether a value is the name of an image. Anything else is not known to be any image's: an argument whose value nobody knows here,
/// quotes that a builder takes away.
#[must_use]
pub fn is_image_name(value: &str) -> bool {
    value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '@' | '-'))
}

/// A name with its registry: an engine means the same image by `ubuntu` and by `docker.io/library/ubuntu`.
fn full_name(name: &str) -> Cow<'_, str> {
    // No repository has capitals: what has some is a host.
    let has_capitals = |host: &str| host.contains(|c: char| c.is_ascii_uppercase());
    let is_registry =
        |host: &str| host.contains(['.', ':']) || host == "localhost" || host == "*" || has_capitals(host);
    match name.split_once('/') {
        _ if name.is_empty() => Cow::Borrowed(name),
        Some(("index.docker.io", rest)) => full_name_at_default(rest),
        Some(("docker.io", rest)) => full_name_at_default(rest),
        Some((host, _)) if is_registry(host) => Cow::Borrowed(name),
        _ => full_name_at_default(name),
    }
}

fn full_name_at_default(rest: &str) -> Cow<'_, str> {
    let library = if rest.contains('/') || rest == "**" { "" } else { "library/" };
    Cow::Owned(format!("docker.io/{library}{rest}"))
}

fn segments_match<'a>(pattern: &[Piece], mut value: impl Iterator<Item = &'a str>, any_case: bool) -> bool {
    for piece in pattern {
        let segment = match piece {
            Piece::Rest => return true,
            Piece::One | Piece::Literal(_) => value.next(),
        };
        let Some(segment) = segment else { return false };
        if let Piece::Literal(literal) = piece
            && !(literal == segment || (any_case && literal.eq_ignore_ascii_case(segment)))
        {
            return false;
        }
    }
    value.next().is_none()
}

fn words_match(pattern: &[Vec<Piece>], words: &[String]) -> bool {
    match (pattern.split_first(), words.split_first()) {
        (None, None) => true,
        (Some((first, [])), _) if first.as_slice() == [Piece::Rest] => true,
        (Some((first, rest)), Some((word, others))) => {
            // A lone `*` is one word, whatever is in it.
            let fits = first.as_slice() == [Piece::One] || segments_match(first, word.split('/'), false);
            fits && words_match(rest, others)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(kind: Kind, pattern: &str, value: &str) -> bool {
        let roots = Roots { tree: "/m*d".into(), run: "/w/runs/1".into(), ..Roots::default() };
        Matcher::Patterns(vec![Pattern::new(pattern, kind, &roots).unwrap()]).covers(kind, value)
    }

    fn touches(pattern: &str, value: &str) -> bool {
        Matcher::Patterns(vec![Pattern::new(pattern, Kind::Tree, &Roots::default()).unwrap()])
            .touches(Kind::Tree, value)
    }

    #[test]
    fn patterns_cover_what_they_say_and_nothing_else() {
        let table = [
            (Kind::Path, "/sys/*/x", "/sys/one/x", true),
            (Kind::Path, "/sys/*/x", "/sys/one/two/x", false),
            (Kind::Path, "/sys/*/x", "/sys/one", false),
            (Kind::Path, "/a/**", "/a", true),
            (Kind::Path, "/a/**", "/a/b/c", true),
            (Kind::Path, "/a/**", "/ab", false),
            (Kind::Path, "$run/**", "/w/runs/1/jobs", true),
            (Kind::Path, "$run/**", "/w/runs/10/jobs", false),
            (Kind::Path, "$run", "/w/runs/1", true),
            (Kind::Path, "$tree/**", "/mxd/a", false),
            (Kind::Path, "$tree/**", "/m*d/a", true),
            (Kind::Path, "$output/**", "/etc/passwd", false),
            (Kind::Path, "$output/**", "", false),
            (Kind::Path, "=/odd/*/$x", "/odd/*/$x", true),
            (Kind::Path, "=/odd/*/$x", "/odd/y/$x", false),
            (Kind::Text, "*", "gpu", true),
            (Kind::Text, "*", "", true),
            (Kind::Text, "", "", true),
            (Kind::Text, "gpu", "", false),
            (Kind::Text, "gpu", "GPU", false),
            (Kind::AnyCase, "Team", "tEAM", true),
            (Kind::Capability, "CAP_SYS_ADMIN", "sys_admin", true),
            (Kind::Capability, "sys_ptrace", "CAP_SYS_PTRACE", true),
            (Kind::Image, "docker.io/**", "ubuntu", true),
            (Kind::Image, "docker.io/**", "ubuntu:24.04", true),
            (Kind::Image, "docker.io/library/ubuntu", "ubuntu:24.04", true),
            (Kind::Image, "ubuntu:24.04", "docker.io/library/ubuntu:24.04", true),
            (Kind::Image, "ubuntu:24.04", "ubuntu", false),
            (Kind::Image, "registry.example.com:5000/team/**", "registry.example.com:5000/team/a:1", true),
            (Kind::Image, "registry.example.com:5000/team/**", "registry.example.com/team/a:1", false),
            (Kind::Image, "registry.example.com/**", "registry.example.com.evil.net/a", false),
            (Kind::Image, "registry.example.com/**", "ubuntu", false),
            (Kind::Image, "ubuntu:latest", "ubuntu", true),
            (Kind::Image, "r.example/a:1", "r.example/a:1@sha256:11", false),
            (Kind::Image, "r.example/a:1@sha256:11", "r.example/a:1@sha256:11", true),
            (Kind::Image, "r.example/a:1@sha256:11", "r.example/a:1", false),
            (Kind::Image, "r.example/a:latest", "r.example/a@sha256:11", false),
            (Kind::Image, "docker.io/**", "EVIL/a", false),
            (Kind::Image, "docker.io/**", "Evil/a/b:1", false),
            (Kind::Image, "EVIL/**", "EVIL/a", true),
            (Kind::Image, "docker.io/**", "${X-evil/a}", false),
            (Kind::Image, "docker.io/**", "$TARGETARCH", false),
            (Kind::Image, "docker.io/**", "'a'", false),
            (Kind::Image, "=docker.io/library/$X", "$X", false),
            (Kind::Image, "**", "$X", true),
            (Kind::Image, "*", "$X", true),
            (Kind::Image, "r.example/a@sha256:11", "r.example/a:tag@sha256:11", true),
            (Kind::Image, "r.example/a@sha256:11", "r.example/a:tag", false),
            (Kind::Image, "sha256:11", "sha256:11", true),
            (Kind::Image, "sha256:11", "sha256:12", false),
            (Kind::Image, "registry.example.com/**", "sha256:11", false),
            (Kind::Image, "**", "sha256:11", true),
            (Kind::Arguments, "--json", "--json", true),
            (Kind::Arguments, "--json", "--json --all", false),
            (Kind::Arguments, "-i * --json", "-i 3 --json", true),
            (Kind::Arguments, "-i * --json", "-i a/b --json", true),
            (Kind::Arguments, "-i * --json", "-i --json", false),
            (Kind::Arguments, "run **", "run", true),
            (Kind::Arguments, "run **", "run a 'b c'", true),
            (Kind::Arguments, "$run/**", "/w/runs/1/entry.sh", true),
            (Kind::Arguments, "$run/**", "/w/runs/2/entry.sh", false),
            (Kind::Arguments, "", "", true),
            (Kind::Arguments, "", "x", false),
        ];
        for (kind, pattern, value, expected) in table {
            assert_eq!(covers(kind, pattern, value), expected, "{kind:?} `{pattern}` and `{value}`");
        }
    }

    #[test]
    fn a_wildcard_is_a_whole_segment_or_an_error() {
        for wrong in ["/a/b*", "*.log", "/**/x", "$home/x", "a**"] {
            assert!(Pattern::new(wrong, Kind::Path, &Roots::default()).is_err(), "{wrong}");
        }
        assert!(Pattern::new("a ** b", Kind::Arguments, &Roots::default()).is_err());
        assert!(Pattern::new("'a", Kind::Arguments, &Roots::default()).is_err());
    }

    #[test]
    fn a_denied_path_is_denied_within_what_holds_it() {
        for holds in ["/", "/etc", "/etc/shadow", "/etc/shadow/x"] {
            assert!(touches("/etc/shadow/**", holds), "{holds}");
        }
        for other in ["/etcetera", "/var", "/etc/passwd"] {
            assert!(!touches("/etc/shadow/**", other), "{other}");
        }
        assert!(touches("/home/*/.ssh", "/home/user"));
    }

    #[test]
    fn a_denied_image_is_denied_in_every_spelling_of_its_version() {
        let touches = |pattern: &str, value: &str| {
            let pattern = Pattern::new(pattern, Kind::Image, &Roots::default()).unwrap();
            Matcher::Patterns(vec![pattern]).touches(Kind::Image, value)
        };
        for (pattern, value) in [
            ("r.example/**:latest", "r.example/a"),
            ("r.example/a:1", "r.example/a:1@sha256:11"),
            ("r.example/a@sha256:11", "r.example/a:1@sha256:11"),
            ("r.example/a:1@sha256:11", "r.example/a:1"),
            ("r.example/a:1@sha256:11", "r.example/a@sha256:11"),
            ("r.example/**", "${X}"),
            ("r.example/a:1", "$X"),
        ] {
            assert!(touches(pattern, value), "{pattern} and {value}");
        }
        for (pattern, value) in [
            ("r.example/a:2", "r.example/a:1@sha256:11"),
            ("r.example/**:latest", "r.example/a:1"),
            ("r.example/a:latest", "r.example/a@sha256:11"),
        ] {
            assert!(!touches(pattern, value), "{pattern} and {value}");
        }
    }

    #[test]
    fn what_is_no_number_is_above_every_ceiling() {
        let max = Matcher::Max(4.0);
        for (value, expected) in
            [("4", true), ("3.5", true), ("5", false), ("unlimited", false), ("", false), ("nan", false)]
        {
            assert_eq!(max.covers(Kind::Count, value), expected, "{value}");
        }
    }
}
