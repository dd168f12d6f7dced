//! Looks for error patterns in a log of any size.
//!
//! Patterns and what is known to be harmless are data (`presets/log-errors.json`), widened by the model card and the
//! context. The scan is evidence against success and nothing more: it answers the first line that speaks against it, and
//! must never fail because of what a log contains.

use std::io::{self, BufRead};

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::capability::events::printable;

const PRESET: &str = include_str!("../../../presets/log-errors.json");

/// Bytes of a line that are looked at together. A longer line is looked at in overlapping pieces.
const PIECE: usize = 256 << 10;
/// Characters of a line that a hit shows.
const SHOWN: usize = 240;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    #[allow(dead_code, reason = "says which reader the file is for")]
    schema: u32,
    patterns: Vec<String>,
    benign: Vec<String>,
    benign_expressions: Vec<String>,
    /// Words before a pattern that make the line one about the pattern: somebody else's scan.
    mentions: Vec<String>,
}

/// The shipped data cannot be used; a mistake of this program's makers.
#[derive(Debug, thiserror::Error)]
#[error("`presets/log-errors.json`: {0}")]
pub struct PresetError(String);

/// What to look for.
#[derive(Debug, Clone)]
pub struct ErrorScan {
    enabled: bool,
    patterns: Vec<String>,
    any_pattern: Regex,
    benign: Vec<String>,
    benign_expressions: Vec<Regex>,
    mentions: Vec<String>,
}

/// The first line that speaks against success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorHit {
    /// From 1.
    pub line: u64,
    /// The line around the pattern, printable, cut with `…`.
    pub text: String,
    /// The pattern that it contains.
    pub pattern: String,
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn expression(pattern: &str) -> Result<Regex, PresetError> {
    // Bytes, not characters: a line need not be UTF-8.
    RegexBuilder::new(pattern).unicode(false).build().map_err(|error| PresetError(error.to_string()))
}

impl ErrorScan {
    /// The scan that a model card and the context ask for.
    ///
    /// `log_error_pattern_scan` and `log_error_patterns` of the context go before the card's; harmless texts of both are
    /// added to the shipped ones.
    ///
    /// # Errors
    /// The shipped data cannot be used.
    pub fn new(card: &Value, context: &Value) -> Result<Self, PresetError> {
        let preset: Preset = serde_json::from_str(PRESET).map_err(|error| PresetError(error.to_string()))?;
        let layers = [context, card];
        let switch = layers.iter().find_map(|layer| layer.get("log_error_pattern_scan"));
        let patterns = layers
            .iter()
            .filter_map(|layer| layer.get("log_error_patterns").map(texts))
            .find(|patterns| !patterns.is_empty())
            .unwrap_or(preset.patterns);
        let mut benign = preset.benign;
        for layer in [card, context] {
            benign.extend(layer.get("log_error_benign_patterns").map(texts).unwrap_or_default());
        }
        let alternatives: Vec<String> = patterns.iter().map(|pattern| regex::escape(pattern)).collect();
        let any_pattern = Regex::new(&alternatives.join("|")).map_err(|error| PresetError(error.to_string()))?;
        let benign_expressions =
            preset.benign_expressions.iter().map(|text| expression(text)).collect::<Result<_, _>>()?;
        Ok(Self {
            enabled: !switch.is_some_and(is_off),
            patterns,
            any_pattern,
            benign,
            benign_expressions,
            mentions: preset.mentions,
        })
    }

