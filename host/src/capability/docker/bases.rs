//! The images that a Dockerfile builds from, for the gate: those of `FROM`, of `--from=` in `COPY`, `ADD` and mounts of `RUN`, and the
//! frontend of a `# syntax=` line. Stages of the file's own and `scratch` are no images.
//!
//! Builders differ in what they take for an instruction: whether they know texts within the file (`<<END`), which line says what
//! continues one, whether two of that character do, whether a remark may be indented. A file is read in each of these ways; every
//! image that any of them finds is asked for, and a name is a stage's only where all of them say so: too many, never too few.
//! What cannot be put in, such as the value of a secret, stays as written, with a character in it that no image's name has.
//!
//! A file is a stranger's: what is done for one is bounded by its length.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::Value;

/// One image and the line that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) image: String,
    pub(super) line: usize,
}

/// Build arguments by name; none: a value that is not known here, such as a secret.
pub(super) type Arguments<'a> = BTreeMap<&'a str, Option<&'a str>>;

/// What replaces the frontend of a build argument's own accord.
const FRONTEND: &str = "BUILDKIT_SYNTAX";
/// Images of one file, and stages.
const MOST: usize = 1_000;
/// Bytes of a name with its arguments put in; a longer one stays as written.
const LONGEST: usize = 4 << 10;
/// Bytes of instructions that may begin within others, in a file with texts.
const TANGLED: usize = 16 << 20;
/// What builders know without being told, whatever the file says.
const AUTOMATIC: [&str; 9] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Reads a Dockerfile.
///
/// # Errors
/// What keeps it from being read as every builder may.
pub(super) fn bases(text: &str, given: &Arguments<'_>) -> Result<Vec<Base>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let ways = Way::all(&lines)?;
    let mut mentions = Mentions::default();
    let mut readings = Vec::new();
    for way in ways {
        let mut joined = Reader::new(given);
        way.instructions(&lines, false, |line, instruction| joined.read(line, instruction, &mut mentions))?;
        if text.contains("<<") {
            let mut with_texts = Reader::new(given);
            way.instructions(&lines, true, |line, instruction| with_texts.read(line, instruction, &mut mentions))?;
            readings.push(with_texts.stages);
            // Whichever line a builder takes for an instruction's first.
            let within = Within(&joined);
            way.each_line(&lines, |line, instruction| within.read(line, instruction, &mut mentions))?;
        }
        readings.push(joined.stages);
    }
    let mut found = mentions.images(&readings);
    match given.get(FRONTEND) {
        Some(Some(frontend)) => found.push(Base { image: (*frontend).to_owned(), line: 0 }),
        Some(None) => found.push(Base { image: format!("${FRONTEND}"), line: 0 }),
        None => {}
    }
    found.extend(frontends(text)?);
    found.sort_by(|a, b| a.line.cmp(&b.line).then_with(|| a.image.cmp(&b.image)));
    let mut seen = std::collections::HashSet::new();
    found.retain(|base| seen.insert(base.image.clone()));
    if found.len() > MOST { Err(format!("it names more than {MOST} images")) } else { Ok(found) }
}

/// The images that a Dockerfile builds from whatever its arguments are.
pub(super) fn certain(text: &str) -> Vec<Base> {
    let asked = text.split('$').skip(1).map(|rest| rest.strip_prefix('{').unwrap_or(rest));
    let names = asked.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next());
    let found = bases(text, &names.map(|name| (name, None)).collect()).unwrap_or_default();
    found.into_iter().filter(|base| base.line > 0 && !base.image.contains(['$', '\'', '"', '\\', '`'])).collect()
}

/// What names an image, by the first line of each.
#[derive(Debug, Default)]
struct Mentions {
    from: HashMap<String, usize>,
    flags: HashMap<String, usize>,
}

