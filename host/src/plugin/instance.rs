//! One instance of one plugin in a store of its own, with ceilings on memory, time, log and transfer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wasmtime::ResourceLimiter;
use wasmtime::component::{ResourceTable, ResourceTableError};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::allowance::Allowance;
use super::context::RunContext;
use super::meter::Meter;
use super::stderr::Stderr;
use crate::capability::events::PluginEvent;
use crate::capability::gate::{Gate, Identity};
use crate::capability::tape::{Monotonic, Tape, Wall};

/// What one call of a plugin may use up.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Bytes of all linear memories and tables together.
    pub memory: usize,
    /// Time on the processor, not counting what host calls wait for.
    pub processor: Duration,
    /// Bytes told through `events` in each hour, where even an empty event counts; and as many written to stderr in all.
    pub log: usize,
    /// Bytes moved through `files`, `process` and the engines' interfaces in each hour.
    pub transfer: u64,
    /// Calls that pass the gate in each hour.
    pub host_calls: u64,
    /// Instances of core modules, and as many memories and as many tables: a component may consist of very many.
    pub instances: usize,
    /// Things of the host held at once, such as locks, children, streams: each may cost this process a descriptor.
    pub handles: usize,
    /// Time by the wall clock, waiting included; none where only the kind of the call sets one.
    pub time: Option<Duration>,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            processor: Duration::from_secs(10),
            log: 1 << 30,
            transfer: 8 << 30,
            host_calls: 10_000_000,
            instances: 1_000,
            handles: 256,
            time: None,
        }
    }
}

/// What one event costs besides its text, so that empty ones come to an end as well.
const EVENT: usize = 64;

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
    instances: usize,
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

    fn instances(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.instances
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
    pub(crate) tape: Tape,
    logged: Used,
    moved: Used,
}

/// What a call has used of something that adds up, and may use.
struct Used {
    so_far: u64,
    allowance: Allowance,
}

impl Used {
    fn none_of(ceiling: u64) -> Self {
        Self { so_far: 0, allowance: Allowance::new(ceiling) }
    }

    /// Counts; `done` is what a call that goes on to use more has done.
    fn add(&mut self, more: usize, done: &str) -> wasmtime::Result<()> {
        self.so_far = self.so_far.saturating_add(more as u64);
        if self.allowance.is_exceeded_by(self.so_far) {
            return Err(Reached::ending(format!("{done} more than {} bytes", self.allowance.ceiling())));
        }
        Ok(())
    }
}

impl State {
    pub(crate) fn new(
        identity: Arc<Identity>,
        context: Arc<RunContext>,
        job: Option<String>,
        events: mpsc::Sender<PluginEvent>,
        ceilings: Ceilings,
        tape: Tape,
    ) -> Self {
        let stderr = Stderr::new(ceilings.log);
        // An empty WASI: no files, no network, no environment, no arguments. Random numbers are the same every time, so that
        // a plugin is deterministic given the answers to its host calls. What its clocks say is on the tape.
        let wasi = WasiCtxBuilder::new()
            .stderr(stderr.clone())
            .secure_random(wasmtime_wasi::random::Deterministic::new(vec![0x5a; 32]))
            .insecure_random(wasmtime_wasi::random::Deterministic::new(vec![0x5a; 32]))
            .insecure_random_seed(0x6d61_6464_6f63_6b00)
            .monotonic_clock(Monotonic::new(tape.clone()))
            .wall_clock(Wall(tape.clone()))
            .build();
        let limits = Limits { used: 0, ceiling: ceilings.memory, instances: ceilings.instances };
        let mut table = ResourceTable::new();
        table.set_max_capacity(ceilings.handles);
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
            tape,
            logged: Used::none_of(ceilings.log as u64),
            moved: Used::none_of(ceilings.transfer),
        }
    }

    /// Looks at what the call has used up. Asked at every tick of the engine, it ends a call at the first tick after a
    /// ceiling, however many ticks there were before: what counts is the meter and the gate's own count, and nothing adds up.
    ///
    /// # Errors
    /// A ceiling is reached: ends the plugin.
    pub(super) fn tick(&self) -> wasmtime::Result<()> {
        if let Some(most) = self.gate.exhausted() {
            return Err(Reached::ending(format!("made more than {most} host calls")));
        }
        if self.meter.spent() > self.ceilings.processor {
            let limit = self.ceilings.processor.as_secs_f64();
            return Err(Reached::ending(format!("computed for more than {limit} s")));
        }
        Ok(())
    }

    /// What an error of the engine says of a ceiling that the engine itself watches.
    pub(super) fn engine_ceiling(&self, error: &wasmtime::Error) -> Option<Reached> {
        let counted = error.root_cause().to_string();
        if counted.starts_with("resource limit exceeded: ") {
            let done = format!("consists of more than {} instances, memories or tables", self.ceilings.instances);
            return Some(Reached { done });
        }
        let full = matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full));
        full.then(|| Reached { done: format!("held more than {} things of the host at once", self.ceilings.handles) })
    }

    /// Counts an event and its bytes against the log ceiling.
    ///
    /// # Errors
    /// The ceiling is reached: ends the plugin.
    pub fn charge_log(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.logged.add(bytes.saturating_add(EVENT), "told")
    }

    /// Counts bytes moved against the transfer ceiling.
    ///
    /// # Errors
    /// The ceiling is reached: ends the plugin.
    pub fn charge_transfer(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.moved.add(bytes, "moved")
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Setting;

    fn burn(time: Duration) {
        let began = super::super::meter::thread_clock();
        while super::super::meter::thread_clock() - began < u64::try_from(time.as_nanos()).unwrap() {}
    }

    #[tokio::test]
    async fn the_first_tick_after_the_limit_ends_the_call_however_few_ticks_there_were() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = Setting::in_directory(directory.path()).state().unwrap();
        state.ceilings.processor = Duration::from_millis(50);
        let meter = state.meter.clone();
        meter
            .measure(async {
                // A thousand ticks use up nothing, and none at all saves nobody.
                for _ in 0..1000 {
                    state.tick().unwrap();
                }
                burn(Duration::from_millis(51));
                assert!(state.tick().unwrap_err().to_string().contains("computed for more than 0.05 s"));
            })
            .await;
    }
}
