//! The WIT package `maddock:plugin`, as the host sees it.
//!
//! `capabilities` holds what plugins import (the host implements those traits), the other modules one
//! plugin kind each. Generated code only; nothing here decides anything.

/// What the host offers to every kind of plugin.
pub mod capabilities {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "capabilities",
        imports: { default: async | trappable },
        additional_derives: [Clone, PartialEq, serde::Serialize, serde::Deserialize],
    });
}

pub use capabilities::maddock::plugin as api;

/// Names of flags in a record of calls: the generator derives nothing for them.
mod flags;

macro_rules! kind {
    ($(#[$doc:meta])* $module:ident, $world:literal) => {
        $(#[$doc])*
        pub mod $module {
            wasmtime::component::bindgen!({
                path: "../../wit",
                world: $world,
                imports: { default: async | trappable },
                exports: { default: async },
                additional_derives: [Clone, serde::Serialize, serde::Deserialize],
                with: {
                    "maddock:plugin/types": crate::api::types,
                    "maddock:plugin/events": crate::api::events,
                    "maddock:plugin/facts": crate::api::facts,
                    "maddock:plugin/files": crate::api::files,
                    "maddock:plugin/process": crate::api::process,
                    "maddock:plugin/docker": crate::api::docker,
                    "maddock:plugin/slurm": crate::api::slurm,
                    "maddock:plugin/kube": crate::api::kube,
                    "maddock:plugin/secrets": crate::api::secrets,
                },
            });
        }
    };
}

kind!(
    /// Finds models.
    discovery, "discovery-plugin"
);
kind!(
    /// Makes images.
    builder, "builder-plugin"
);
kind!(
    /// Runs jobs.
    target, "target-plugin"
);
kind!(
    /// Arranges topologies.
    launcher, "launcher-plugin"
);
kind!(
    /// Knows accelerators.
    gpu, "gpu-plugin"
);
kind!(
    /// Writes reports.
    reporter, "reporter-plugin"
);