impl Mentions {
    fn add(of: &mut HashMap<String, usize>, line: usize, image: &str) -> Result<(), String> {
        // What continues a line where another character does names nothing.
        if matches!(image, "" | "\\" | "`") {
            return Ok(());
        }
        if let Some(first) = of.get_mut(image) {
            *first = line.min(*first);
        } else if of.len() < MOST {
            of.insert(image.to_owned(), line);
        } else {
            return Err(format!("it names more than {MOST} images"));
        }
        Ok(())
    }

    /// What is no stage's, whoever reads the file.
    fn images(self, readings: &[Stages]) -> Vec<Base> {
        let named = |name: &str, line: usize| readings.iter().all(|stages| stages.has(name, line));
        let numbered = |name: &str, line: usize| {
            name.parse::<usize>().is_ok_and(|number| readings.iter().all(|stages| stages.has_number(number, line)))
        };
        let from = self.from.into_iter().filter(|(name, line)| name != "scratch" && !named(name, *line));
        let flags = self.flags.into_iter().filter(|(name, line)| !named(name, *line) && !numbered(name, *line));
        from.chain(flags).map(|(image, line)| Base { image, line }).collect()
    }
}

/// Stages of one reading.
#[derive(Debug, Default)]
struct Stages {
    /// By name in small letters, where each begins first.
    named: HashMap<String, usize>,
    /// Where each begins, in order.
    lines: Vec<usize>,
}

impl Stages {
    fn begin(&mut self, line: usize, name: Option<&str>) -> Result<(), String> {
        if self.lines.len() >= MOST {
            return Err(format!("it has more than {MOST} stages"));
        }
        self.lines.push(line);
        let name = name.map(str::to_ascii_lowercase).filter(|name| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-'))
        });
        if let Some(name) = name {
            self.named.entry(name).or_insert(line);
        }
        Ok(())
    }

    /// Whether a stage of that name begins above a line.
    fn has(&self, name: &str, line: usize) -> bool {
        self.named.get(&name.to_ascii_lowercase()).is_some_and(|begins| *begins < line)
    }

    fn has_number(&self, number: usize, line: usize) -> bool {
        self.lines.get(number).is_some_and(|begins| *begins < line)
    }
}

/// What `# syntax=` lines name, or a file that is a JSON object. A line counts at the top only; anywhere else it is a remark that costs a
/// question.
fn frontends(text: &str) -> Result<Vec<Base>, String> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let remark = line.strip_prefix('#').or_else(|| line.strip_prefix("//")).unwrap_or_default();
        if let Some((key, value)) = remark.split_once('=')
            && key.trim().eq_ignore_ascii_case("syntax")
            && let Some(frontend) = value.split_whitespace().next()
        {
            all.push(Base { image: frontend.to_owned(), line: at + 1 });
        }
    }
    let behind = if text.starts_with("#!") { text.split_once('\n').unwrap_or_default().1 } else { text };
    if behind.trim_start().starts_with('{') {
        // What one reader of JSON takes and the next does not is no Dockerfile in any case.
        let Ok(Value::Object(members)) = serde_json::from_str(behind) else {
            return Err("it begins with `{`, and is no JSON object".to_owned());
        };
        for (_, value) in members.iter().filter(|(key, _)| key.to_uppercase() == "SYNTAX") {
            let frontend = value.as_str().and_then(|value| value.split_whitespace().next());
            all.extend(frontend.map(|frontend| Base { image: frontend.to_owned(), line: 1 }));
        }
    }
    Ok(all)
}

/// One way to tell instructions from each other.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// What continues a line.
    escape: char,
    /// Whether two of it continue a line as well.
    doubled: bool,
    /// Whether a line within an instruction is a remark, too, where its mark is indented.
    indented: bool,
}

