//! A look at the partition before a job is handed in: what is told of it. Nothing is kept from the queue for it, for a
//! busy or drained cluster is what queues are for, and nothing on any node is touched.

use maddock_sdk::events::Level;
use maddock_sdk::slurm::{Cluster, Readiness};

/// Nodes that are named one by one at most.
const NAMED: usize = 5;

/// The name of the partition that counts: the scheduler's default where none is named.
fn named<'a>(cluster: &'a Cluster, partition: &'a str) -> &'a str {
    let default = || cluster.partitions.iter().find(|known| known.is_default).map_or("", |known| known.name.as_str());
    if partition.is_empty() { default() } else { partition }
}

/// The longest time of a partition, of several the shortest such; `Some(None)` for no limit, none where one is not known.
#[must_use]
pub fn longest(cluster: &Cluster, partition: &str) -> Option<Option<u32>> {
    let limits: Option<Vec<Option<u32>>> = named(cluster, partition)
        .split(',')
        .map(|name| cluster.partitions.iter().find(|known| known.name == name).map(|known| known.time_limit))
        .collect();
    Some(limits?.into_iter().flatten().min())
}

/// What to tell of a partition of which `wanted` nodes are asked for; none where all is well.
#[must_use]
pub fn told(cluster: &Cluster, partition: &str, wanted: u32) -> Option<(Level, String)> {
    let partition = named(cluster, partition);
    // The scheduler may take any of several.
    let is_of = |own: &String| partition.split(',').any(|name| own == name.trim());
    let nodes: Vec<_> = cluster.nodes.iter().filter(|node| node.partitions.iter().any(is_of)).collect();
    let away: Vec<_> = nodes.iter().filter(|node| node.readiness != Readiness::Up).collect();
    // A cluster that lists no nodes has not been examined.
    if nodes.is_empty() || away.is_empty() {
        return None;
    }
    let mut names: Vec<String> = away
        .iter()
        .take(NAMED)
        .map(|node| {
            let reason = if node.reason.is_empty() { String::new() } else { format!(" ({})", node.reason) };
            format!("{} is {}{reason}", node.name, node.state)
        })
        .collect();
    if away.len() > NAMED {
        names.push(format!("and {} more", away.len() - NAMED));
    }
    let up = nodes.len() - away.len();
    let enough = up as u64 >= u64::from(wanted);
    let waits = if enough { String::new() } else { format!("; the job waits for {wanted}") };
    let level = if enough { Level::Info } else { Level::Warning };
    Some((
        level,
        format!("{up} of {} nodes of partition `{partition}` are up{waits}: {}", nodes.len(), names.join(", ")),
    ))
}

/// Seconds for a model to end in, of those that the scheduler leaves between asking and force: the container has to be gone
/// by then.
#[must_use]
pub fn grace(cluster: &Cluster) -> Option<u32> {
    let wait = cluster.extra.iter().find(|entry| entry.name == "kill-wait")?.value.parse::<u32>().ok()?;
    Some((wait / 3).clamp(1, 10))
}

#[cfg(test)]
mod tests {
    use maddock_sdk::slurm::{Node, Partition};

    use super::*;

    fn cluster(states: &[Readiness]) -> Cluster {
        let node = |(number, readiness): (usize, &Readiness)| Node {
            name: format!("n{number}"),
            partitions: vec!["p".into()],
            readiness: *readiness,
            state: "drained".into(),
            reason: "testing".into(),
            gres: String::new(),
            cpus: 1,
            memory: 1,
        };
        let nodes = states.iter().enumerate().map(node).collect();
        Cluster { version: String::new(), partitions: Vec::new(), nodes, extra: Vec::new() }
    }

    #[test]
    fn too_few_nodes_are_told_with_their_reasons_and_keep_nothing_from_the_queue() {
        let (level, text) = told(&cluster(&[Readiness::Up, Readiness::Draining, Readiness::Down]), "p", 2).unwrap();
        assert_eq!(level, Level::Warning);
        assert!(text.starts_with("1 of 3 nodes") && text.contains("n1 is drained (testing)"), "{text}");
        assert_eq!(told(&cluster(&[Readiness::Up, Readiness::Down]), "p", 1).unwrap().0, Level::Info);
        let (_, text) = told(&cluster(&[Readiness::Down]), "q,p", 1).unwrap();
        assert!(text.contains("partition `q,p`"), "of several any counts: {text}");
    }

    #[test]
    fn a_partition_that_nobody_names_is_the_scheduler_s_default() {
        let of = |is_default| Partition {
            name: "p".into(),
            is_default,
            readiness: Readiness::Up,
            state: "up".into(),
            time_limit: None,
            node_count: 1,
        };
        let with = |default| Cluster { partitions: vec![of(default)], ..cluster(&[Readiness::Down]) };
        assert!(told(&with(true), "", 1).unwrap().1.contains("partition `p`"));
        assert_eq!(told(&with(false), "", 1), None);
    }

    #[test]
    fn the_longest_time_is_that_of_all_partitions_that_are_named() {
        let of = |name: &str, is_default, time_limit| Partition {
            name: name.into(),
            is_default,
            readiness: Readiness::Up,
            state: "up".into(),
            time_limit,
            node_count: 1,
        };
        let partitions = vec![of("p", false, Some(60)), of("q", false, Some(30)), of("free", true, None)];
        let cluster = Cluster { partitions, ..cluster(&[]) };
        for (name, expected) in
            [("p", Some(Some(60))), ("p,q", Some(Some(30))), ("free", Some(None)), ("", Some(None)), ("x", None)]
        {
            assert_eq!(longest(&cluster, name), expected, "{name}");
        }
    }

    #[test]
    fn a_model_has_a_third_of_the_scheduler_s_patience() {
        let of = |value: &str| {
            let extra = vec![maddock_sdk::types::Entry { name: "kill-wait".into(), value: value.into() }];
            grace(&Cluster { extra, ..cluster(&[]) })
        };
        assert_eq!((of("30"), of("3"), of("600"), of("0")), (Some(10), Some(1), Some(10), Some(1)));
        assert_eq!(grace(&cluster(&[])), None);
    }

    #[test]
    fn a_partition_that_is_well_or_was_not_seen_is_no_news() {
        assert_eq!(told(&cluster(&[Readiness::Up, Readiness::Up]), "p", 2), None);
        assert_eq!(told(&cluster(&[Readiness::Down]), "other", 2), None);
    }
}
