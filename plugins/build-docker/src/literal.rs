//! Python literals, as CONTEXT headers have them: dictionaries, lists, tuples, texts, numbers, `True`, `False`, `None`.
//!
//! Strict: what is not one of these is malformed, and nothing is ever evaluated.

use std::iter::Peekable;
use std::str::Chars;

use maddock_sdk::serde_json::{Map, Number, Value};

/// Deeper nesting than any header has; the parser calls itself.
const DEPTH: usize = 32;

/// Reads one literal; a comment may follow it.
///
/// # Errors
/// What was expected, in words.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { letters: text.chars().peekable() };
    let value = reader.value(DEPTH)?;
    match reader.after_blanks() {
        None | Some('#') => Ok(value),
        Some(letter) => Err(format!("`{letter}` after the end")),
    }
}

struct Reader<'a> {
    letters: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    /// The next letter that is no blank, which stays.
    fn after_blanks(&mut self) -> Option<char> {
        while self.letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        self.letters.peek().copied()
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        let depth = depth.checked_sub(1).ok_or("nested too deeply")?;
        match self.after_blanks() {
            Some('{') => self.dictionary(depth),
            Some('[') => self.items(']', depth).map(|(items, _)| Value::Array(items)),
            Some('(') => {
                let (mut items, comma) = self.items(')', depth)?;
                // `(x)` is x, `(x,)` a tuple.
                match items.pop() {
                    Some(only) if items.is_empty() && !comma => Ok(only),
                    last => {
                        items.extend(last);
                        Ok(Value::Array(items))
                    }
                }
            }
            Some(quote @ ('\'' | '"')) => self.text(quote).map(Value::String),
            Some(letter) if letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.') => self.number(),
            Some(letter) if letter.is_alphabetic() => self.word(),
            Some(letter) => Err(format!("`{letter}` begins no value")),
            None => Err("a value is missing".to_owned()),
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value, String> {
        self.letters.next();
        let mut members = Map::new();
        loop {
            if self.after_blanks() == Some('}') {
                self.letters.next();
                return Ok(Value::Object(members));
            }
            let Value::String(key) = self.value(depth)? else { return Err("a key that is no text".to_owned()) };
            if self.after_blanks() != Some(':') {
                return Err(format!("`:` is missing after the key `{key}`"));
            }
            self.letters.next();
            let value = self.value(depth)?;
            members.insert(key, value);
            self.comma_or('}')?;
        }
    }

    /// Up to the closing letter, and whether a comma stood before it.
    fn items(&mut self, close: char, depth: usize) -> Result<(Vec<Value>, bool), String> {
        self.letters.next();
        let (mut items, mut comma) = (Vec::new(), false);
        loop {
            if self.after_blanks() == Some(close) {
                self.letters.next();
                return Ok((items, comma));
            }
            items.push(self.value(depth)?);
            comma = self.comma_or(close)?;
        }
    }

    /// Passes a comma; the closing letter stays.
    fn comma_or(&mut self, close: char) -> Result<bool, String> {
        match self.after_blanks() {
            Some(',') => {
                self.letters.next();
                Ok(true)
            }
            Some(letter) if letter == close => Ok(false),
            _ => Err(format!("`,` or `{close}` is missing")),
        }
    }

    fn text(&mut self, quote: char) -> Result<String, String> {
        self.letters.next();
        let mut text = String::new();
        loop {
            match self.letters.next().ok_or("a text without an end")? {
                letter if letter == quote => return Ok(text),
                '\\' => match self.letters.next().ok_or("a text without an end")? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'x' => text.push(self.code(2)?),
                    'u' => text.push(self.code(4)?),
                    letter @ ('\\' | '\'' | '"') => text.push(letter),
                    // As Python has it: what is no escape stays.
                    letter => text.extend(['\\', letter]),
                },
                letter => text.push(letter),
            }
        }
    }

    fn code(&mut self, digits: usize) -> Result<char, String> {
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.letters.next().and_then(|letter| letter.to_digit(16)).ok_or("an escape that is none")?;
            code = code * 16 + digit;
        }
        char::from_u32(code).ok_or_else(|| "an escape that is no letter".to_owned())
    }

    fn number(&mut self) -> Result<Value, String> {
        let mut text = String::new();
        while let Some(letter) =
            self.letters.next_if(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '+' | '.' | '_'))
        {
            text.push(letter);
        }
        let wrong = || format!("`{text}` is no number");
        let plain = text.strip_prefix('+').unwrap_or(&text).replace('_', "");
        if let Ok(number) = plain.parse::<i64>() {
            return Ok(Value::Number(number.into()));
        }
        if !plain.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.' | 'e' | 'E')) {
            return Err(wrong());
        }
        plain.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number).ok_or_else(wrong)
    }

    fn word(&mut self) -> Result<Value, String> {
        let mut word = String::new();
        while let Some(letter) = self.letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_') {
            word.push(letter);
        }
        match word.as_str() {
            "True" => Ok(Value::Bool(true)),
            "False" => Ok(Value::Bool(false)),
            "None" => Ok(Value::Null),
            "true" | "false" | "null" => Err(format!("`{word}` is JSON: Python writes `True`, `False`, `None`")),
            _ => Err(format!("`{word}` is no value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use maddock_sdk::serde_json::json;

    use super::*;

    #[test]
    fn headers_are_read_as_python_reads_them() {
        assert_eq!(
            parse("{'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}"),
            Ok(json!({"gpu_vendor": "AMD", "guest_os": "UBUNTU"}))
        );
        assert_eq!(parse(r#" { "a" : [1, -2, 1.5, 1e3,], } # why"#), Ok(json!({"a": [1, -2, 1.5, 1000.0]})));
        assert_eq!(
            parse("{'a': (True, None, False), 'b': (1), 'c': (1,), 'd': ()}"),
            Ok(json!({"a": [true, null, false], "b": 1, "c": [1], "d": []}))
        );
        assert_eq!(parse(r"{'a': 'it\'s \x41\u00e9 \d\n'}"), Ok(json!({"a": "it's Aé \\d\n"})));
        assert_eq!(parse("{}"), Ok(json!({})));
        assert_eq!(parse("{'a': 1, 'a': 2}"), Ok(json!({"a": 2})));
    }

    #[test]
    fn what_is_no_literal_is_malformed() {
        for text in [
            "",
            "{",
            "{'a'}",
            "{'a': }",
            "{'a': 1",
            "{'a': 1} x",
            "{1: 2}",
            "{'a': true}",
            "{'a': null}",
            "{'a': b}",
            "{'a': 'b}",
            "{'a': 1 'b': 2}",
            "{,}",
            "[,]",
            "{'a': f()}",
            "{'a': 1+2}",
            "{'a': '\\ud800'}",
            "{'a': 0x1}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        assert_eq!(parse(&"[".repeat(100_000)), Err("nested too deeply".to_owned()));
    }
}
