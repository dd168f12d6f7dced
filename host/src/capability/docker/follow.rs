//! Following a container: all of its output from the beginning, then its exit code, through restarts of the engine.
//!
//! Every message comes with the engine's timestamp, so that a stream taken up again goes on where the last one stopped. Standard
//! output and standard error each are in order, while one may stand before the other and bear the later time: the engine reads them
//! by themselves. A terminal's stream has no messages; there the bytes already told are counted and skipped.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, WaitContainerOptions};
use futures_util::StreamExt;
use jiff::Timestamp;
use maddock_bindings::api::types::{ErrorKind, OutputStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::engine::Engine;
use super::feed::{Feed, Told};
use crate::capability::{ApiError, error};

/// How long the engine may be away while a container is followed.
const AWAY: Duration = Duration::from_secs(60);

/// A stream that lasts as long as the job may be silent for as long, too.
const SILENCE: Duration = Duration::from_secs(400 * 24 * 3600);

/// How many of the last messages are looked at once more when a container has ended.
const SECOND_LOOK: usize = 1000;

/// Starts to follow. `terminal`: the container has one, its two streams are one.
pub(super) fn start(engine: Engine, id: String, terminal: bool) -> Feed<i32> {
    let (mut feed, tell) = Feed::new();
    feed.spawn(async move {
        let mut follower =
            Follower { engine, id, terminal, tell: tell.clone(), position: Position::default(), away: Away::default() };
        let end = follower.follow().await;
        // A plugin that went away needs no end.
        let _ = tell.send(Told::Ended(end)).await;
    });
    feed
}

/// The timestamp of the last message told of a stream, and how many told messages of it bear that time; none where nothing was told.
type Last = Option<(Timestamp, usize)>;

/// Something of each of the two streams.
#[derive(Debug, Clone, Copy, Default)]
struct Each {
    stdout: Last,
    stderr: Last,
}

impl Each {
    fn of(&mut self, stream: OutputStream) -> &mut Last {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// The second from which on something may not have been told; none where nothing was.
    fn since(&self) -> Option<i64> {
        let latest = [self.stdout, self.stderr].into_iter().flatten().map(|(at, _)| at.as_second()).max()?;
        Some(latest.saturating_sub(STALE))
    }
}

/// Seconds that may lie between the time of a message and its place behind those of the other stream: plenty.
const STALE: i64 = 10;

/// How far the output has been told.
#[derive(Debug, Default)]
struct Position {
    last: Each,
    /// All bytes told.
    bytes: u64,
}

/// What a resumed stream still has to leave out.
#[derive(Debug)]
struct Overlap {
    until: Each,
    bytes: u64,
}

impl Position {
    fn overlap(&self) -> Overlap {
        Overlap { until: self.last, bytes: self.bytes }
    }

    fn told(&mut self, stream: OutputStream, at: Option<Timestamp>, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if let Some(at) = at {
            let told = self.last.of(stream);
            *told = match *told {
                Some((last, count)) if last == at => Some((last, count + 1)),
                _ => Some((at, 1)),
            };
        }
    }
}

impl Overlap {
    /// Whether a message was told before. The first that was not ends the overlap: clocks may step back later.
    fn covers(&mut self, stream: OutputStream, at: Option<Timestamp>) -> bool {
        let until = self.until.of(stream);
        let (Some((last, left)), Some(at)) = (*until, at) else { return false };
        match at.cmp(&last) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal if left > 0 => {
                *until = Some((last, left - 1));
                true
            }
            _ => {
                *until = None;
                false
            }
        }
    }

    /// The part of a terminal's bytes that was not told before.
    fn rest<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let skip = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(bytes.len());
        self.bytes -= skip as u64;
        bytes.get(skip..).unwrap_or_default()
    }
}

/// Takes the engine's timestamp off a message.
fn unstamp(message: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = message.iter().take(64).position(|byte| *byte == b' ') else { return (None, message) };
    let stamp = message.get(..space).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
    match stamp {
        Some(at) => (Some(at), message.get(space + 1..).unwrap_or_default()),
        None => (None, message),
    }
}