/// What a line is within an instruction.
enum Piece<'a> {
    Nothing,
    GoesOn(&'a str),
    Ends(&'a str),
}

impl Way {
    /// Those that can make a difference for a file.
    fn all(lines: &[&str]) -> Result<Vec<Self>, String> {
        let says_escape = |line: &&str| {
            let key = line.trim().strip_prefix('#').and_then(|remark| remark.split_once('='));
            key.is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case("escape"))
        };
        let escapes: &[char] = if lines.iter().any(says_escape) { &['\\', '`'] } else { &['\\'] };
        for (at, line) in lines.iter().enumerate() {
            if line.trim_end() != ended(line) && line.trim_end().ends_with(escapes) {
                return Err(format!("line {} ends in blanks that not every builder takes for blanks", at + 1));
            }
        }
        let either = |differ: bool| if differ { vec![true, false] } else { vec![true] };
        let is_indented = |line: &&str| line.starts_with(char::is_whitespace) && line.trim_start().starts_with('#');
        let indented = lines.iter().any(is_indented);
        let mut ways = Vec::new();
        for &escape in escapes {
            let pair = String::from_iter([escape, escape]);
            for doubled in either(lines.iter().any(|line| line.contains(&pair))) {
                ways.extend(either(indented).into_iter().map(|indented| Self { escape, doubled, indented }));
            }
        }
        Ok(ways)
    }

    fn first<'a>(self, line: &'a str) -> Piece<'a> {
        let line = line.trim_start();
        if line.starts_with('#') { Piece::Nothing } else { self.piece(line) }
    }

    fn further<'a>(self, line: &'a str) -> Piece<'a> {
        let bare = line.trim_start();
        if bare.is_empty() || line.starts_with('#') || (self.indented && bare.starts_with('#')) {
            Piece::Nothing
        } else {
            self.piece(line)
        }
    }

    fn piece<'a>(self, line: &'a str) -> Piece<'a> {
        let line = ended(line);
        match line.strip_suffix(self.escape) {
            Some(piece) if self.doubled || !piece.ends_with(self.escape) => Piece::GoesOn(piece),
            _ if line.is_empty() => Piece::Nothing,
            _ => Piece::Ends(line),
        }
    }

    /// Tells instructions with the line that each begins in: continuations joined, remarks left out. `texts`: those within the file
    /// are skipped, up to where builders differ in whether one begins.
    fn instructions(
        self,
        lines: &[&str],
        texts: bool,
        mut told: impl FnMut(usize, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut open: Option<(usize, String)> = None;
        let mut ends: VecDeque<End> = VecDeque::new();
        for (at, line) in lines.iter().enumerate() {
            if let Some(end) = ends.front() {
                if end.is(line) {
                    ends.pop_front();
                }
                continue;
            }
            let piece = if open.is_some() { self.further(line) } else { self.first(line) };
            let (piece, goes_on) = match piece {
                Piece::Nothing => continue,
                Piece::GoesOn(piece) => (piece, true),
                Piece::Ends(piece) => (piece, false),
            };
            let (from, mut so_far) = open.take().unwrap_or((at + 1, String::new()));
            so_far.push_str(piece);
            if goes_on {
                open = Some((from, so_far));
                continue;
            }
            told(from, &so_far)?;
            match texts_of(&so_far) {
                Some(begun) if texts => ends = begun,
                None if texts => return Ok(()),
                _ => {}
            }
        }
        open.map_or(Ok(()), |(from, so_far)| told(from, &so_far))
    }

    /// Tells what begins in each line with the word of an instruction, also within another one or a text.
    fn each_line(self, lines: &[&str], mut told: impl FnMut(usize, &str) -> Result<(), String>) -> Result<(), String> {
        let mut bytes = 0;
        for (at, first) in lines.iter().enumerate() {
            let word = first.split_whitespace().next().unwrap_or_default().trim_end_matches(self.escape);
            // A line that goes on within its first word may become one of them.
            let cut = ended(first).ends_with(self.escape) && first.split_whitespace().count() == 1;
            if !cut && !["from", "copy", "add", "run", "onbuild"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
                continue;
            }
            let mut so_far = String::new();
            for (further, line) in lines.iter().skip(at).enumerate() {
                bytes += line.len() + 1;
                if bytes > TANGLED {
                    return Err("its instructions are too tangled to be read".to_owned());
                }
                match if further == 0 { self.first(line) } else { self.further(line) } {
                    Piece::Nothing => {}
                    Piece::GoesOn(piece) => so_far.push_str(piece),
                    Piece::Ends(piece) => {
                        so_far.push_str(piece);
                        break;
                    }
                }
            }
            told(at + 1, &so_far)?;
        }
        Ok(())
    }
}

