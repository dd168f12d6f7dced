//! One instance of one plugin in a store of its own, with ceilings on memory, time, log and transfer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wasmtime::component::ResourceTable;
use wasmtime::{StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::context::RunContext;
use crate::capability::events::PluginEvent;
use crate::capability::gate::{Gate, Identity};

/// What one call of a plugin may use up.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Bytes of linear memory.
    pub memory: usize,
    /// Time on the processor, not counting what host calls wait for.
    pub processor: Duration,
    /// Bytes told through `events` and written to stderr.
    pub log: usize,
    /// Bytes moved through `files`, `process` and the engines' interfaces.
    pub transfer: u64,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self { memory: 256 << 20, processor: Duration::from_secs(10), log: 1 << 30, transfer: 8 << 30 }
    }
}

/// Bytes of guest stderr kept for messages.
const STDERR_KEPT: usize = 64 << 10;

/// What the host functions of one instance work on.
pub struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) limits: StoreLimits,
    /// What this plugin may do.
    pub gate: Gate,
    /// What the invocation shares.
    pub context: Arc<RunContext>,
    /// The job that the instance works for, where it does.
    pub job: Option<String>,
    pub(crate) events: mpsc::Sender<PluginEvent>,
    pub(crate) stderr: MemoryOutputPipe,
    pub(crate) ceilings: Ceilings,
    pub(crate) ticks: u64,
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
        let stderr = MemoryOutputPipe::new(STDERR_KEPT);
        // An empty WASI: no files, no network, no environment, no arguments. Random numbers are the same every time, so that
        // a plugin is deterministic given the answers to its host calls.
        let wasi = WasiCtxBuilder::new()
            .stderr(stderr.clone())
            .secure_random(wasmtime_wasi::random::Deterministic::new(vec![0x5a; 32]))
            .insecure_random(wasmtime_wasi::random::Deterministic::new(vec![0x5a; 32]))
            .insecure_random_seed(0x6d61_6464_6f63_6b00)
            .build();
        let limits = StoreLimitsBuilder::new().memory_size(ceilings.memory).trap_on_grow_failure(true).build();
        let gate = Gate::new(context.policy.clone(), context.trace.clone(), identity);
        Self {
            wasi,
            table: ResourceTable::new(),
            limits,
            gate,
            context,
            job,
            events,
            stderr,
            ceilings,
            ticks: 0,
            logged: 0,
            moved: 0,
        }
    }

    /// Counts bytes told against the log ceiling.
    ///
    /// # Errors
    /// The ceiling is reached: ends the plugin.
    pub fn charge_log(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.logged = self.logged.saturating_add(bytes);
        if self.logged > self.ceilings.log {
            return Err(wasmtime::Error::msg(format!(
                "it told more than {} bytes, the ceiling of one call",
                self.ceilings.log
            )));
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
            return Err(wasmtime::Error::msg(format!(
                "it moved more than {} bytes, the ceiling of one call",
                self.ceilings.transfer
            )));
        }
        Ok(())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