/// How long the engine has been away.
#[derive(Debug, Default)]
struct Away {
    since: Option<Instant>,
    pause: Duration,
}

impl Away {
    fn back(&mut self) {
        *self = Self::default();
    }

    /// Waits before the next attempt; answers the error when it has been long enough.
    async fn endure(&mut self, lost: ApiError) -> Result<(), ApiError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= AWAY {
            return Err(lost);
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(100), Duration::from_secs(5));
        tokio::time::sleep(self.pause).await;
        Ok(())
    }
}

/// How reading a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum Pass {
    /// Everything there was has been told.
    Complete,
    /// The last messages do not reach back to what was told: nothing was told, a longer look is needed.
    Gap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Going,
    Over(i32),
}

struct Follower {
    engine: Engine,
    id: String,
    terminal: bool,
    tell: mpsc::Sender<Told<i32>>,
    position: Position,
    away: Away,
}

impl Follower {
    async fn follow(&mut self) -> Result<i32, ApiError> {
        loop {
            let phase = match self.phase().await {
                Ok(phase) => phase,
                Err(lost) => {
                    self.survive(lost).await?;
                    continue;
                }
            };
            let read = match phase {
                Phase::Waiting => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Phase::Going => self.read(true, None).await.map(|_| ()),
                Phase::Over(_) => self.read_rest().await,
            };
            match (read, phase) {
                (Err(lost), _) => self.survive(lost).await?,
                (Ok(()), Phase::Over(code)) => return Ok(code),
                // The stream ends a little before the state says so.
                (Ok(()), _) => self.wait_a_little().await,
            }
        }
    }

    async fn survive(&mut self, lost: ApiError) -> Result<(), ApiError> {
        if self.tell.is_closed() || !matches!(lost.kind, ErrorKind::Unavailable | ErrorKind::TimedOut) {
            return Err(lost);
        }
        self.away.endure(lost).await
    }

    async fn phase(&mut self) -> Result<Phase, ApiError> {
        let answer = self.engine.client().inspect_container(&self.id, None).await;
        let answer =
            answer.map_err(|error| self.engine.failed(&format!("cannot follow container `{}`", self.id), &error))?;
        self.away.back();
        let state = answer.state.unwrap_or_default();
        let code = i32::try_from(state.exit_code.unwrap_or_default()).unwrap_or(i32::MAX);
        let word = state.status.map(|status| status.to_string()).unwrap_or_default();
        Ok(match word.as_str() {
            "created" => Phase::Waiting,
            "exited" | "dead" | "removing" | "stopped" => Phase::Over(code),
            _ => Phase::Going,
        })
    }

    /// What came after the last message told; for most containers nothing. The last messages are looked at first, because
    /// an engine reads a long log from its start otherwise.
    async fn read_rest(&mut self) -> Result<(), ApiError> {
        if self.position.last.since().is_some() && self.read(false, Some(SECOND_LOOK)).await? == Pass::Complete {
            return Ok(());
        }
        self.read(false, None).await.map(|_| ())
    }

