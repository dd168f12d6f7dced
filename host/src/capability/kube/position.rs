//! How far a container's output has been told, line by line, so that a stream taken up again loses nothing and repeats
//! nothing. The server puts a time before each line; it is taken off here.

use jiff::Timestamp;

/// Longer than any time and its space.
const HEAD: usize = 64;
/// Of the server's own words.
const SAID: usize = 500;

/// How far the output has been told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The time of the last line that was told, as a whole or in part.
    last: Option<Timestamp>,
    /// Whole lines told of that time.
    lines: u64,
    /// Bytes told of a line of that time which has not ended.
    part: u64,
}

impl Position {
    /// The second from which to ask again.
    pub(super) fn since(&self) -> Option<i64> {
        // The server counts in seconds: those of the last one come again, and are left out here.
        self.last.map(|at| at.as_second())
    }
}

/// What a stream that was taken up again still has to leave out.
#[derive(Debug, Clone, Copy)]
struct Overlap {
    position: Position,
    met: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    All,
    None,
    From(u64),
    /// It is the server's own.
    Words,
}

/// Takes a stream apart.
#[derive(Debug)]
pub(super) struct Reader {
    position: Position,
    overlap: Option<Overlap>,
    head: Vec<u8>,
    line: Option<Share>,
    gap: bool,
    /// What the server itself said in place of output, as far as it is worth showing.
    said: Vec<u8>,
}