/// A line without what builders take away at its end.
fn ended(line: &str) -> &str {
    line.trim_end_matches('\r').trim_end_matches([' ', '\t'])
}

/// The line that ends a text.
#[derive(Debug, PartialEq, Eq)]
struct End {
    word: String,
    /// Whether tabs may stand before it.
    indented: bool,
}

impl End {
    fn is(&self, line: &str) -> bool {
        let line = line.trim_end_matches('\r');
        self.word == if self.indented { line.trim_start_matches('\t') } else { line }
    }
}

/// The texts that an instruction begins. None: builders differ in that.
fn texts_of(instruction: &str) -> Option<VecDeque<End>> {
    let (word, rest) = split_word(instruction);
    let (word, rest) = if word.eq_ignore_ascii_case("onbuild") { split_word(rest) } else { (word, rest) };
    let begins = ["run", "copy", "add"].iter().any(|known| word.eq_ignore_ascii_case(known));
    if !begins || !rest.contains("<<") {
        return Some(VecDeque::new());
    }
    let mut ends = VecDeque::new();
    for word in rest.split_whitespace() {
        match word.split_once("<<") {
            Some((number, end)) if number.chars().all(|c| c.is_ascii_digit()) => ends.push_back(end_of(end)?),
            Some(_) => return None,
            None if word.contains(['"', '\'', '\\', '`', '{', '(', '[']) => return None,
            None => {}
        }
    }
    Some(ends)
}

fn end_of(word: &str) -> Option<End> {
    let (indented, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
    let quoted = |quote: char| word.strip_prefix(quote)?.strip_suffix(quote);
    let word = quoted('"').or_else(|| quoted('\'')).unwrap_or(word);
    let plain = word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    plain.then(|| End { word: word.to_owned(), indented })
}

fn split_word(instruction: &str) -> (&str, &str) {
    let (word, rest) = instruction.trim().split_once(char::is_whitespace).unwrap_or((instruction.trim(), ""));
    (word, rest.trim_start())
}

/// What is known of an argument's value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Value(String),
    /// Declared, and nothing says what it is.
    Unset,
    /// Builders differ, or it is not ours to know.
    Unknown,
}

/// One reading of a file.
struct Reader<'a> {
    given: &'a Arguments<'a>,
    arguments: HashMap<String, Known>,
    /// Whether an `ARG` was met that builders split differently: nothing is known of any argument then.
    doubtful: bool,
    stages: Stages,
}

impl<'a> Reader<'a> {
    fn new(given: &'a Arguments<'a>) -> Self {
        Self { given, arguments: HashMap::new(), doubtful: false, stages: Stages::default() }
    }

    fn read(&mut self, line: usize, instruction: &str, mentions: &mut Mentions) -> Result<(), String> {
        let (word, rest) = split_word(instruction);
        if word.eq_ignore_ascii_case("arg") {
            // Only arguments before the first stage can be put into `FROM`.
            if self.stages.lines.is_empty() {
                self.declare(rest);
            }
            return Ok(());
        }
        Within(self).read(line, instruction, mentions)?;
        if word.eq_ignore_ascii_case("from") {
            let words: Vec<&str> = rest.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
            match words.as_slice() {
                [_] => self.stages.begin(line, None)?,
                [_, middle, name] if middle.eq_ignore_ascii_case("as") => self.stages.begin(line, Some(name))?,
                // No builder takes it.
                _ => {}
            }
        }
        Ok(())
    }