    /// Whether the scan was not turned off.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The first line of a log that speaks against success.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn first_hit(&self, mut log: impl BufRead) -> io::Result<Option<ErrorHit>> {
        if !self.enabled {
            return Ok(None);
        }
        let overlap = self.patterns.iter().chain(&self.benign).map(String::len).max().unwrap_or(0).min(PIECE / 2);
        let mut piece = Vec::new();
        let mut line = Line { number: 1, ..Line::default() };
        loop {
            let (complete, ended) = read_piece(&mut log, &mut piece)?;
            if piece.is_empty() && ended {
                return Ok(line.hit);
            }
            self.judge(&piece, &mut line);
            if complete || ended {
                if line.hit.is_some() || ended {
                    return Ok(line.hit);
                }
                line = Line { number: line.number + 1, ..Line::default() };
                piece.clear();
            } else {
                let from = piece.len().saturating_sub(overlap);
                piece.drain(..from);
            }
        }
    }

    /// Takes one piece of a line into account.
    fn judge(&self, piece: &[u8], line: &mut Line) {
        if line.benign || (line.hit.is_none() && !self.any_pattern.is_match(piece)) {
            // What is harmless matters only where there is something to excuse, but a later piece may have it.
            line.benign = line.benign || (piece.len() >= PIECE && self.is_benign(piece));
            return;
        }
        if self.is_benign(piece) {
            line.benign = true;
            line.hit = None;
            return;
        }
        if line.hit.is_none() {
            let pattern =
                self.patterns.iter().find(|pattern| contains(piece, pattern) && !self.is_mention(piece, pattern));
            line.hit = pattern.map(|pattern| ErrorHit {
                line: line.number,
                text: excerpt(piece, pattern),
                pattern: pattern.clone(),
            });
        }
    }

    fn is_benign(&self, line: &[u8]) -> bool {
        self.benign.iter().any(|text| contains(line, text))
            || self.benign_expressions.iter().any(|expression| expression.is_match(line))
    }

    fn is_mention(&self, line: &[u8], pattern: &str) -> bool {
        self.mentions.iter().any(|word| {
            position(line, word).and_then(|at| line.get(at + word.len()..)).is_some_and(|rest| contains(rest, pattern))
        })
    }
}

#[derive(Debug, Default)]
struct Line {
    number: u64,
    benign: bool,
    hit: Option<ErrorHit>,
}

/// Adds to `piece` until the line ends (which is not added), the piece is full, or the log ends.
/// Answers whether the line is complete and whether the log has ended.
fn read_piece(log: &mut impl BufRead, piece: &mut Vec<u8>) -> io::Result<(bool, bool)> {
    while piece.len() < PIECE {
        let chunk = match log.fill_buf() {
            Ok([]) => return Ok((false, true)),
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let room = chunk.get(..PIECE - piece.len()).unwrap_or(chunk);
        let mut parts = room.splitn(2, |byte| *byte == b'\n');
        let line = parts.next().unwrap_or_default();
        let complete = parts.next().is_some();
        piece.extend_from_slice(line);
        let used = line.len() + usize::from(complete);
        log.consume(used);
        if complete {
            return Ok((true, false));
        }
    }
    Ok((false, false))
}

fn position(line: &[u8], text: &str) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    line.windows(text.len()).position(|window| window == text.as_bytes())
}

fn contains(line: &[u8], text: &str) -> bool {
    position(line, text).is_some()
}

