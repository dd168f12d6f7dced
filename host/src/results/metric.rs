//! Finds the performance line in a log of any size.
//!
//! ```text
//! hit    = "performance:" WS{1,} number [ sep ] WS{1,} metric
//! number = [ "+" | "-" ] ( digits [ "." {digit} ] | "." digits ) [ ("e"|"E") [ "+" | "-" ] digits ]
//! sep    = "," | [ "," ] {WS} "/" letters {WS} [ "," ]
//! metric = one or more bytes that are neither WS nor ","
//! ```
//!
//! The leftmost hit of the whole log wins; white space (ASCII) may include newlines. Where a text can be read with and
//! without a unit (`/s`), the reading with the unit wins if it leads to a metric. Without a hit, `train_samples_per_second`
//! followed by quotes, colons, equals signs or blanks and a number counts as `samples_per_second`.
//!
//! The scanner keeps a few bytes, never the log, and must never re-type a number: the digits stay as measured. It reads
//! bytes, so text that is not UTF-8 is no error. A number longer than [`LONGEST`] is none; a longer metric name is cut.

use std::io::{self, BufRead};

/// Bytes of a number or metric name that are kept at most.
pub const LONGEST: usize = 1024;

const PERFORMANCE: &[u8] = b"performance:";
const SAMPLES: &[u8] = b"train_samples_per_second";
const SAMPLES_METRIC: &str = "samples_per_second";

/// A measured value and the name of what was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// The digits as the log has them.
    pub value: String,
    /// Such as `samples_per_second`.
    pub name: String,
}

/// Looks for the metric of a log.
///
/// # Errors
/// The log cannot be read.
pub fn find_metric(mut log: impl BufRead) -> io::Result<Option<Metric>> {
    let mut scanner = MetricScanner::default();
    loop {
        let chunk = match log.fill_buf() {
            Ok([]) => return Ok(scanner.finish()),
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        scanner.feed(chunk);
        let used = chunk.len();
        log.consume(used);
        if scanner.is_settled() {
            return Ok(scanner.finish());
        }
    }
}

/// Looks for the metric of a log that comes in pieces; where it is cut does not change the answer.
#[derive(Debug, Default)]
pub struct MetricScanner {
    line: LineScan,
    samples: SamplesScan,
}

impl MetricScanner {
    /// The next bytes of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.line.found.is_some() {
                return;
            }
            self.line.step(*byte);
            if self.samples.found.is_none() {
                self.samples.step(*byte);
            }
        }
    }

    /// Whether more bytes cannot change the answer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.line.found.is_some()
    }

    /// The log has ended.
    #[must_use]
    pub fn finish(mut self) -> Option<Metric> {
        self.line.end();
        self.samples.end();
        self.line.found.or(self.samples.found)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Steps through a literal whose first byte occurs in it once, so that a mismatch can only start over.
fn step_literal(literal: &[u8], matched: &mut usize, byte: u8) -> bool {
    if literal.get(*matched) == Some(&byte) {
        *matched += 1;
    } else {
        *matched = usize::from(literal.first() == Some(&byte));
    }
    let complete = *matched == literal.len();
    if complete {
        *matched = 0;
    }
    complete
}

/// Where in a number the reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Start,
    Signed,
    /// A point without a digit before it.
    BarePoint,
    Whole,
    Fraction,
    PowerMark,
    PowerSigned,
    Power,
}

impl Digits {
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Start, b'+' | b'-') => Self::Signed,
            (Self::Start | Self::Signed | Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Start | Self::Signed, b'.') => Self::BarePoint,
            (Self::Whole, b'.') => Self::Fraction,
            (Self::BarePoint | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Whole | Self::Fraction, b'e' | b'E') => Self::PowerMark,
            (Self::PowerMark, b'+' | b'-') => Self::PowerSigned,
            (Self::PowerMark | Self::PowerSigned | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Whole | Self::Fraction | Self::Power)
    }
}

/// Whether a text is, as a whole, a number of the grammar.
#[must_use]
pub fn is_number(text: &str) -> bool {
    text.bytes().try_fold(Digits::Start, Digits::next).is_some_and(Digits::is_number)
}