    /// Words that every builder takes for the same: anything else makes all arguments doubtful.
    fn declare(&mut self, rest: &str) {
        for word in rest.split_whitespace() {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let Some(value) = value.map(unquoted).transpose().ok().filter(|_| is_name) else {
                self.doubtful = true;
                return;
            };
            let before = self.arguments.get(name);
            let known = match (self.given.get(name), value) {
                (Some(Some(given)), _) => Known::Value((*given).to_owned()),
                (Some(None), _) => Known::Unknown,
                (None, Some(value)) => self.put_in(value).map_or(Known::Unknown, Known::Value),
                (None, None) if before.is_some() || AUTOMATIC.contains(&name) => Known::Unknown,
                (None, None) => Known::Unset,
            };
            let known = match known {
                Known::Value(value) if value.len() > LONGEST => Known::Unknown,
                known => known,
            };
            self.arguments.insert(name.to_owned(), known);
        }
    }

    fn known(&self, name: &str) -> Known {
        match self.arguments.get(name) {
            Some(known) => known.clone(),
            None if AUTOMATIC.contains(&name) => Known::Unknown,
            // An argument that is not declared has no value.
            None => Known::Unset,
        }
    }

    /// Puts arguments in: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`. None where something is not known.
    fn put_in(&self, text: &str) -> Option<String> {
        let (mut done, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            if self.doubtful {
                return None;
            }
            done.push_str(before);
            let (asked, behind) = match after.strip_prefix('{') {
                Some(inner) => inner.split_once('}')?,
                None => {
                    after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()))
                }
            };
            let name = asked.split([':', '-', '+']).next().unwrap_or(asked);
            let form = asked.get(name.len()..).unwrap_or_default();
            let set = match self.known(name) {
                Known::Value(value) => Some(value).filter(|value| !value.is_empty()),
                Known::Unset => None,
                Known::Unknown => return None,
            };
            match (form.get(..2), form.get(2..).unwrap_or_default(), set) {
                (None, _, Some(value)) if form.is_empty() => done.push_str(&value),
                (Some(":-"), _, Some(value)) => done.push_str(&value),
                // What is nested has lost its end, and is not known.
                (Some(":-"), other, None) | (Some(":+"), other, Some(_)) if !other.contains('$') => {
                    done.push_str(other)
                }
                (Some(":+"), _, None) => {}
                _ => return None,
            }
            if done.len() > LONGEST {
                return None;
            }
            rest = behind;
        }
        done.push_str(rest);
        (done.len() <= LONGEST && !done.contains(['"', '\'', '\\', '`', '$', '{', '}'])).then_some(done)
    }
}

/// A value without the quotes around all of it.
fn unquoted(value: &str) -> Result<&str, ()> {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let bare = match (inner('"'), inner('\'')) {
        (Some(bare), _) => bare,
        // There a `$` is no argument.
        (None, Some(bare)) if !bare.contains('$') => bare,
        (None, Some(_)) => return Err(()),
        (None, None) => value,
    };
    if bare.contains(['"', '\'', '\\', '`']) { Err(()) } else { Ok(bare) }
}

/// What an instruction names, with the arguments of a reading.
struct Within<'a, 'b>(&'a Reader<'b>);

impl Within<'_, '_> {
    fn read(&self, line: usize, instruction: &str, mentions: &mut Mentions) -> Result<(), String> {
        let (mut word, mut rest) = split_word(instruction);
        if word.eq_ignore_ascii_case("onbuild") {
            // It may come true in a stage that builds on this one.
            (word, rest) = split_word(rest);
        }
        if word.eq_ignore_ascii_case("from") {
            for image in self.images(rest) {
                Mentions::add(&mut mentions.from, line, &image)?;
            }
        } else if ["copy", "add", "run"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
            for named in named_by_flags(rest) {
                Mentions::add(&mut mentions.flags, line, &named)?;
            }
        }
        Ok(())
    }

