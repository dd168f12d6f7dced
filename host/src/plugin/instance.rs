//! One instance of one plugin in a store of its own, with ceilings on memory, time, log and transfer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::context::RunContext;
use super::meter::Meter;
use super::stderr::Stderr;
use crate::capability::events::PluginEvent;
use crate::capability::gate::{Gate, Identity};

/// What one call of a plugin may use up.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Bytes of all linear memories and tables together.
    pub memory: usize,
    /// Time on the processor, not counting what host calls wait for.
    pub processor: Duration,
    /// Bytes told through `events`, where even an empty event counts; and as many written to stderr.
    pub log: usize,
    /// Bytes moved through `files`, `process` and the engines' interfaces.
    pub transfer: u64,
    /// Calls that pass the gate.
    pub host_calls: u64,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            processor: Duration::from_secs(10),
            log: 1 << 30,
            transfer: 8 << 30,
            host_calls: 10_000_000,
        }
    }
}

/// What one event costs besides its text, so that empty ones come to an end as well.
const EVENT: usize = 64;

/// Locks, children, followers, streams that one instance may hold at once: each may cost this process a descriptor.
const HELD: usize = 256;

/// A call reached a ceiling. The sentence is the host's own.
#[derive(Debug, thiserror::Error)]
#[error("it {done}, the ceiling of one call")]
pub(super) struct Reached {
    done: String,
}

impl Reached {
    pub(super) fn ending(done: String) -> wasmtime::Error {
        wasmtime::Error::new(Self { done })
    }
}

/// All memories and tables of one instance against one ceiling: a component may have many of either.
pub(crate) struct Limits {
    used: usize,
    ceiling: usize,
}

impl Limits {
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, size: usize) -> wasmtime::Result<bool> {
        // Beyond the maximum that it set itself: the plugin's own affair.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let used = self.used.saturating_add(desired.saturating_sub(current).saturating_mul(size));
        if used > self.ceiling {
            return Err(Reached::ending(format!("asked for more than {} bytes of memory", self.ceiling)));
        }
        self.used = used;
        Ok(true)
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(current, desired, maximum, 1)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context("this machine has no memory left for it"))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(current, desired, maximum, size_of::<usize>())
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context("this machine has no memory left for it"))
    }
}

/// What the host functions of one instance work on.
pub struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) limits: Limits,
    /// What this plugin may do.
    pub gate: Gate,
    /// What the invocation shares.
    pub context: Arc<RunContext>,
    /// The job that the instance works for, where it does.
    pub job: Option<String>,
    pub(crate) events: mpsc::Sender<PluginEvent>,
    pub(crate) stderr: Stderr,
    pub(crate) ceilings: Ceilings,
    pub(crate) meter: Arc<Meter>,
    logged: usize,
    moved: u64,
}

impl State {
    pub(crate) fn new(
        identity: Arc<Identity>,
        context: Arc<RunContext>,
        job: Option<String>,
        events: mpsc::Sender<PluginEvent>,
        ceilings: Ceilings,
    ) -> Self {
        let stderr = Stderr::new(ceilings.log);
        // An empty WASI: no files, no network, no environment, no arguments. Random numbers are the same every time, so that
        // a plugin is deterministic given the answers to its host calls.
        let wasi = WasiCtxBuilder::new()
            .stderr(stderr.clone())
            .secure_random(wasmtime_wasi::random::Deterministic::new(vec![0x5a; 32]))
            .insecure_random(wasmtime_wasi::random::Deterministic::new(vec![0x5a; 32]))
            .insecure_random_seed(0x6d61_6464_6f63_6b00)
            .build();
        let limits = Limits { used: 0, ceiling: ceilings.memory };
        let mut table = ResourceTable::new();
        table.set_max_capacity(HELD);
        let gate = Gate::limited(context.policy.clone(), context.trace.clone(), identity, ceilings.host_calls)
            .hiding(context.clone());
        Self {
            wasi,
            table,
            limits,
            gate,
            context,
            job,
            events,
            stderr,
            ceilings,
            meter: Arc::default(),
            logged: 0,
            moved: 0,
        }
    }

    /// Counts an event and its bytes against the log ceiling.
    ///
    /// # Errors
    /// The ceiling is reached: ends the plugin.
    pub fn charge_log(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.logged = self.logged.saturating_add(bytes).saturating_add(EVENT);
        if self.logged > self.ceilings.log {
            return Err(Reached::ending(format!("told more than {} bytes", self.ceilings.log)));
        }
        Ok(())
    }

    /// Counts bytes moved against the transfer ceiling.
    ///
    /// # Errors
    /// The ceiling is reached: ends the plugin.
    pub fn charge_transfer(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved > self.ceilings.transfer {
            return Err(Reached::ending(format!("moved more than {} bytes", self.ceilings.transfer)));
        }
        Ok(())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
