//! Replaces secret values in what a job writes: the net below the rule that secrets travel by name.
//!
//! A stream may cut a value anywhere, so bytes that could begin one are held back until they cannot, or until the stream
//! ends. It must never let a part of a value through because two values overlap, and never hold back more than the longest
//! value.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// What stands where a value stood.
pub const MASK: &[u8] = b"***";
const MASK_TEXT: &str = "***";

/// Lines of a value with several lines count as values of their own from this length: terminals change line ends.
const SHORTEST_LINE: usize = 16;

/// Shorter parts of a value at the edge of a piece of a stream say nothing.
const SHORTEST_PART: usize = 3;

/// Knows the values to replace. Cheap to clone. `Debug` shows how many there are.
#[derive(Clone, Default)]
pub struct Redactor {
    values: Arc<Vec<Vec<u8>>>,
    first: Arc<[Vec<usize>]>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("values", &self.values.len()).finish()
    }
}

impl Redactor {
    /// A redactor for these values; empty ones are left out.
    #[must_use]
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for value in values {
            all.push(value.as_bytes().to_vec());
            if value.contains('\n') {
                all.extend(
                    value.lines().filter(|line| line.len() >= SHORTEST_LINE).map(|line| line.as_bytes().to_vec()),
                );
            }
        }
        all.retain(|value| !value.is_empty());
        all.sort();
        all.dedup();
        // Longest first, so that the first that matches is the longest.
        all.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let first = (0..=u8::MAX)
            .map(|byte| {
                all.iter()
                    .enumerate()
                    .filter(|(_, value)| value.first() == Some(&byte))
                    .map(|(index, _)| index)
                    .collect()
            })
            .collect();
        Self { values: Arc::new(all), first }
    }

    /// One stream of bytes.
    #[must_use]
    pub fn stream(&self) -> RedactStream {
        RedactStream { redactor: self.clone(), held: Vec::new(), covered: 0 }
    }

    /// A text as a whole.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        if self.values.is_empty() {
            return text.to_owned();
        }
        let mut stream = self.stream();
        let mut clean = stream.push(text.as_bytes());
        clean.extend(stream.finish());
        // Values are whole UTF-8 texts, so what is left between them is one too.
        String::from_utf8(clean).unwrap_or_else(|_| MASK_TEXT.to_owned())
    }

    /// Every text in a JSON value, names of members included.
    #[must_use]
    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().map(|(name, member)| (self.text(name), self.json(member))).collect())
            }
            other => other.clone(),
        }
    }

    /// Blots values out in place, so that lengths and offsets stay what they were; whether there were any.
    ///
    /// `cut`: the bytes are a piece of a stream, whose edges may hold parts of a value. From three bytes on they count.
    pub fn blot(&self, bytes: &mut [u8], cut: bool) -> bool {
        if self.values.is_empty() {
            return false;
        }
        let mut covered = Vec::new();
        for place in 0..bytes.len() {
            if let Found::Value(length) = self.at(bytes.get(place..).unwrap_or_default(), true) {
                covered.push(place..place.saturating_add(length));
            }
        }
        for value in self.values.iter().filter(|_| cut) {
            if bytes.len() >= SHORTEST_PART && value.windows(bytes.len()).any(|part| part == bytes) {
                covered.push(0..bytes.len());
                break;
            }
            let parts = (SHORTEST_PART..value.len().min(bytes.len().saturating_add(1))).rev();
            let mut at_start = parts.clone().filter(|length| bytes.starts_with(tail(value, *length)));
            let mut at_end = parts.filter(|length| value.get(..*length).is_some_and(|start| bytes.ends_with(start)));
            covered.extend(at_start.next().map(|length| 0..length));
            covered.extend(at_end.next().map(|length| bytes.len().saturating_sub(length)..bytes.len()));
        }
        let found = !covered.is_empty();
        for part in covered {
            bytes.get_mut(part).unwrap_or_default().fill(b'*');
        }
        found
    }

    fn at(&self, bytes: &[u8], ended: bool) -> Found {
        let Some(byte) = bytes.first() else { return Found::Nothing };
        let candidates = self.first.get(usize::from(*byte)).map(Vec::as_slice).unwrap_or_default();
        let mut longest = 0;
        for value in candidates.iter().filter_map(|index| self.values.get(*index)) {
            if !ended && value.len() > bytes.len() && value.starts_with(bytes) {
                return Found::Undecided;
            }
            if longest == 0 && bytes.starts_with(value) {
                longest = value.len();
            }
        }
        if longest == 0 { Found::Nothing } else { Found::Value(longest) }
    }
}

fn tail(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(length)..).unwrap_or_default()
}

enum Found {
    Nothing,
    Value(usize),
    /// More bytes are needed to tell.
    Undecided,
}

/// A stream that goes on.
#[derive(Debug)]
pub struct RedactStream {
    redactor: Redactor,
    held: Vec<u8>,
    /// How many of the bytes to come belong to a value that has been replaced already.
    covered: usize,
}