    fn images(&self, rest: &str) -> Vec<String> {
        let mut flags = rest.split_whitespace().take_while(|word| word.starts_with("--"));
        let odd = flags.any(|flag| flag.contains(['"', '\'', '\\', '`']));
        let words: Vec<&str> = rest.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
        match words.as_slice() {
            // Where a quoted flag ends is not worth knowing: the image is one of these.
            all if odd => all.iter().map(|word| self.image(word)).collect(),
            [image] => vec![self.image(image)],
            [image, middle, _] if middle.eq_ignore_ascii_case("as") => vec![self.image(image)],
            // Anything else is no instruction that a builder takes, such as a line of a program within the file.
            _ => Vec::new(),
        }
    }

    fn image(&self, word: &str) -> String {
        let bare = unquoted(word).unwrap_or(word);
        self.0.put_in(bare).unwrap_or_else(|| bare.to_owned())
    }
}

/// What the flags of an instruction name by `from`. Arguments in them are those of the stage, which are not known here, and stay as
/// they are.
fn named_by_flags(rest: &str) -> Vec<String> {
    let mut flags = String::new();
    let mut words = rest.split_whitespace();
    while let Some(word) = words.next().filter(|word| word.starts_with("--")) {
        flags.push_str(word);
        flags.push(' ');
        if word.contains(['"', '\'', '\\', '`']) {
            // Where a quoted flag ends is not worth knowing: all of the line is looked through.
            flags.extend(words.by_ref().flat_map(|word| [word, " "]));
            break;
        }
    }
    let plain = flags.replace(['"', '\'', '\\', '`'], "");
    let parts = plain.split([',', ' ', '\t']).map(|part| part.trim_start_matches("--"));
    let parts = parts.map(|part| match part.split_once('=') {
        Some((key, value)) if key.eq_ignore_ascii_case("mount") => value,
        _ => part,
    });
    let named = parts.filter_map(|part| part.split_once('=')).filter(|(key, _)| key.eq_ignore_ascii_case("from"));
    named.map(|(_, image)| image.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, given: &[(&str, &str)]) -> Vec<(usize, String)> {
        let given = given.iter().map(|(name, value)| (*name, Some(*value))).collect();
        bases(text, &given).unwrap().into_iter().map(|base| (base.line, base.image)).collect()
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
        assert_eq!(names("# Syntax = evil/front:1\nFROM a\n"), ["evil/front:1", "a"]);
        assert_eq!(names("// syntax=evil/front:1\n"), ["evil/front:1"]);
        assert_eq!(names("{\"Syntax\": \"evil/front:1 x\"}\n"), ["evil/front:1"]);
        assert_eq!(of("FROM a\n", &[("BUILDKIT_SYNTAX", "evil/f")])[0], (0, "evil/f".to_owned()));
    }

    #[test]
    fn a_line_that_goes_on_hides_nothing() {
        assert_eq!(names("FROM \\\n  evil/x\n"), ["evil/x"]);
        assert_eq!(names("# escape=`\nFROM `\n evil/x\nRUN a \\\nFROM evil/y\n"), ["evil/x", "evil/y"]);
        assert_eq!(names("FROM a\nRUN python <<E\nfrom os import path\nE\n"), ["a"]);
    }

    /// Each is taken in another way by one builder than by the next; whichever it is, the image is asked for.
    #[test]
    fn what_builders_read_in_several_ways_hides_nothing() {
        for text in [
            "FROM a\nRUN <<E\nFROM a AS evil\nE\nCOPY --from=evil x y\n",
            "FROM a\nRUN cat <<'E' <<-F\nE\nFROM a AS evil\n\tF\nCOPY --from=evil x y\n",
            "FROM a\nRUN cat <<E\nFROM evil\n",
            "FROM a\nRUN echo <<E\nCOPY --from=evil x y\nE\n",
            "# remark\n# escape=`\nFROM a\nCOPY \\\n --from=evil x y\n",
            "# escape=`\nFROM a\nCOPY `\n --from=evil x y\n",
            "FROM a\nRUN echo x\\\\\nCOPY --from=evil x y\n",
            "FROM a\nCOPY \\ \t\n--from=evil x y\n",
            "FROM a AS b\nONBUILD COPY --from=evil x y\nFROM b\n",
        ] {
            assert!(names(text).contains(&"evil".to_owned()), "{text}: {:?}", names(text));
        }
    }

    #[test]
    fn a_flag_names_its_image_however_it_is_written() {
        for flag in [
            "--from=evil",
            "--from=\"evil\"",
            "--fr\\om=evil",
            "--fr'om'=evil",
            "--mount=from=evil,target=/x",
            "--mount=\"from=evil,target=/x\"",
            "--mount=type=bind,FROM=evil,target=/x",
            "--mount=type=bind,\"from=evil\",target=/x",
            "--mount=\"type=bind, from=evil\"",
            "--network=none --mount=type=bind,target=/y --mount=type=bind,from=evil",
        ] {
            let text = format!("FROM a\nRUN {flag} x y\n");
            assert_eq!(names(&text), ["a", "evil"], "{flag}");
        }
        assert_eq!(
            names("FROM a\nRUN x --from=no ,from=no \"--from=no\"\n"),
            ["a"],
            "behind the flags it is a command"
        );
    }

    #[test]
    fn arguments_of_a_stage_are_not_taken_for_those_of_the_file() {
        assert_eq!(names("ARG X=ours\nFROM a\nARG X=evil\nRUN --mount=from=$X y\n"), ["a", "$X"]);
    }

    /// In each of these some builder takes another image than the one that seems to be named: its name must not be asked for as if it
    /// were known.
    #[test]
    fn an_argument_that_is_in_doubt_is_left_as_written() {
        for text in [
            "ARG X=ours #n X=evil\nFROM $X\n",
            "ARG #n X=evil\nFROM ${X:-ours}\n",
            "ARG X=evil\nARG X\nFROM ${X:-ours}\n",
            "ARG X='ours X=evil\nFROM ${X}\n",
            "ARG X=a\\ X=evil\nFROM $X\n",
            "ARG X='$Y'\nFROM ours${X:+/evil}\n",
            "ARG X=$Y\nFROM evil${X:+/ours}\n",
            "ARG TARGETARCH\nFROM ours${TARGETARCH:+/evil}\n",
            "FROM ${TARGETARCH:-ours}\n",
            "FROM ${X-ours}\n",
            "ARG X=a\nFROM ${X:-${Y:-ours}}\n",
            "ARG X=ours\nFROM $X\\evil\n",
            "FROM ev'il'\n",
            "ARG #n _=evil\nFROM $_\n",
        ] {
            let names = names(text);
            assert!(
                names.iter().all(|name| name.contains(['$', '\'', '\\'])) && !names.is_empty(),
                "{text}: {names:?}"
            );
        }
        let secret = BTreeMap::from([("X", None), ("BUILDKIT_SYNTAX", None)]);
        let found = bases("ARG X=ours\nFROM $X\n", &secret).unwrap();
        assert_eq!(found.iter().map(|base| base.image.as_str()).collect::<Vec<_>>(), ["$BUILDKIT_SYNTAX", "$X"]);
    }

    #[test]
    fn a_name_is_a_stage_s_only_where_every_builder_says_so() {
        for text in [
            "FROM a\nRUN cat << E\nFROM a AS evil\nE\nCOPY --from=evil x y\n",
            "FROM a\nRUN cat \"<<E\"\nFROM a AS evil\nE\nCOPY --from=evil x y\n",
            "FROM a\nRUN echo $((1<<E))\nFROM a AS evil\nCOPY --from=evil x y\n",
            "FROM a\nRUN [\"echo\", \"<<E\"]\nFROM a AS evil\nE\nCOPY --from=evil x y\n",
            "FROM a\nRUN cat <<E'F'\nFROM a AS evil\nEF\nCOPY --from=evil x y\n",
            "FROM a\nRUN cat <<E\nx \\\n#\nE\nCOPY --from=evil x y\n",
            "FROM a\nRUN cat <<'#'\nx \\\n#\nCOPY --from=evil x y\n",
            "FROM a AS evil!\nCOPY --from=evil! x y\n",
            "FROM a AS $X\nCOPY --from=$X x y\n",
            "FROM a\nCOPY --from=evil x y\nFROM b AS evil\n",
        ] {
            assert!(
                names(text).iter().any(|name| name.starts_with("evil") || name == "$X"),
                "{text}: {:?}",
                names(text)
            );
        }
        let plain = "FROM a AS one\nRUN cat <<-'E' > /x && cat <<F\nFROM evil\n\tE\nF\nFROM b AS two\nCOPY --from=one x y\nCOPY --from=two x y\nCOPY --from=1 x y\n";
        assert_eq!(names(plain), ["a", "evil", "b"], "those of a file that all builders read alike are stages");
    }

    #[test]
    fn what_only_some_builders_take_for_a_blank_or_a_remark_hides_nothing() {
        for text in [
            "FROM a\nCOPY\\\n --from=evil x y\n",
            "FROM a\nRUN x \\\n\u{feff}# b\nCOPY --from=evil x y\n",
            "FROM a\nRUN x \\\n  # remark\nCOPY --from=evil x y\n",
            "FROM --platform=\"x y\" evil\n",
            "FROM --platform=\"${X:+ }linux/amd64\" evil\n",
            "FROM --platform=x\\ y evil\n",
        ] {
            assert!(names(text).contains(&"evil".to_owned()), "{text}: {:?}", names(text));
        }
        for text in ["FROM a\nRUN x \\\u{b}\nCOPY --from=evil x y\n", "{\"syntax\": \"evil\", \"x\": \"\\ud800\"}"] {
            assert!(bases(text, &BTreeMap::new()).is_err(), "{text}");
        }
        assert_eq!(names("{\"\u{17f}yntax\": \"evil\"}"), ["evil"], "as a reader that folds letters does");
    }

    #[test]
    fn what_is_certain_depends_on_no_argument() {
        let text = "ARG X=a Y\nFROM $X\nFROM b${Y:+c}\nFROM ${Z:-d}\nFROM e\nFROM ${X:-f}\n";
        let certain: Vec<_> = certain(text).into_iter().map(|base| base.image).collect();
        assert_eq!(certain, ["d", "e"]);
    }

    /// A file is a stranger's. None of these may take more than its length in time, memory or stack.
    #[test]
    fn a_file_that_is_made_to_exhaust_the_reader_does_not() {
        let onbuild = format!("FROM a\n{}COPY --from=evil x y\n", "ONBUILD ".repeat(30_000));
        assert_eq!(names(&onbuild), ["a"]);
        let mut doubling = String::from("ARG A0=aaaaaaaaaaaaaaaa\n");
        for at in 0..60 {
            doubling += &format!("ARG A{}=$A{at}$A{at}\n", at + 1);
        }
        assert_eq!(names(&(doubling + "FROM $A60\n")), ["$A60"]);
        let nested = format!("FROM {}x{}\n", "${X:-".repeat(40_000), "}".repeat(40_000));
        assert_eq!(names(&nested).len(), 1);
        let long = |line: &dyn Fn(usize) -> String| (0..20_000).map(line).collect::<String>();
        for text in [
            long(&|at| format!("FROM i{at}\n")),
            long(&|at| format!("FROM a AS s{at}\n")),
            long(&|_| "RUN cat <<E \\\n".to_owned()),
        ] {
            assert!(bases(&text, &BTreeMap::new()).is_err());
        }
        let ends = format!("FROM a\nRUN {}\n{}", "<<E ".repeat(30_000), "E\n".repeat(30_000));
        assert_eq!(names(&ends), ["a"]);
    }
}