    async fn read(&mut self, follow: bool, tail: Option<usize>) -> Result<Pass, ApiError> {
        let since = self
            .position
            .last
            .since()
            .filter(|_| !self.terminal)
            .map_or(0, |second| i32::try_from(second).unwrap_or(0));
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            since,
            timestamps: !self.terminal,
            tail: tail.map_or_else(|| "all".to_owned(), |count| count.to_string()),
            ..LogsOptions::default()
        };
        let client = self.engine.client_within(SILENCE);
        let mut stream = client.logs(&self.id, Some(options));
        let mut overlap = self.position.overlap();
        let mut first = true;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.lost(&error))?;
            self.away.back();
            let (channel, message) = match piece {
                LogOutput::StdErr { message } => (OutputStream::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
                    (OutputStream::Stdout, message)
                }
            };
            let (at, fresh) = if self.terminal { (None, overlap.rest(&message)) } else { unstamp(&message) };
            let known = !self.terminal && overlap.covers(channel, at);
            if first && tail.is_some() && !known {
                return Ok(Pass::Gap);
            }
            first = false;
            if !known && !fresh.is_empty() {
                self.position.told(channel, at, fresh.len());
                if self.tell.send(Told::Output(channel, fresh.to_vec())).await.is_err() {
                    return Err(error(ErrorKind::Cancelled, "nobody follows any more"));
                }
            }
        }
        Ok(Pass::Complete)
    }

    /// A stream that breaks off is the engine's absence, whatever the client calls it.
    fn lost(&self, error: &bollard::errors::Error) -> ApiError {
        self.engine.failed(&format!("cannot read the output of container `{}`", self.id), error)
    }

    async fn wait_a_little(&self) {
        let condition = WaitContainerOptions { condition: "not-running".to_owned() };
        let mut ended = std::pin::pin!(self.engine.client().wait_container(&self.id, Some(condition)));
        // Any answer will do: the state is asked for next.
        let _ = tokio::time::timeout(Duration::from_secs(1), ended.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_timestamp_is_taken_off_and_nothing_else() {
        assert_eq!(unstamp(b"1970-01-01T00:00:07.000000000Z a b\n"), (at(7), b"a b\n".as_slice()));
        assert_eq!(unstamp(b"1970-01-01T02:00:07+02:00 x"), (at(7), b"x".as_slice()));
        assert_eq!(unstamp(b"not a stamp"), (None, b"not a stamp".as_slice()));
        assert_eq!(unstamp(b""), (None, b"".as_slice()));
    }

    #[test]
    fn a_stream_taken_up_again_repeats_nothing_and_loses_nothing() {
        let mut position = Position::default();
        for second in [1, 2, 2] {
            position.told(OutputStream::Stdout, at(second), 1);
        }
        let mut overlap = position.overlap();
        let mut covers = |second| overlap.covers(OutputStream::Stdout, at(second));
        let again: Vec<bool> = [1, 2, 2, 2, 3].into_iter().map(&mut covers).collect();
        assert_eq!(again, [true, true, true, false, false]);
        // After the overlap a clock that steps back hides nothing.
        assert!(!covers(1));
    }

    #[test]
    fn a_stream_that_stands_behind_the_other_with_an_earlier_time_makes_none_of_it_new() {
        let told = [(OutputStream::Stdout, 1), (OutputStream::Stdout, 5), (OutputStream::Stderr, 4)];
        let mut position = Position::default();
        for (stream, second) in told {
            position.told(stream, at(second), 1);
        }
        assert_eq!(position.last.since(), Some(5 - STALE));
        let mut overlap = position.overlap();
        assert!(told.into_iter().all(|(stream, second)| overlap.covers(stream, at(second))));
        assert!(!overlap.covers(OutputStream::Stderr, at(4)) && !overlap.covers(OutputStream::Stdout, at(6)));
    }

    #[tokio::test]
    async fn an_engine_that_stays_away_is_waited_for_and_then_given_up() {
        let lost = || error(ErrorKind::Unavailable, "gone");
        let mut away = Away::default();
        assert!(away.endure(lost()).await.is_ok());
        away.since = Instant::now().checked_sub(AWAY);
        assert!(matches!(away.endure(lost()).await.unwrap_err().kind, ErrorKind::Unavailable));
        away.back();
        assert!(away.endure(lost()).await.is_ok());
    }

    #[test]
    fn a_terminal_is_taken_up_at_the_byte() {
        let mut position = Position::default();
        position.told(OutputStream::Stdout, None, 5);
        let mut overlap = position.overlap();
        assert_eq!(overlap.rest(b"abc"), b"");
        assert_eq!(overlap.rest(b"defg"), b"fg");
        assert_eq!(overlap.rest(b"h"), b"h");
    }
}