impl Reader {
    /// A reader of a stream that begins a little before a position.
    pub(super) fn new(position: Position) -> Self {
        let overlap = position.last.map(|_| Overlap { position, met: false });
        Self { position, overlap, head: Vec::new(), line: None, gap: false, said: Vec::new() }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Whether something between the position and what came was not there any more.
    pub(super) fn has_gap(&self) -> bool {
        self.gap
    }

    /// What the server said in place of output: a line without a time is no line of the container's.
    pub(super) fn said(&self) -> Option<String> {
        // The last line of a stream may lack its end.
        let head = if self.line.is_none() { self.head.as_slice() } else { &[] };
        let said: Vec<u8> = self.said.iter().chain(head).copied().collect();
        let text = String::from_utf8_lossy(&said).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The part of the bytes that is new, without times.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut fresh = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            match self.line {
                None => {
                    let end = bytes.iter().position(|byte| matches!(byte, b' ' | b'\n'));
                    let room = HEAD.saturating_sub(self.head.len()).max(1);
                    let take = end.map_or(bytes.len(), |end| end + 1).min(room);
                    let (head, rest) = bytes.split_at(take);
                    self.head.extend(head);
                    bytes = rest;
                    if end.is_some() || self.head.len() >= HEAD {
                        self.begin(&mut fresh);
                    }
                }
                Some(share) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    bytes = rest;
                    self.line(share, part, end.is_some(), &mut fresh);
                }
            }
        }
        fresh
    }

    /// A line begins: its head has been gathered.
    fn begin(&mut self, fresh: &mut Vec<u8>) {
        let head = std::mem::take(&mut self.head);
        let stamp = head
            .strip_suffix(b" ")
            .or_else(|| head.strip_suffix(b"\n"))
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| text.parse::<Timestamp>().ok());
        let Some(at) = stamp else {
            self.keep(&head);
            self.line = (!head.ends_with(b"\n")).then_some(Share::Words);
            return;
        };
        let share = self.share(at);
        if share == Share::All {
            match self.position.last {
                Some(last) if last == at => self.position.part = 0,
                _ => self.position = Position { last: Some(at), lines: 0, part: 0 },
            }
        }
        self.line = Some(share);
        // A line of nothing may come without the space.
        if head.ends_with(b"\n") {
            self.line(share, b"\n", true, fresh);
        }
    }

    fn keep(&mut self, words: &[u8]) {
        let room = SAID.saturating_sub(self.said.len());
        self.said.extend(words.iter().take(room));
    }

    fn share(&mut self, at: Timestamp) -> Share {
        let Some(overlap) = self.overlap.as_mut() else { return Share::All };
        let told = &mut overlap.position;
        match told.last.map(|last| at.cmp(&last)) {
            Some(std::cmp::Ordering::Less) => Share::None,
            Some(std::cmp::Ordering::Equal) => {
                overlap.met = true;
                if told.lines > 0 {
                    told.lines -= 1;
                    return Share::None;
                }
                let part = told.part;
                self.overlap = None;
                if part > 0 { Share::From(part) } else { Share::All }
            }
            // The first that is later ends the overlap: clocks may step back afterwards.
            _ => {
                self.gap |= !overlap.met;
                self.overlap = None;
                Share::All
            }
        }
    }

    fn line(&mut self, share: Share, part: &[u8], ended: bool, fresh: &mut Vec<u8>) {
        let new = match share {
            Share::All => part,
            Share::None => &[],
            Share::Words => {
                self.keep(part);
                &[]
            }
            Share::From(skip) => {
                let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(part.len());
                self.line = Some(Share::From(skip - skipped as u64));
                part.get(skipped..).unwrap_or_default()
            }
        };
        fresh.extend(new);
        if !matches!(share, Share::None | Share::Words) {
            self.position.part = self.position.part.saturating_add(new.len() as u64);
            if ended {
                self.position.lines = self.position.lines.saturating_add(1);
                self.position.part = 0;
            }
        }
        if ended {
            self.line = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(of: &[(u32, &str)]) -> Vec<u8> {
        of.iter()
            .flat_map(|(second, text)| format!("2026-01-31T12:00:{second:02}.000000001Z {text}").into_bytes())
            .collect()
    }

    fn read(reader: &mut Reader, bytes: &[u8]) -> String {
        String::from_utf8(reader.read(bytes)).unwrap()
    }

    #[test]
    fn times_are_taken_off_wherever_the_pieces_end() {
        let all = lines(&[(1, "a b\n"), (2, "\n"), (3, "c")]);
        for size in 1..all.len() {
            let mut reader = Reader::new(Position::default());
            let told: String = all.chunks(size).map(|piece| read(&mut reader, piece)).collect();
            assert_eq!(told, "a b\n\nc", "pieces of {size}");
        }
    }

    #[test]
    fn a_stream_taken_up_again_anywhere_repeats_nothing_and_loses_nothing() {
        let all = lines(&[(1, "one\n"), (2, "two\n"), (2, "two again\n"), (2, "and again\n"), (3, "three\n")]);
        for cut in 0..all.len() {
            let mut first = Reader::new(Position::default());
            let mut told = read(&mut first, &all[..cut]);
            let position = first.position();
            // The server begins with the second of the last line, or with the beginning.
            let from = match position.since() {
                None => 0,
                Some(since) => {
                    let stamp = Timestamp::from_second(since).unwrap().to_string();
                    let stamp = stamp.trim_end_matches('Z').as_bytes().to_vec();
                    all.windows(stamp.len()).position(|window| window == stamp).unwrap()
                }
            };
            let mut second = Reader::new(position);
            told += &read(&mut second, &all[from..]);
            assert_eq!(told, "one\ntwo\ntwo again\nand again\nthree\n", "cut at {cut}");
            assert!(!second.has_gap(), "cut at {cut}");
        }
    }

    #[test]
    fn output_that_was_thrown_away_meanwhile_is_noticed() {
        let mut first = Reader::new(Position::default());
        first.read(&lines(&[(1, "one\n")]));
        let mut second = Reader::new(first.position());
        assert_eq!(read(&mut second, &lines(&[(5, "five\n")])), "five\n");
        assert!(second.has_gap());
    }

    #[test]
    fn words_of_the_server_are_not_taken_for_output() {
        let text = "unable to retrieve container logs for containerd://80f05e5c257f5d64d5dc7bbfbbc6dbfa78e10f6c611bbdbf0e2bfafaa918c6b8";
        for end in ["", "\n"] {
            let mut reader = Reader::new(Position::default());
            assert_eq!(read(&mut reader, &lines(&[(1, "one\n")])), "one\n");
            assert_eq!(reader.said(), None);
            assert_eq!(read(&mut reader, format!("{text}{end}").as_bytes()), "");
            assert_eq!(reader.said().as_deref(), Some(text));
        }
        let mut short = Reader::new(Position::default());
        assert_eq!(read(&mut short, b"gone"), "");
        assert_eq!(short.said().as_deref(), Some("gone"));
    }
}
