//! Whether the engines behind the capabilities answer: for `maddock doctor`, outside any plugin and changing nothing.

use crate::plugin::RunContext;

/// One engine.
#[derive(Debug)]
pub struct Probe {
    /// What it is.
    pub name: &'static str,
    /// Whether it answers.
    pub answers: bool,
    /// Its version, or what to do.
    pub details: String,
}

/// Asks every engine that this host has an interface for.
pub async fn engines(context: &RunContext) -> Vec<Probe> {
    let mut probes = vec![match super::docker::version(context).await {
        Ok(details) => Probe { name: "docker", answers: true, details },
        Err(error) => {
            let details = match error.hint {
                Some(hint) => format!("{}; {hint}", error.message),
                None => error.message,
            };
            Probe { name: "docker", answers: false, details }
        }
    }];
    // Most machines have no batch scheduler, and miss nothing.
    if context.environment.find_program("sinfo").is_some() {
        probes.push(match super::slurm::version(context).await {
            Ok(details) => Probe { name: "slurm", answers: true, details },
            Err(error) => Probe { name: "slurm", answers: false, details: error.message },
        });
    }
    // The same goes for clusters.
    if super::kube::is_configured(&context.environment) {
        probes.push(match super::kube::version(context).await {
            Ok(details) => Probe { name: "kubernetes", answers: true, details },
            Err(error) => Probe { name: "kubernetes", answers: false, details: error.message },
        });
    }
    probes
}
