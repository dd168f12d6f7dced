//! What a guest writes to stderr: counted against the log ceiling, and its end kept for messages. A guest's panic is
//! among its last words, so the end is what counts; a stream that closed when full would make a talkative guest panic.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncWrite, Sink, sink};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::instance::Reached;

/// Bytes kept.
const KEPT: usize = 64 << 10;
/// Bytes that a guest may write at once.
const AT_ONCE: usize = 64 << 10;

/// One instance's stderr.
#[derive(Clone)]
pub(crate) struct Stderr {
    written: Arc<Mutex<Written>>,
    ceiling: usize,
}

#[derive(Default)]
struct Written {
    tail: Vec<u8>,
    total: usize,
}

impl Stderr {
    pub(super) fn new(ceiling: usize) -> Self {
        Self { written: Arc::default(), ceiling }
    }

    /// The end of what was written.
    pub(super) fn tail(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written.tail).into_owned()
    }
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.total = written.total.saturating_add(bytes.len());
        if written.total > self.ceiling {
            return Err(StreamError::Trap(Reached::ending(format!("told more than {} bytes", self.ceiling))));
        }
        written.tail.extend_from_slice(&bytes);
        let surplus = written.tail.len().saturating_sub(KEPT);
        written.tail.drain(..surplus);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(AT_ONCE)
    }
}

#[async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

impl IsTerminal for Stderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stderr {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// For interfaces that are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        let nowhere: Sink = sink();
        Box::new(nowhere)
    }
}