/// Where in a hit the reading is, after the word `performance:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Colon,
    Gap,
    Number(Digits),
    /// White space after the number, or after the number and a comma.
    NumberGap,
    NumberComma,
    UnitSlash,
    Unit,
    UnitGap,
    UnitComma,
    UnitCommaGap,
    Metric,
}

#[derive(Debug)]
struct Candidate {
    place: Place,
    value: Vec<u8>,
    /// The metric being read. While a unit is read it is what the metric would be if the unit turns out to be the metric;
    /// `None` where that reading is impossible.
    metric: Option<Vec<u8>>,
}

impl Candidate {
    fn keep(&mut self, byte: u8) {
        if let Some(metric) = &mut self.metric
            && metric.len() < LONGEST
        {
            metric.push(byte);
        }
    }

    /// The unit leads nowhere: what was read of it is the metric, if it may be.
    fn without_unit(&self) -> Next {
        if self.metric.is_some() { Next::Hit } else { Next::Miss }
    }

    fn begin_metric(&mut self, byte: u8) -> Next {
        self.metric = Some(vec![byte]);
        Next::At(Place::Metric)
    }

    fn step(&mut self, byte: u8) -> Next {
        let space = is_space(byte);
        match self.place {
            Place::Colon if space => Next::At(Place::Gap),
            Place::Gap if space => Next::At(Place::Gap),
            Place::Gap => self.step_number(Digits::Start, byte),
            Place::Number(digits) => self.step_number(digits, byte),
            Place::NumberComma | Place::NumberGap if space => Next::At(Place::NumberGap),
            Place::NumberComma if byte == b'/' => Next::At(Place::UnitSlash),
            Place::NumberGap if byte == b'/' => {
                self.metric = Some(vec![byte]);
                Next::At(Place::UnitSlash)
            }
            Place::NumberGap if byte != b',' => self.begin_metric(byte),
            Place::UnitSlash | Place::Unit if byte.is_ascii_alphabetic() => {
                self.keep(byte);
                Next::At(Place::Unit)
            }
            Place::Unit | Place::UnitGap if space => Next::At(Place::UnitGap),
            Place::Unit | Place::UnitGap if byte == b',' => Next::At(Place::UnitComma),
            Place::UnitSlash | Place::Unit if space || byte == b',' => self.without_unit(),
            Place::UnitSlash | Place::Unit if self.metric.is_some() => {
                self.keep(byte);
                Next::At(Place::Metric)
            }
            Place::UnitGap => self.begin_metric(byte),
            Place::UnitComma | Place::UnitCommaGap if space => Next::At(Place::UnitCommaGap),
            Place::UnitCommaGap if byte != b',' => self.begin_metric(byte),
            Place::UnitComma | Place::UnitCommaGap => self.without_unit(),
            Place::Metric if space || byte == b',' => Next::Hit,
            Place::Metric => {
                self.keep(byte);
                Next::At(Place::Metric)
            }
            Place::Colon | Place::NumberComma | Place::NumberGap | Place::UnitSlash | Place::Unit => Next::Miss,
        }
    }

    fn step_number(&mut self, digits: Digits, byte: u8) -> Next {
        if let Some(digits) = digits.next(byte) {
            if self.value.len() == LONGEST {
                return Next::Miss;
            }
            self.value.push(byte);
            return Next::At(Place::Number(digits));
        }
        match byte {
            _ if !digits.is_number() => Next::Miss,
            b',' => Next::At(Place::NumberComma),
            b'/' => Next::At(Place::UnitSlash),
            _ if is_space(byte) => Next::At(Place::NumberGap),
            _ => Next::Miss,
        }
    }

    fn into_metric(self) -> Option<Metric> {
        let name = self.metric?;
        Some(Metric { value: text(&self.value), name: text(&name) })
    }
}

enum Next {
    At(Place),
    Hit,
    Miss,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One candidate at a time is enough: inside a hit, `performance:` can only end with a colon, and a colon either ends the
/// candidate or is part of a metric, which makes the candidate the leftmost hit.
#[derive(Debug, Default)]
struct LineScan {
    matched: usize,
    candidate: Option<Candidate>,
    found: Option<Metric>,
}

impl LineScan {
    fn step(&mut self, byte: u8) {
        if let Some(candidate) = &mut self.candidate {
            match candidate.step(byte) {
                Next::At(place) => candidate.place = place,
                Next::Miss => self.candidate = None,
                Next::Hit => {
                    self.end();
                    return;
                }
            }
        }
        if step_literal(PERFORMANCE, &mut self.matched, byte) && self.candidate.is_none() {
            self.candidate = Some(Candidate { place: Place::Colon, value: Vec::new(), metric: None });
        }
    }