impl RedactStream {
    /// Takes the next bytes and answers what may be shown.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.drain(false)
    }

    /// The stream has ended: what was held back.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.drain(true)
    }

    fn drain(&mut self, ended: bool) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let mut shown = Vec::with_capacity(held.len());
        let mut rest = held.as_slice();
        while let Some((byte, after)) = rest.split_first() {
            match self.redactor.at(rest, ended) {
                Found::Undecided => break,
                Found::Value(length) => {
                    if self.covered == 0 {
                        shown.extend_from_slice(MASK);
                    }
                    self.covered = self.covered.max(length);
                }
                Found::Nothing => {}
            }
            if self.covered == 0 {
                shown.push(*byte)
            } else {
                self.covered -= 1
            }
            rest = after;
        }
        self.held = rest.to_vec();
        shown
    }
}

/// Where output comes from: a node, and whether it is what that prints as errors.
pub type Source = (u32, bool);

/// A stream for each source, where the outputs of several come in turns: a value that one of them prints in pieces is
/// replaced although another prints in between.
#[derive(Debug)]
pub struct Masks {
    redactor: Redactor,
    streams: BTreeMap<Source, RedactStream>,
}

impl Masks {
    /// One stream for each source, all without the same values.
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, streams: BTreeMap::new() }
    }

    /// Takes the next bytes of a source and answers what may be shown.
    #[must_use]
    pub fn push(&mut self, source: Source, bytes: &[u8]) -> Vec<u8> {
        self.streams.entry(source).or_insert_with(|| self.redactor.stream()).push(bytes)
    }

    /// All have ended: what was held back.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.streams.into_values().flat_map(RedactStream::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_chunks(redactor: &Redactor, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut stream = redactor.stream();
        let mut shown: Vec<u8> = bytes.chunks(size).flat_map(|chunk| stream.push(chunk)).collect();
        shown.extend(stream.finish());
        shown
    }

    #[test]
    fn a_value_cut_over_chunks_is_replaced() {
        let redactor = Redactor::new(["hunter2hunter2"]);
        for size in 1..20 {
            assert_eq!(in_chunks(&redactor, b"login hunter2hunter2 hunter2 done", size), b"login *** hunter2 done");
        }
    }

    #[test]
    fn a_value_that_one_node_prints_in_pieces_while_another_prints_is_replaced() {
        let mut masks = Masks::new(Redactor::new(["hunter2hunter2"]));
        let mut shown = masks.push((0, false), b"a hunter2");
        shown.extend(masks.push((1, false), b"b\n"));
        shown.extend(masks.push((0, true), b"c\n"));
        shown.extend(masks.push((0, false), b"hunter2 d\nhunt"));
        shown.extend(masks.finish());
        assert_eq!(String::from_utf8_lossy(&shown), "a b\nc\n*** d\nhunt");
    }

    #[test]
    fn overlapping_values_leave_no_tail() {
        let redactor = Redactor::new(["abcdef", "defghi", "abc"]);
        assert_eq!(in_chunks(&redactor, b"-abcdefghi-abc-abcdef", 4), b"-***-***-***");
        let nested = Redactor::new(["abcdef", "bc"]);
        assert_eq!(in_chunks(&nested, b"-abcdef-bc", 4), b"-***-***");
    }

    #[test]
    fn text_that_begins_no_value_is_shown_at_once() {
        let mut stream = Redactor::new(["secret-value"]).stream();
        assert_eq!(stream.push(b"progress 50%\rsec"), b"progress 50%\r");
        assert_eq!(stream.push(b"ond"), b"second");
        assert_eq!(stream.finish(), b"");
    }

    #[test]
    fn lines_of_a_key_are_replaced_under_other_line_ends() {
        let redactor = Redactor::new(["-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n"]);
        assert_eq!(
            redactor.text("x\r\nMIIEvQIBADANBgkqhkiG9w0B\r\nAQEFAASCBKcwggSjAgEAAoIB\r\n"),
            "x\r\n***\r\n***\r\n"
        );
    }

    #[test]
    fn json_is_redacted_before_it_is_escaped() {
        let redactor = Redactor::new(["pass\"word"]);
        assert_eq!(
            redactor.json(&serde_json::json!({"a": ["pass\"word", 1, null]})),
            serde_json::json!({"a": ["***", 1, null]})
        );
        assert!(!format!("{redactor:?}").contains("pass"));
    }

    proptest! {
        #[test]
        fn no_value_is_left_and_chunks_do_not_matter(text in "[abc ]{0,60}", values in prop::collection::vec("[abc]{2,5}", 0..4), size in 1usize..9) {
            let redactor = Redactor::new(values.iter().map(String::as_str));
            let shown = String::from_utf8(in_chunks(&redactor, text.as_bytes(), size)).unwrap();
            prop_assert_eq!(&shown, &redactor.text(&text));
            for value in &values {
                prop_assert!(!shown.contains(value.as_str()));
            }
        }

        #[test]
        fn without_values_bytes_pass_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(in_chunks(&Redactor::default(), &bytes, 7), bytes);
        }
    }
}
