use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::target::exports::maddock::plugin::target::JobOptions;

/// By the names of the WIT file. A test of the host compares them.
const JOB_OPTIONS: [(&str, JobOptions); 3] =
    [("keep-alive", JobOptions::KEEP_ALIVE), ("skip-model", JobOptions::SKIP_MODEL), ("detach", JobOptions::DETACH)];

impl Serialize for JobOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let set = JOB_OPTIONS.into_iter().filter(|(_, flag)| (*self & *flag) == *flag);
        serializer.collect_seq(set.map(|(name, _)| name))
    }
}

impl<'de> Deserialize<'de> for JobOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().try_fold(Self::default(), |set, name| {
            let found = JOB_OPTIONS.into_iter().find(|(known, _)| known == name);
            let (_, flag) = found.ok_or_else(|| D::Error::custom(format!("`{name}` is no option of a job")))?;
            Ok(set | flag)
        })
    }
}
