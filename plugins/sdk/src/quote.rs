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

/// A file name pattern of `*` and `?`, relative to the directory that the shell is in, as a word in which nothing else has a
/// meaning; none for one that leads elsewhere.
#[must_use]
pub fn pattern(pattern: &str) -> Option<String> {
    let segments: Vec<&str> = pattern.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
    if segments.is_empty() || segments.contains(&"..") || pattern.starts_with('/') || pattern.contains('\0') {
        return None;
    }
    // In front, so that no name is an option.
    let mut written = String::from("./");
    let mut literal = String::new();
    for letter in segments.join("/").chars() {
        if matches!(letter, '*' | '?') {
            if !literal.is_empty() {
                written.push_str(&word(&std::mem::take(&mut literal)));
            }
            written.push(letter);
        } else {
            literal.push(letter);
        }
    }
    if !literal.is_empty() {
        written.push_str(&word(&literal));
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// What a shell reads from the words, one after the other.
    fn read_back(shell: &str, line: &str) -> Vec<String> {
        let mut child = Command::new(shell)
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("HOME", "/nowhere")
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "tell() {{ for word; do printf '%s\\0' \"$word\"; done; }}").unwrap();
        writeln!(stdin, "tell {line}").unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let mut words: Vec<String> = String::from_utf8(output.stdout).unwrap().split('\0').map(str::to_owned).collect();
        assert_eq!(words.pop().as_deref(), Some(""));
        words
    }

    /// Words over an alphabet of what shells care about, the same at every run.
    fn arbitrary(count: usize) -> Vec<String> {
        const LETTERS: &[char] = &[
            '\'',
            '"',
            '\\',
            '$',
            '`',
            '(',
            ')',
            '{',
            '}',
            '[',
            ']',
            '*',
            '?',
            '~',
            '!',
            '#',
            '&',
            ';',
            '|',
            '<',
            '>',
            '=',
            '-',
            '%',
            '^',
            ',',
            ':',
            '/',
            '.',
            '@',
            '+',
            ' ',
            '\t',
            '\n',
            '\r',
            'a',
            'Z',
            '0',
            '_',
            'é',
            '日',
            '\u{1f680}',
            '\u{7f}',
            '\u{1b}',
            '\u{a0}',
            '\u{200b}',
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
        };
        (0..count)
            .map(|_| {
                let length = next(9);
                (0..length).map(|_| LETTERS[next(LETTERS.len())]).collect()
            })
            .collect()
    }

    #[test]
    fn every_word_is_read_back_as_it_was() {
        let words_given = arbitrary(4000);
        for shell in ["bash", "sh"] {
            assert_eq!(read_back(shell, &words(&words_given)), words_given, "{shell}");
        }
    }

    #[test]
    fn every_single_letter_is_read_back_as_it_was() {
        let letters: Vec<String> = (1_u8..0x80).map(|byte| char::from(byte).to_string()).collect();
        for shell in ["bash", "sh"] {
            assert_eq!(read_back(shell, &words(&letters)), letters, "{shell}");
        }
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(words(["bash", "a/b.sh", "x:1", ""]), "bash a/b.sh x:1 ''");
        assert_eq!(word("a=b"), "'a=b'");
        assert_eq!(word("-x"), "'-x'");
    }

    #[test]
    fn a_word_cannot_hold_nul() {
        assert_eq!(word("a\0b"), "'ab'");
    }

    #[test]
    fn patterns_keep_their_stars_and_nothing_else() {
        assert_eq!(pattern("*_output.csv").as_deref(), Some("./*_output.csv"));
        assert_eq!(pattern("a b/$(id)?.csv").as_deref(), Some("./'a b/$(id)'?.csv"));
        assert_eq!(pattern("[ab]{c,d}.csv").as_deref(), Some("./'[ab]{c,d}.csv'"));
        for elsewhere in ["/etc/passwd", "../x", "a/../../x", "", "."] {
            assert_eq!(pattern(elsewhere), None, "{elsewhere}");
        }
    }
}
