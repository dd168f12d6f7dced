//! One parser for JSON and for Python literals, the two ways in which people write a context on a command line.
//!
//! The grammar is a superset of JSON: every JSON text means here what it means as JSON. Beyond it there are single and
//! triple quotes, the prefixes `r` and `u`, Python's escapes, `True`, `False`, `None`, tuples, trailing commas, comments
//! and Python's ways to write numbers. It must never evaluate anything, and never panic, whatever the bytes are.

use serde_json::{Map, Number, Value};

use super::path::KeyPath;

/// How many objects and lists may lie in each other; the same as the JSON parser's own.
pub const DEPTH_LIMIT: usize = 127;

/// A text that is not a literal: where, what was found and what would have fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct LiteralError {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Such as "expected `:` after the key, found `,`".
    pub message: String,
}

/// A value with the places of its keys.
#[derive(Debug, Clone)]
pub struct Located {
    /// What the text says.
    pub value: Value,
    /// Each key with its line and column, as they stand in the text.
    pub keys: Vec<(KeyPath, u32, u32)>,
}

/// Reads JSON or a Python literal.
///
/// # Errors
/// The text is neither.
pub fn parse(text: &str) -> Result<Value, LiteralError> {
    Parser { text, at: 0, depth: 0, trail: Vec::new(), keys: None }.document()
}

/// As [`parse`], for bytes of unknown origin.
///
/// # Errors
/// The bytes are not UTF-8, or the text is no literal.
pub fn parse_bytes(bytes: &[u8]) -> Result<Value, LiteralError> {
    parse(utf8(bytes)?)
}

/// As [`parse`], and remembers where each key stands.
///
/// # Errors
/// The text is no literal.
pub fn parse_located(text: &str) -> Result<Located, LiteralError> {
    let mut parser = Parser { text, at: 0, depth: 0, trail: Vec::new(), keys: Some(Vec::new()) };
    let value = parser.document()?;
    let mut keys = Vec::new();
    // Keys come in the order of the text: count lines once, not from the beginning for each key.
    let (mut line, mut line_start, mut seen) = (1_u32, 0_usize, 0_usize);
    for (path, offset) in parser.keys.unwrap_or_default() {
        for (index, _) in text.get(seen..offset).unwrap_or_default().match_indices('\n') {
            line = line.saturating_add(1);
            line_start = seen + index + 1;
        }
        seen = offset;
        keys.push((path, line, column(text.get(line_start..offset).unwrap_or_default())));
    }
    Ok(Located { value, keys })
}

/// As [`parse_located`], for texts that must be JSON.
///
/// # Errors
/// The bytes are not UTF-8 or not JSON; a Python literal is told apart.
pub fn parse_json_located(bytes: &[u8]) -> Result<Located, LiteralError> {
    let text = utf8(bytes)?;
    // The strict grammar decides; the value is read by the one parser, which keeps every digit of a number.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let python = if parse(text).is_ok() { " (it is a Python literal, and must be JSON here)" } else { "" };
        let full = error.to_string();
        let message = full.split(" at line ").next().unwrap_or(&full);
        return Err(LiteralError {
            line: number(error.line().max(1)),
            column: number(error.column().max(1)),
            message: format!("not JSON: {message}{python}"),
        });
    }
    parse_located(text)
}

fn utf8(bytes: &[u8]) -> Result<&str, LiteralError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).and_then(|good| std::str::from_utf8(good).ok()).unwrap_or_default();
        error_at(good, good.len(), "the bytes are not UTF-8 text".to_owned())
    })
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn column(line_so_far: &str) -> u32 {
    number(line_so_far.chars().count()).saturating_add(1)
}

