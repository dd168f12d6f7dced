//! What a maddock plugin depends on.
//!
//! A plugin is a component: it exports the interface of its kind (see the modules of that name), imports the
//! capabilities that it uses, and carries a manifest inside itself:
//!
//! ```text
//! struct Plugin;
//! impl maddock_sdk::launcher::Guest for Plugin { /* … */ }
//! maddock_sdk::manifest!("plugin.json");
//! maddock_sdk::launcher::export!(Plugin with_types_in maddock_sdk::launcher);
//! ```
#![allow(missing_docs, reason = "generated bindings; the WIT files carry the documentation")]

pub mod accelerators;
pub mod entry;
mod errors;
#[cfg(feature = "fixtures")]
pub mod fixture;
pub mod job_result;
pub mod local;
pub mod machine;
pub mod quote;
pub mod references;
pub mod registry;

pub use errors::{Result, failed, invalid, not_found, of, unsupported};
pub use serde_json;

/// Host interfaces: `events`, `facts`, `files`, `process`, `docker`, `slurm`, `kube`, `secrets`, and the shared `types`.
pub mod capabilities {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "capabilities",
        generate_all,
        additional_derives: [PartialEq],
    });
}
pub use capabilities::maddock::plugin::{docker, events, facts, files, kube, process, secrets, slurm, types};

macro_rules! kind {
    ($module:ident, $world:literal, $interface:ident) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                pub_export_macro: true,
                default_bindings_module: "maddock_sdk",
                additional_derives: [PartialEq],
                with: {
                    "maddock:plugin/types@0.1.0": crate::types,
                    "maddock:plugin/events@0.1.0": crate::events,
                    "maddock:plugin/facts@0.1.0": crate::facts,
                    "maddock:plugin/files@0.1.0": crate::files,
                    "maddock:plugin/process@0.1.0": crate::process,
                    "maddock:plugin/docker@0.1.0": crate::docker,
                    "maddock:plugin/slurm@0.1.0": crate::slurm,
                    "maddock:plugin/kube@0.1.0": crate::kube,
                    "maddock:plugin/secrets@0.1.0": crate::secrets,
                },
            });
            pub use exports::maddock::plugin::$interface::*;
        }
    };
}
kind!(discovery, "discovery-plugin", discovery);
kind!(builder, "builder-plugin", builder);
kind!(target, "target-plugin", target);
kind!(launcher, "launcher-plugin", launcher);
kind!(gpu, "gpu-plugin", gpu);
kind!(reporter, "reporter-plugin", reporter);

/// Puts the plugin's manifest, a JSON file beside `Cargo.toml`, into the component.
#[macro_export]
macro_rules! manifest {
    ($path:literal) => {
        const MANIFEST: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path));
        #[cfg(target_arch = "wasm32")]
        #[used]
        #[unsafe(link_section = "maddock:manifest")]
        static MANIFEST_SECTION: [u8; MANIFEST.len()] = {
            let mut bytes = [0; MANIFEST.len()];
            let mut at = 0;
            while at < bytes.len() {
                bytes[at] = MANIFEST[at];
                at += 1;
            }
            bytes
        };
    };
}