/// The part of a line around a pattern, fit for a terminal.
fn excerpt(line: &[u8], pattern: &str) -> String {
    let from = position(line, pattern).unwrap_or(0).saturating_sub(SHOWN / 3);
    let from = if line.len() <= SHOWN { 0 } else { from };
    let rest = String::from_utf8_lossy(line.get(from..).unwrap_or_default());
    let cut: String = rest.trim().chars().take(SHOWN).collect();
    let before = if from > 0 { "…" } else { "" };
    let after = if cut.len() < rest.trim().len() { "…" } else { "" };
    format!("{before}{}{after}", printable(&cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn scan(log: &[u8], card: &Value, context: &Value) -> Option<ErrorHit> {
        ErrorScan::new(card, context).unwrap().first_hit(log).unwrap()
    }

    fn line_of(log: &str) -> Option<u64> {
        scan(log.as_bytes(), &json!({}), &json!({})).map(|hit| hit.line)
    }

    #[test]
    fn the_first_line_with_a_pattern_is_answered_with_number_text_and_pattern() {
        let hit = scan(b"fine\r\n\x1b[31mRuntimeError: no\r\nSystemExit\n", &json!({}), &json!({})).unwrap();
        assert_eq!(
            hit,
            ErrorHit { line: 2, text: "\u{fffd}[31mRuntimeError: no".to_owned(), pattern: "RuntimeError:".to_owned() }
        );
    }

    #[test]
    fn harmless_lines_are_excused() {
        for harmless in [
            "rpd_tracer: FAILED",
            "E20250101 x RuntimeError: generateRocpd.cpp:1",
            "W20250101 Exception: simple_timer.cpp",
            "[rocprofv3] FAILED",
            "FutureWarning: ValueError: x",
            "grep -qE 'a' FAILED log",
            "+ grep -q RuntimeError: x.log",
            "Found error pattern 'SystemExit'",
            "nothing",
        ] {
            assert_eq!(line_of(harmless), None, "{harmless}");
        }
        for grave in [
            "xE20250101 FAILED generateRocpd.cpp",
            "FAILED grep -q",
            "Found error pattern FAILED; ImportError: y Found",
            "FAILED",
        ] {
            assert_eq!(
                line_of(grave).is_some(),
                grave != "Found error pattern FAILED; ImportError: y Found",
                "{grave}"
            );
        }
    }

    #[test]
    fn the_context_goes_before_the_card() {
        let log = b"FAILED\nboom\nbang\n";
        let pattern = |card: Value, context: Value| scan(log, &card, &context).map(|hit| hit.pattern);
        assert_eq!(pattern(json!({"log_error_patterns": ["boom"]}), json!({})).as_deref(), Some("boom"));
        assert_eq!(
            pattern(json!({"log_error_patterns": ["boom"]}), json!({"log_error_patterns": ["bang"]})).as_deref(),
            Some("bang")
        );
        assert_eq!(
            pattern(json!({"log_error_patterns": []}), json!({"log_error_patterns": [1, ""]})).as_deref(),
            Some("FAILED")
        );
        assert_eq!(
            pattern(json!({"log_error_benign_patterns": ["FAIL"]}), json!({"log_error_benign_patterns": ["x"]})),
            None
        );
        for off in [json!(false), json!(0), json!("0"), json!("False"), json!("no"), json!("off"), json!("")] {
            assert_eq!(pattern(json!({"log_error_pattern_scan": off}), json!({})), None);
            assert_eq!(
                pattern(json!({"log_error_pattern_scan": off}), json!({"log_error_pattern_scan": null})).as_deref(),
                Some("FAILED")
            );
            assert_eq!(pattern(json!({"log_error_pattern_scan": true}), json!({"log_error_pattern_scan": off})), None);
        }
    }

    #[test]
    fn a_line_longer_than_a_piece_is_one_line() {
        let blanks = " ".repeat(PIECE - 3);
        assert_eq!(line_of(&format!("a\n{blanks}FAILED\n")), Some(2));
        assert_eq!(line_of(&format!("a\n{blanks}FAILED{blanks}rpd_tracer:{blanks}\nb\nSystemExit")), Some(4));
        assert_eq!(line_of(&format!("rpd_tracer:{blanks}FAILED{blanks}\n{blanks}{blanks}\nSystemExit")), Some(3));
        let hit = scan(format!("{blanks}x FAILED y{blanks}z").as_bytes(), &json!({}), &json!({})).unwrap();
        assert!(hit.text.chars().count() <= SHOWN + 2);
        assert!(hit.text.contains("x FAILED y"));
    }

    /// Line by line, without pieces.
    fn simple(log: &[u8]) -> Option<u64> {
        let scan = ErrorScan::new(&json!({}), &json!({})).unwrap();
        let hit = log.split(|byte| *byte == b'\n').position(|line| {
            !scan.is_benign(line)
                && scan.patterns.iter().any(|pattern| contains(line, pattern) && !scan.is_mention(line, pattern))
        });
        hit.map(|index| index as u64 + 1)
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_answer_the_same_line(tokens in prop::collection::vec(prop::sample::select(vec!["FAILED", "SystemExit", "FAI", "LED", "\n", "\r\n", " ", "grep -q", "FutureWarning", "[rocprofv3]", "E12345678", "tool.cpp", "é"]), 0..30), noise in prop::collection::vec(any::<u8>(), 0..20), size in 1usize..9) {
            let mut log = tokens.concat().into_bytes();
            log.extend(noise);
            let scan = ErrorScan::new(&json!({}), &json!({})).unwrap();
            let hit = scan.first_hit(io::BufReader::with_capacity(size, log.as_slice())).unwrap();
            prop_assert_eq!(hit.map(|hit| hit.line), simple(&log));
        }
    }
}
