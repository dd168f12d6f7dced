//! Arguments are words: a text of arguments is split as a shell splits words, and nothing in them is ever expanded.

use serde_json::Value;

use super::error::{ConfigError, ConfigErrorKind};
use super::scalar_text;

/// What a shell would have expanded or acted on, and nobody does here.
const EXPANDED: [char; 6] = ['$', '`', '*', '?', '[', ']'];
const OPERATORS: [&str; 11] = ["|", "||", "&", "&&", ";", ">", ">>", "<", "<<", "2>&1", "2>"];

/// Words, and what the user should know about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// In order.
    pub words: Vec<String>,
    /// One sentence for the whole text, where a word holds what a shell would have expanded.
    pub warning: Option<String>,
}

/// Splits a text; `what` names it in messages, such as "args of model `x`".
///
/// # Errors
/// A quote is not closed, or a backslash ends the text.
pub fn split(text: &str, what: &str) -> Result<Words, ConfigError> {
    let literal = without_comments(text).map_err(|open| unbalanced(text, what, open))?;
    let words = shlex::split(&literal).ok_or_else(|| unbalanced(text, what, None))?;
    let warning = warning(&words, what);
    Ok(Words { words, warning })
}

/// As [`split`], for a value: a text is split, a list holds words that are ready, null holds none.
///
/// # Errors
/// The text cannot be split, or the value is neither.
pub fn of_value(value: &Value, what: &str) -> Result<Words, ConfigError> {
    let wrong = || {
        ConfigError::new(ConfigErrorKind::WrongType, format!("{what} must be a text or a list of texts"))
            .hint("write the arguments as on a command line")
    };
    match value {
        Value::Null => Ok(Words::default()),
        Value::Array(items) => {
            let words: Vec<String> =
                items.iter().map(|item| scalar_text(item).ok_or_else(wrong)).collect::<Result<_, _>>()?;
            let warning = warning(&words, what);
            Ok(Words { words, warning })
        }
        other => split(&scalar_text(other).ok_or_else(wrong)?, what),
    }
}

/// Words as a text that splits into them again.
#[must_use]
pub fn join<S: AsRef<str>>(words: &[S]) -> String {
    let quoter = shlex::Quoter::new().allow_nul(true);
    words.iter().filter_map(|word| quoter.quote(word.as_ref()).ok()).collect::<Vec<_>>().join(" ")
}

fn warning(words: &[String], what: &str) -> Option<String> {
    let word = words.iter().find(|word| word.contains(EXPANDED) || OPERATORS.contains(&word.as_str()))?;
    Some(format!("{what}: `{word}` is passed as it is; nothing expands `$`, backticks, patterns or redirections"))
}

fn unbalanced(text: &str, what: &str, open: Option<(usize, char)>) -> ConfigError {
    let which = match open {
        Some((offset, '\\')) => format!("the backslash at character {} has nothing after it", characters(text, offset)),
        Some((offset, quote)) => format!("the quote {quote} at character {} is not closed", characters(text, offset)),
        None => "the quotes are not balanced".to_owned(),
    };
    ConfigError::new(ConfigErrorKind::Invalid, format!("{what}: {which} in `{text}`"))
        .hint("close it, or put a backslash before a quote that is meant itself")
}

fn characters(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or_default().chars().count() + 1
}

/// A `#` begins a comment for the splitter, and would swallow arguments such as `#ff0000`: it is quoted. Answers the quote
/// that is open at the end, if one is.
fn without_comments(text: &str) -> Result<String, Option<(usize, char)>> {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<(usize, char)> = None;
    let mut at_start = true;
    let mut characters = text.char_indices();
    while let Some((offset, c)) = characters.next() {
        if at_start && open.is_none() && c == '#' {
            out.push('\\');
        }
        out.push(c);
        at_start = open.is_none() && matches!(c, ' ' | '\t' | '\n');
        match (open, c) {
            (Some((_, '\'')), '\\') => {}
            (_, '\\') => match characters.next() {
                // A continued line: a word that has not begun still has not.
                Some((_, '\n')) if open.is_none() => {
                    out.pop();
                    at_start = out.is_empty() || out.ends_with([' ', '\t', '\n']);
                }
                Some((_, escaped)) => out.push(escaped),
                None => return Err(Some((offset, '\\'))),
            },
            (Some((_, quote)), c) if quote == c => open = None,
            (None, '\'' | '"') => open = Some((offset, c)),
            _ => {}
        }
    }
    if open.is_some() { Err(open) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text, "args").unwrap().words
    }

    #[test]
    fn quotes_are_honoured_and_nothing_else_happens() {
        assert_eq!(words("  --a 1\t--b='x y' \"it's\" c\\ d '' \n e"), ["--a", "1", "--b=x y", "it's", "c d", "", "e"]);
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words("--colour #ff0000 a#b '# c' # d"), ["--colour", "#ff0000", "a#b", "# c", "#", "d"]);
        assert_eq!(words("\\\n a \\\n"), ["a"]);
        assert_eq!(words("a \\\n#b c\\\n#d"), ["a", "#b", "c#d"]);
    }

    #[test]
    fn what_a_shell_would_expand_is_passed_and_said_once() {
        for text in ["$HOME x $PATH", "a `id`", "*.py", "'$quoted'", "a | tee log", "x[1]", "a > b"] {
            let split = split(text, "args of model `m`").unwrap();
            assert!(split.warning.as_ref().is_some_and(|said| said.starts_with("args of model `m`: ")), "{text}");
        }
        assert_eq!(words("$HOME `id`"), ["$HOME", "`id`"]);
        assert_eq!(split("--a b>c ~ a|b {x}", "args").unwrap().warning, None);
    }

    #[test]
    fn an_open_quote_is_an_error_that_says_where() {
        let message = |text: &str| split(text, "args").unwrap_err().to_string();
        assert!(message("é 'b").contains("the quote ' at character 3 is not closed"), "{}", message("é 'b"));
        assert!(message("a \"b 'c'").contains("the quote \" at character 3"));
        assert!(message("a\\").contains("backslash at character 2"));
        assert!(message("it's").contains("is not closed"));
    }

    #[test]
    fn values_are_texts_or_lists() {
        assert_eq!(of_value(&json!("a 'b c'"), "args").unwrap().words, ["a", "b c"]);
        assert_eq!(of_value(&json!(["a b", 1, true]), "args").unwrap().words, ["a b", "1", "True"]);
        assert_eq!(of_value(&json!(5), "args").unwrap().words, ["5"]);
        assert!(of_value(&Value::Null, "args").unwrap().words.is_empty());
        assert!(of_value(&json!({}), "args").is_err());
        assert!(of_value(&json!([[]]), "args").is_err());
    }

    proptest! {
        #[test]
        fn joined_words_are_split_into_the_same(words in prop::collection::vec(any::<String>(), 0..6)) {
            prop_assert_eq!(split(&join(&words), "args").unwrap().words, words);
        }

        // Except that the crate makes an empty word of a continued line with nothing on it, and a shell does not.
        #[test]
        fn without_a_comment_sign_it_splits_as_the_crate_does(text in "[ab'\"\\\\ \n$]{0,16}") {
            prop_assume!(!text.contains("\\\n"));
            prop_assert_eq!(split(&text, "args").ok().map(|split| split.words), shlex::split(&text));
        }
    }
}