    fn end(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            self.found = candidate.into_metric();
        }
    }
}

#[derive(Debug, Default)]
struct SamplesScan {
    matched: usize,
    candidate: Option<Samples>,
    found: Option<Metric>,
}

#[derive(Debug)]
struct Samples {
    separated: bool,
    digits: Digits,
    value: Vec<u8>,
    /// How much of `value` is a number; an exponent may turn out to be none.
    accepted: usize,
}

impl SamplesScan {
    fn step(&mut self, byte: u8) {
        if let Some(samples) = &mut self.candidate {
            let separator = matches!(byte, b'\'' | b'"' | b':' | b'=' | b' ');
            if samples.value.is_empty() && separator {
                samples.separated = true;
                return;
            }
            match samples.digits.next(byte) {
                Some(digits) if samples.separated && samples.value.len() < LONGEST => {
                    samples.digits = digits;
                    samples.value.push(byte);
                    if digits.is_number() {
                        samples.accepted = samples.value.len();
                    }
                    return;
                }
                _ => self.end(),
            }
        }
        if step_literal(SAMPLES, &mut self.matched, byte) && self.found.is_none() {
            self.candidate = Some(Samples { separated: false, digits: Digits::Start, value: Vec::new(), accepted: 0 });
        }
    }

    fn end(&mut self) {
        if let Some(samples) = self.candidate.take()
            && samples.accepted > 0
            && samples.value.len() < LONGEST
        {
            let value = samples.value.get(..samples.accepted).unwrap_or_default();
            self.found = Some(Metric { value: text(value), name: SAMPLES_METRIC.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(log: &[u8]) -> Option<(String, String)> {
        find_metric(log).unwrap().map(|metric| (metric.value, metric.name))
    }

    fn hit(value: &str, name: &str) -> Option<(String, String)> {
        Some((value.to_owned(), name.to_owned()))
    }

    #[test]
    fn the_performance_line_is_read_as_the_grammar_says() {
        for (log, expected) in [
            ("performance: 14164 samples_per_second", hit("14164", "samples_per_second")),
            ("x performance:\n\n 1.50e3 \n tok/s\n", hit("1.50e3", "tok/s")),
            ("performance: 5, m", hit("5", "m")),
            ("performance: 5/s m", hit("5", "m")),
            ("performance: 5 /s, m", hit("5", "m")),
            ("performance: 5, /s m", hit("5", "m")),
            ("performance: 5 /s", hit("5", "/s")),
            ("performance: 5 /s,m", hit("5", "/s")),
            ("performance: 5 /9 m", hit("5", "/9")),
            ("performance: +.5 m,n", hit("+.5", "m")),
            ("performance: 5. m", hit("5.", "m")),
            ("performance: 1,234 m", None),
            ("performance: 5 , m", None),
            ("performance: nan m", None),
            ("performance:5 m", None),
            ("Performance: 5 m", None),
            ("performance: 5", None),
            ("performance: 5 ", None),
            ("performance: 1e m", None),
            ("performance: performance: 1 a performance: 2 b", hit("1", "a")),
            ("performance: 5,/performance: 6 m", hit("6", "m")),
            ("pperformance: 7 m", hit("7", "m")),
            ("", None),
        ] {
            assert_eq!(find(log.as_bytes()), expected, "{log:?}");
        }
    }

    #[test]
    fn samples_per_second_counts_only_without_a_performance_line() {
        assert_eq!(find(b"{'train_samples_per_second': 12.30, 'x': 1}"), hit("12.30", "samples_per_second"));
        assert_eq!(find(b"train_samples_per_second = 1e\n"), hit("1", "samples_per_second"));
        assert_eq!(find(b"train_samples_per_second=nan train_samples_per_second=2"), hit("2", "samples_per_second"));
        assert_eq!(find(b"train_samples_per_second: 3\nperformance: 4 m"), hit("4", "m"));
        assert_eq!(find(b"train_samples_per_second7"), None);
    }

    #[test]
    fn bytes_that_are_not_text_are_no_obstacle() {
        assert_eq!(find(b"\xff\xfe\x00 performance: 1 m\xff"), hit("1", "m\u{fffd}"));
    }

    #[test]
    fn a_log_of_blanks_after_the_word_is_not_kept() {
        let mut scanner = MetricScanner::default();
        scanner.feed(b"performance:");
        for _ in 0..1000 {
            scanner.feed(&[b' '; 4096]);
        }
        scanner.feed(b"1 m");
        let kept = scanner
            .line
            .candidate
            .as_ref()
            .map(|candidate| candidate.value.capacity() + candidate.metric.as_ref().map_or(0, Vec::capacity));
        assert!(kept.unwrap() < 4 * LONGEST);
        assert_eq!(scanner.finish(), Some(Metric { value: "1".to_owned(), name: "m".to_owned() }));
    }

    #[test]
    fn an_endless_number_is_none_and_an_endless_name_is_cut() {
        assert_eq!(find(format!("performance: {} m", "1".repeat(LONGEST + 1)).as_bytes()), None);
        assert_eq!(
            find(format!("performance: 1 {}", "m".repeat(LONGEST + 1)).as_bytes()),
            hit("1", &"m".repeat(LONGEST))
        );
    }

    /// The grammar as a regular expression: a second implementation to compare with.
    fn reference(log: &[u8]) -> Option<(String, String)> {
        let number = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?";
        let line = format!(r"(?-u)performance:[\s]+({number})(?:,?\s*/[A-Za-z]+\s*,?|,)?\s+([^\s,]+)");
        let samples = format!(r#"(?-u)train_samples_per_second['":= ]+({number})"#);
        let text = |captures: &regex::bytes::Captures<'_>, at| String::from_utf8_lossy(&captures[at]).into_owned();
        if let Some(captures) = regex::bytes::Regex::new(&line).unwrap().captures(log) {
            return Some((text(&captures, 1), text(&captures, 2)));
        }
        let captures = regex::bytes::Regex::new(&samples).unwrap().captures(log)?;
        Some((text(&captures, 1), SAMPLES_METRIC.to_owned()))
    }

    fn log_like() -> impl Strategy<Value = Vec<u8>> {
        let token = prop::sample::select(vec![
            "performance:",
            "performance",
            "perf",
            "train_samples_per_second",
            " ",
            " ",
            " ",
            "\n",
            ",",
            "/",
            "s",
            "m",
            "5",
            "1.5",
            ".",
            "e",
            "+",
            "-",
            "'",
            ":",
            "=",
            "\u{fffd}",
        ]);
        prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn the_scanner_and_the_grammar_agree(log in log_like()) {
            prop_assert_eq!(find(&log), reference(&log));
        }

        #[test]
        fn a_hit_built_from_its_parts_is_found(before in "[a-z \n]{0,20}", ws in "[ \t\n]{1,4}", number in r"[+-]?([0-9]{1,5}(\.[0-9]{0,4})?|\.[0-9]{1,4})([eE][+-]?[0-9]{1,3})?", sep in "(,|,?[ ]{0,2}/[A-Za-z]{1,3}[ ]{0,2},?)?", gap in "[ \t\n]{1,3}", name in "[a-zA-Z_%]{1,8}") {
            let log = format!("{before}performance:{ws}{number}{sep}{gap}{name}");
            prop_assert_eq!(find(log.as_bytes()), hit(&number, &name));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic_and_chunks_do_not_matter(log in prop_oneof![log_like(), prop::collection::vec(any::<u8>(), 0..200)], cut in 1usize..9) {
            let mut scanner = MetricScanner::default();
            for chunk in log.chunks(cut) {
                scanner.feed(chunk);
            }
            let pieces = scanner.finish().map(|metric| (metric.value, metric.name));
            prop_assert_eq!(pieces, find(&log));
            prop_assert_eq!(find_metric(io::BufReader::with_capacity(cut, log.as_slice())).unwrap().map(|metric| (metric.value, metric.name)), find(&log));
        }

        #[test]
        fn what_is_called_a_number_is_one_for_rust_too(text in "[+-]?[0-9.eE+-]{0,8}") {
            if is_number(&text) {
                prop_assert!(text.parse::<f64>().is_ok());
            }
        }
    }
}
