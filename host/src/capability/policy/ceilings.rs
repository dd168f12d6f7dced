//! What one plugin call may use up, as policy says: a layer can only lower it.

use std::time::Duration;

use super::Policy;
use crate::capability::gate::Identity;
use crate::plugin::Ceilings;

impl Policy {
    /// Ceilings of a plugin's calls under every layer.
    #[must_use]
    pub fn ceilings(&self, who: &Identity, mut ceilings: Ceilings) -> Ceilings {
        let rules = self.layers.iter().flat_map(|layer| &layer.content.limits).filter(|rule| rule.who.is_meant(who));
        for rule in rules {
            let amounts = rule.amounts;
            let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            ceilings.memory = amounts.memory.map_or(ceilings.memory, |most| size(most).min(ceilings.memory));
            ceilings.log = amounts.log.map_or(ceilings.log, |most| size(most).min(ceilings.log));
            ceilings.transfer = amounts.transfer.map_or(ceilings.transfer, |most| most.min(ceilings.transfer));
            ceilings.host_calls = amounts.host_calls.map_or(ceilings.host_calls, |most| most.min(ceilings.host_calls));
            ceilings.instances =
                amounts.instances.map_or(ceilings.instances, |most| size(most).min(ceilings.instances));
            ceilings.handles = amounts.handles.map_or(ceilings.handles, |most| size(most).min(ceilings.handles));
            let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            ceilings.processor =
                amounts.processor.map_or(ceilings.processor, |most| time(most).min(ceilings.processor));
            ceilings.time = [ceilings.time, amounts.time.map(time)].into_iter().flatten().min();
        }
        ceilings
    }
}
