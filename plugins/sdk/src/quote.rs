//! The one function that puts a value into a script.

/// Quotes a value so that a POSIX shell and bash read exactly these bytes back as one word.
///
/// NUL cannot be in a word: it is dropped, as the kernel would end the word there.
pub fn word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    if !value.is_empty() && value.chars().all(plain) && !value.starts_with('-') && !value.contains('=') {
        return value.to_owned();
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars().filter(|c| *c != '\0') {
        if c == '\'' { quoted.push_str("'\\''") } else { quoted.push(c) }
    }
    quoted.push('\'');
    quoted
}

/// Quotes words and joins them with blanks.
pub fn words<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    values.into_iter().map(|value| word(value.as_ref())).collect::<Vec<_>>().join(" ")
}
