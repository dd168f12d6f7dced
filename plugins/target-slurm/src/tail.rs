//! Follows the files that the nodes write, by whole lines: parts of lines of two nodes never mix.

use maddock_sdk::types::{ErrorKind, OutputStream};
use maddock_sdk::{Result, events, files};

/// Bytes that one look at a file takes.
const LOOK: u64 = 256 << 10;
/// A line that has not ended by then is told as it is.
const LONGEST_LINE: usize = 64 << 10;

/// How far one file has been told.
#[derive(Debug)]
pub struct Tail {
    path: String,
    node: u32,
    stream: OutputStream,
    offset: u64,
    /// The beginning of a line.
    rest: Vec<u8>,
}

impl Tail {
    /// A file, from its beginning.
    #[must_use]
    pub fn new(path: String, node: u32, stream: OutputStream) -> Self {
        Self { path, node, stream, offset: 0, rest: Vec::new() }
    }

    /// Tells what is new. A file that is not there yet has nothing.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn tell(&mut self) -> Result<()> {
        loop {
            let bytes = match files::read_from(&self.path, self.offset, LOOK) {
                Ok(bytes) => bytes,
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error.during("reading a node's output")),
            };
            if bytes.is_empty() {
                return Ok(());
            }
            self.offset = self.offset.saturating_add(bytes.len() as u64);
            let whole = take_lines(&mut self.rest, &bytes);
            if !whole.is_empty() {
                events::output(self.node, self.stream, &whole);
            }
        }
    }

    /// Tells what is left, also a line without an end.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn finish(&mut self) -> Result<()> {
        self.tell()?;
        if !self.rest.is_empty() {
            let mut rest = std::mem::take(&mut self.rest);
            rest.push(b'\n');
            events::output(self.node, self.stream, &rest);
        }
        Ok(())
    }
}

/// The whole lines among what was kept and what is new; the rest is kept.
fn take_lines(rest: &mut Vec<u8>, new: &[u8]) -> Vec<u8> {
    rest.extend_from_slice(new);
    let end = match rest.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if rest.len() > LONGEST_LINE => rest.len(),
        None => 0,
    };
    let kept = rest.split_off(end);
    std::mem::replace(rest, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_told() {
        let mut rest = Vec::new();
        assert_eq!(take_lines(&mut rest, b"one\ntw"), b"one\n");
        assert_eq!(take_lines(&mut rest, b""), b"");
        assert_eq!(take_lines(&mut rest, b"o\n"), b"two\n");
        assert!(rest.is_empty());
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut rest = Vec::new();
        assert_eq!(take_lines(&mut rest, &vec![b'x'; LONGEST_LINE + 1]).len(), LONGEST_LINE + 1);
        assert!(rest.is_empty());
    }
}
