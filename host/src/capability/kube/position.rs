//! How far a container's output has been told, line by line, so that a stream taken up again loses nothing and repeats
//! nothing. The server puts a time before each line; it is taken off here.

use jiff::Timestamp;

/// Longer than any time and its space.
const HEAD: usize = 64;

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
}

/// Takes a stream apart.
#[derive(Debug)]
pub(super) struct Reader {
    position: Position,
    overlap: Option<Overlap>,
    head: Vec<u8>,
    line: Option<Share>,
    gap: bool,
}

impl Reader {
    /// A reader of a stream that begins a little before a position.
    pub(super) fn new(position: Position) -> Self {
        let overlap = position.last.map(|_| Overlap { position, met: false });
        Self { position, overlap, head: Vec::new(), line: None, gap: false }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Whether something between the position and what came was not there any more.
    pub(super) fn has_gap(&self) -> bool {
        self.gap
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
        let share = self.share(stamp);
        if share == Share::All {
            match stamp {
                Some(at) if self.position.last != Some(at) => {
                    self.position = Position { last: Some(at), lines: 0, part: 0 }
                }
                _ => self.position.part = 0,
            }
        }
        self.line = Some(share);
        match stamp {
            // A line of nothing may come without the space.
            Some(_) if head.ends_with(b"\n") => self.line(share, b"\n", true, fresh),
            Some(_) => {}
            // Not a time: the server's own words, which belong to the output.
            None => {
                let ended = head.ends_with(b"\n");
                self.line(share, &head, ended, fresh);
            }
        }
    }

    fn share(&mut self, stamp: Option<Timestamp>) -> Share {
        let (Some(overlap), Some(at)) = (self.overlap.as_mut(), stamp) else { return Share::All };
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
            Share::From(skip) => {
                let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(part.len());
                self.line = Some(Share::From(skip - skipped as u64));
                part.get(skipped..).unwrap_or_default()
            }
        };
        fresh.extend(new);
        if share != Share::None {
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
    fn words_of_the_server_are_told_as_they_are() {
        let mut reader = Reader::new(Position::default());
        let text = "failed to open the file of the log, which is a line longer than any time could be\nshort\n";
        assert_eq!(read(&mut reader, text.as_bytes()), text);
    }
}