fn error_at(text: &str, offset: usize, message: String) -> LiteralError {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    LiteralError {
        line: number(before.matches('\n').count()).saturating_add(1),
        column: column(before.get(line_start..).unwrap_or_default()),
        message,
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    trail: Vec<String>,
    keys: Option<Vec<(KeyPath, usize)>>,
}

impl<'a> Parser<'a> {
    fn document(&mut self) -> Result<Value, LiteralError> {
        let value = self.value("a value")?;
        self.blank();
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.expected("the end")),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = rest.find(|c| !wanted(c)).map_or(rest, |end| rest.get(..end).unwrap_or_default());
        self.at += taken.len();
        taken
    }

    /// White space and comments.
    fn blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> LiteralError {
        error_at(self.text, offset, message.into())
    }

    fn expected(&self, what: &str) -> LiteralError {
        self.error(self.at, format!("expected {what}, found {}", self.found()))
    }

    /// What stands here, short enough for a message.
    fn found(&self) -> String {
        let rest = self.rest();
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').take(20).collect();
        match rest.chars().next() {
            None => "the end of the text".to_owned(),
            Some(_) if !word.is_empty() => format!("`{word}`"),
            Some('\n' | '\r') => "the end of the line".to_owned(),
            Some(c) if c.is_control() => format!("`{}`", c.escape_default()),
            Some(c) => format!("`{c}`"),
        }
    }

    fn value(&mut self, what: &str) -> Result<Value, LiteralError> {
        self.blank();
        if let Some(prefix) = self.text_prefix() {
            return self.text(prefix).map(Value::String);
        }
        match self.peek() {
            Some('{') => self.nested(Self::object),
            Some('[') => self.nested(|parser| parser.list(']').map(|(items, _)| Value::Array(items))),
            Some('(') => self.nested(Self::tuple),
            Some('0'..='9' | '+' | '-' | '.') => self.number(),
            Some(c) if c.is_alphabetic() || c == '_' => self.word(what),
            _ => Err(self.expected(what)),
        }
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Result<Value, LiteralError>) -> Result<Value, LiteralError> {
        if self.depth >= DEPTH_LIMIT {
            return Err(self.error(self.at, format!("nested deeper than {DEPTH_LIMIT} levels")));
        }
        self.depth += 1;
        self.next();
        let value = inner(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, LiteralError> {
        let mut members = Map::new();
        loop {
            self.blank();
            if self.eat('}') {
                return Ok(Value::Object(members));
            }
            let start = self.at;
            let Some(prefix) = self.text_prefix() else {
                return Err(self.expected("a key in quotes or `}`"));
            };
            let key = self.text(prefix)?;
            self.blank();
            if !self.eat(':') {
                return Err(self.expected("`:` after the key"));
            }
            self.trail.push(key);
            if let Some(keys) = &mut self.keys {
                keys.push((KeyPath::from(self.trail.as_slice()), start));
            }
            let value = self.value("a value")?;
            let key = self.trail.pop().unwrap_or_default();
            // The last one counts, in JSON as in Python.
            members.insert(key, value);
            self.blank();
            if !self.eat(',') && self.peek() != Some('}') {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }

    /// The items up to `close`, and whether a comma was seen.
    fn list(&mut self, close: char) -> Result<(Vec<Value>, bool), LiteralError> {
        let mut items = Vec::new();
        let mut comma = false;
        let what = format!("a value or `{close}`");
        loop {
            self.blank();
            if self.eat(close) {
                return Ok((items, comma));
            }
            self.trail.push(items.len().to_string());
            items.push(self.value(&what)?);
            self.trail.pop();
            self.blank();
            if self.eat(',') {
                comma = true;
            } else if self.peek() != Some(close) {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// `(a)` is `a`; `()`, `(a,)` and `(a, b)` are lists.
    fn tuple(&mut self) -> Result<Value, LiteralError> {
        let (mut items, comma) = self.list(')')?;
        match items.pop() {
            Some(only) if !comma => Ok(only),
            last => {
                items.extend(last);
                Ok(Value::Array(items))
            }
        }
    }

    fn word(&mut self, what: &str) -> Result<Value, LiteralError> {
        let start = self.at;
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match word {
            "True" | "true" => Ok(Value::Bool(true)),
            "False" | "false" => Ok(Value::Bool(false)),
            "None" | "null" => Ok(Value::Null),
            _ => {
                self.at = start;
                Err(self.expected(&format!("{what} (a text needs quotes)")))
            }
        }
    }

    fn number(&mut self) -> Result<Value, LiteralError> {
        let start = self.at;
        let negative = self.peek() == Some('-');
        self.take_while(|c| c == '-' || c == '+');
        if self.at - start > 1 {
            return Err(self.error(start, "expected a number with one sign at most"));
        }
        let body_start = self.at;
        let token = self.number_token();
        let bad = |parser: &Self| {
            let text = parser.text.get(start..parser.at).unwrap_or_default();
            parser.error(start, format!("expected a number, found `{}`", text.chars().take(30).collect::<String>()))
        };
        if token.is_empty() || token.starts_with('_') || token.ends_with('_') || token.contains("__") {
            return Err(bad(self));
        }
        let digits = token.replace('_', "");
        let radix = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => Some(16),
            Some("0o") => Some(8),
            Some("0b") => Some(2),
            _ => None,
        };
        if let Some(radix) = radix {
            let body = digits.get(2..).unwrap_or_default();
            let magnitude = u64::from_str_radix(body, radix).ok().filter(|_| body.chars().all(|c| c.is_digit(radix)));
            let value = match (magnitude, negative) {
                (None, _) => None,
                (Some(magnitude), false) => Some(Number::from(magnitude)),
                (Some(magnitude), true) => 0_i64.checked_sub_unsigned(magnitude).map(Number::from),
            };
            return value.map(Value::Number).ok_or_else(|| bad(self));
        }
        let whole = digits.chars().all(|c| c.is_ascii_digit());
        if !digits.chars().all(|c| matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-')) {
            return Err(bad(self));
        }
        if whole && digits.len() > 1 && digits.starts_with('0') && digits.chars().any(|c| c != '0') {
            return Err(self.error(body_start, "expected a number without leading zeros"));
        }
        let signed = if negative { format!("-{digits}") } else { digits };
        if whole {
            // Minus zero is a float, as the JSON parser has it.
            if let Some(value) = signed.parse::<i64>().ok().filter(|value| !(negative && *value == 0)) {
                return Ok(Value::from(value));
            }
            if let Ok(value) = signed.parse::<u64>() {
                return Ok(Value::from(value));
            }
        }
        let value: f64 = signed.parse().map_err(|_| bad(self))?;
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| self.error(start, "expected a number that fits, this one is out of range"))
    }

    /// Everything that could belong to a number; a sign only after an exponent's `e`.
    fn number_token(&mut self) -> &'a str {
        let rest = self.rest();
        let hex = rest.starts_with("0x") || rest.starts_with("0X");
        let mut before = ' ';
        let end = rest
            .char_indices()
            .find(|(_, c)| {
                let part = c.is_alphanumeric()
                    || matches!(c, '.' | '_')
                    || (!hex && matches!(c, '+' | '-') && matches!(before, 'e' | 'E'));
                before = *c;
                !part
            })
            .map_or(rest.len(), |(end, _)| end);
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The letters before an opening quote, when a text begins here.
    fn text_prefix(&self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest
            .char_indices()
            .take(3)
            .find(|(_, c)| !c.is_ascii_alphabetic())
            .filter(|(_, c)| matches!(c, '"' | '\''))?
            .0;
        rest.get(..end)
    }

    fn text(&mut self, prefix: &str) -> Result<String, LiteralError> {
        let start = self.at;
        let raw = match prefix.to_ascii_lowercase().as_str() {
            "" | "u" => false,
            "r" => true,
            other if other.contains('b') => {
                return Err(self.error(start, "expected a text, found bytes; leave the `b` before the quote out"));
            }
            other if other.contains('f') => {
                return Err(self.error(start, "expected a plain text, found a formatted one; leave the `f` out"));
            }
            _ => return Err(self.error(start, format!("expected a text, found the unknown prefix `{prefix}`"))),
        };
        self.at += prefix.len();
        let Some(quote) = self.next() else { return Err(self.expected("a quote")) };
        let triple_quote: String = [quote; 3].iter().collect();
        let triple = self.rest().starts_with(triple_quote.get(1..).unwrap_or_default());
        if triple {
            self.at += 2;
        }
        let mut text = String::new();
        loop {
            if triple && self.rest().starts_with(&triple_quote) {
                self.at += 3;
                return Ok(text);
            }
            let here = self.at;
            match self.next() {
                Some(c) if c == quote && !triple => return Ok(text),
                Some('\n' | '\r') if !triple => return Err(self.unclosed(start, &quote.to_string())),
                None if triple => return Err(self.unclosed(start, &triple_quote)),
                None => return Err(self.unclosed(start, &quote.to_string())),
                Some('\\') if raw => {
                    text.push('\\');
                    text.extend(self.next());
                }
                Some('\\') => self.escape(here, &mut text)?,
                Some(c) => text.push(c),
            }
        }
    }

    fn unclosed(&self, start: usize, quote: &str) -> LiteralError {
        self.error(start, format!("expected a closing {quote} for the text that begins here"))
    }

    fn escape(&mut self, start: usize, text: &mut String) -> Result<(), LiteralError> {
        let Some(c) = self.next() else { return Err(self.error(start, "expected a character after `\\`")) };
        match c {
            '\n' => {}
            '\r' => {
                self.eat('\n');
            }
            '\\' | '\'' | '"' | '/' => text.push(c),
            'a' => text.push('\u{7}'),
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'v' => text.push('\u{b}'),
            'x' => {
                let code = self.hex(start, 2)?;
                text.push(self.character(start, code)?);
            }
            'U' => {
                let code = self.hex(start, 8)?;
                text.push(self.character(start, code)?);
            }
            'u' => {
                let first = self.hex(start, 4)?;
                let code = if (0xD800..0xDC00).contains(&first) && self.rest().starts_with("\\u") {
                    self.at += 2;
                    let second = self.hex(start, 4)?;
                    if !(0xDC00..0xE000).contains(&second) {
                        return Err(self.error(start, "expected the second half of a surrogate pair"));
                    }
                    0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                } else {
                    first
                };
                text.push(self.character(start, code)?);
            }
            '0'..='7' => {
                let mut code = c.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.next();
                    code = code * 8 + digit;
                }
                text.push(self.character(start, code)?);
            }
            'N' => return Err(self.error(start, "expected an escape by number, `\\N{…}` names are not read here")),
            // Python keeps what it does not know.
            other => text.extend(['\\', other]),
        }
        Ok(())
    }

    fn hex(&mut self, start: usize, length: usize) -> Result<u32, LiteralError> {
        let mut code = 0_u32;
        for _ in 0..length {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return Err(self.error(start, format!("expected {length} hexadecimal digits in the escape")));
            };
            self.next();
            code = code.wrapping_mul(16).wrapping_add(digit);
        }
        Ok(code)
    }

    fn character(&self, start: usize, code: u32) -> Result<char, LiteralError> {
        char::from_u32(code).ok_or_else(|| self.error(start, "expected an escape that is a character"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_dict_as_python_prints_it_is_read() {
        let text = r"{'a': True, 'b': [None, False, (1, 2.5, 'x')], 'c': {'d': -3}, 'e': (), 'f': (1,), 'g': (7)}";
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": true, "b": [null, false, [1, 2.5, "x"]], "c": {"d": -3}, "e": [], "f": [1], "g": 7})
        );
    }

    #[test]
    fn quotes_prefixes_and_escapes_are_python_s() {
        assert_eq!(parse(r#"'it\'s "so"'"#).unwrap(), json!("it's \"so\""));
        assert_eq!(parse(r"r'a\n\''").unwrap(), json!(r"a\n\'"));
        assert_eq!(parse(r"u'\x41\u00e9\U0001F600\101\0'").unwrap(), json!("Aé😀A\0"));
        assert_eq!(parse("'''a\n'b''c'''").unwrap(), json!("a\n'b''c"));
        assert_eq!(parse("\"\"\"\"\"\"").unwrap(), json!(""));
        assert_eq!(
            parse(
                r"'\q\a\
b'"
            )
            .unwrap(),
            json!("\\q\u{7}b")
        );
        assert_eq!(parse(r#""\ud83d\ude00 \/""#).unwrap(), json!("😀 /"));
    }

    #[test]
    fn trailing_commas_comments_and_numbers_of_python_are_read() {
        let text = "{ # one\n 'a': [1, 2,], # two\n 'b': 0x1F, 'c': 1_000, 'd': +.5, 'e': 5., 'f': -0b11, 'g': 1E3,\n}";
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": [1, 2], "b": 31, "c": 1000, "d": 0.5, "e": 5.0, "f": -3, "g": 1000.0})
        );
        assert_eq!(parse("18446744073709551615").unwrap(), json!(u64::MAX));
        assert_eq!(parse("-9223372036854775808").unwrap(), json!(i64::MIN));
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        insta::assert_snapshot!(
            [
                "",
                "{'a' 1}",
                "{'a': 1,\n  'b': x}",
                "{'a': 1 'b': 2}",
                "{a: 1}",
                "{1: 2}",
                "[1, 2",
                "'abc",
                "{'é': 'x\n'}",
                "b'x'",
                "f'x'",
                "1abc",
                "012",
                "--1",
                "1e999",
                "1j",
                "{} {}",
                "'\\ud800'",
                "'\\xZ'",
                "NaN",
                "{'a', 'b'}",
                "1__0",
                "'a' 'b'",
            ]
            .iter()
            .map(|text| format!("{text:?}: {}", message(text)))
            .collect::<Vec<_>>()
            .join("\n")
        );
    }

    #[test]
    fn nesting_is_limited_as_in_json() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for levels in [1, DEPTH_LIMIT, DEPTH_LIMIT + 1, 100_000] {
            let json = serde_json::from_str::<Value>(&nested(levels)).is_ok();
            assert_eq!(parse(&nested(levels)).is_ok(), json, "{levels} levels");
        }
        assert!(message(&nested(200)).contains("deeper than 127"));
    }

    #[test]
    fn keys_know_their_place() {
        let located = parse_located("{'a': {\n  'é': 1, 'c': [\n{'d': 0}]}}").unwrap();
        let places: Vec<_> =
            located.keys.iter().map(|(path, line, column)| (path.to_string(), *line, *column)).collect();
        let expected = [("a", 1, 2), ("a.é", 2, 3), ("a.c", 2, 11), ("a.c.0.d", 3, 2)];
        assert_eq!(places, expected.map(|(path, line, column)| (path.to_owned(), line, column)));
    }

    #[test]
    fn a_file_must_be_json_and_a_literal_is_told_apart() {
        assert!(parse_json_located(b"{\"a\": 1}").is_ok());
        let error = parse_json_located(b"{\n 'a': 1}").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.message.contains("Python literal"), "{error}");
        assert!(!parse_json_located(b"{").unwrap_err().message.contains("Python"));
        assert!(parse_json_located(b"\"\xff\"").unwrap_err().message.contains("UTF-8"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
            any::<String>().prop_map(Value::from),
            "[\\x00-\\x20'\"\\\\/]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The value as Python's `repr` would print it.
    fn repr(value: &Value) -> String {
        let text = |text: &str| {
            let mut out = String::from("'");
            for c in text.chars() {
                match c {
                    '\'' | '\\' => out.extend(['\\', c]),
                    c if u32::from(c) < 0x20 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                    c => out.push(c),
                }
            }
            out + "'"
        };
        match value {
            Value::Null => "None".to_owned(),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::Number(number) => number.to_string(),
            Value::String(string) => text(string),
            Value::Array(items) => format!("({})", items.iter().map(|item| repr(item) + ", ").collect::<String>()),
            Value::Object(members) => {
                format!("{{{}}}", members.iter().map(|(k, v)| format!("{}: {},", text(k), repr(v))).collect::<String>())
            }
        }
    }

    proptest! {
        #[test]
        fn any_value_printed_as_json_is_read_back(value in any_json()) {
            prop_assert_eq!(&parse(&value.to_string()).unwrap(), &value);
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(&parse_json_located(pretty.as_bytes()).unwrap().value, &value);
        }

        #[test]
        fn any_value_printed_as_python_is_read_back(value in any_json()) {
            prop_assert_eq!(parse(&repr(&value)).unwrap(), value);
        }

        #[test]
        fn what_is_json_means_the_same_here(text in "[\\[\\]{}:,\"\\\\/untrefalsb0-9.eE+ \\-]{0,12}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(parse(&text).unwrap(), value);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_bytes(&bytes);
            let _ = parse_json_located(&bytes);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\](){}'\"\\\\:,xuUNrbTF0-9_eé\n#. \\-]{0,40}") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.line >= 1 && error.column >= 1);
            }
            let _ = parse_located(&text);
        }
    }
}
