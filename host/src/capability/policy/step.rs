//! A whole plan at once: what the gate would say of each step, before the first of them has an effect.
//!
//! A plan is a plugin's own word. What it leaves out is decided when it is asked for; nothing here allows anything.

use std::path::Path;

use maddock_bindings::api::types::{Step, WorkPlan};

use super::matcher::Kind;
use super::vocabulary;
use super::{Denial, Policy, Verdict};
use crate::capability::docker::surely_from;
use crate::capability::events::printable;
use crate::capability::files::place;
use crate::capability::gate::Identity;

/// A step that will be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the plan, from 0.
    pub step: usize,
    /// Why.
    pub denial: Denial,
}

impl Policy {
    /// The steps of a plan that will be refused.
    #[must_use]
    pub fn refusals(&self, who: &Identity, plan: &WorkPlan) -> Vec<Refusal> {
        plan.steps
            .iter()
            .enumerate()
            .filter_map(|(number, step)| Some(Refusal { step: number, denial: self.refusal(who, step)? }))
            .collect()
    }

    fn refusal(&self, who: &Identity, step: &Step) -> Option<Denial> {
        let found = vocabulary::find(&step.call)?;
        let mut asked = Vec::new();
        for entry in &step.scope {
            let Some(scope) = found.1.scope(&entry.name) else { continue };
            let value = match scope.kind {
                Kind::Path | Kind::Tree => resolved(&entry.value),
                // Such as that a container is not privileged: nothing is asked for.
                Kind::Choice(options) if !options.contains(&entry.value.as_str()) => continue,
                _ => entry.value.clone(),
            };
            asked.push((scope.name, value));
        }
        let refused = |asked: &[(&'static str, String)]| match self.decide_found(who, &step.call, Some(found), asked) {
            Verdict::Allowed { .. } => None,
            Verdict::Denied(denial) => Some(*denial),
        };
        let refusal = refused(&asked);
        // What a build takes its layers from stands in its file, which is read where the plugin may build it.
        if refusal.is_some() || step.call != "docker.build-image" {
            return refusal;
        }
        let files: Vec<String> =
            asked.iter().filter(|(name, _)| *name == "path").map(|(_, path)| path.clone()).collect();
        let mut places = Vec::new();
        for path in files {
            for (image, line) in surely_from(Path::new(&path)) {
                places.push((format!("on image `{image}`"), format!("{path}:{line}")));
                asked.push(("image", image));
            }
        }
        let mut denial = refused(&asked)?;
        if let Some((_, place)) = places.iter().find(|(named, _)| denial.message.contains(named)) {
            denial.message = format!("{}: {}", printable(place), denial.message);
        }
        Some(denial)
    }
}

/// Where a path leads to, as the gate will be asked; as it stands where that cannot be told.
fn resolved(path: &str) -> String {
    match place::parse(path).and_then(|path: std::path::PathBuf| place::existing(Path::new(&path))) {
        Ok(place) => place.path().to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    }
}
