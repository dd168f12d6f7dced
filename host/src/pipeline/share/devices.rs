//! Which of a node's accelerators a job may use: those that whoever gave it the node says, and no others.

use crate::plugin::Environment;
use crate::plugin::accelerators::Inventory;

/// Positions in the inventory of the `count` devices that this job has, as the first variable that is set lists them.
/// Without such a variable the node is the job's own, and the first devices are taken.
///
/// # Errors
/// The list has too few, or names what this node does not have; a sentence.
pub(super) fn given(
    inventory: &Inventory,
    count: u32,
    variables: &[String],
    environment: &Environment,
) -> Result<Vec<u32>, String> {
    let set = variables.iter().find_map(|name| {
        let list = environment.get(name).map(str::trim).filter(|list| !list.is_empty())?;
        Some((name, list))
    });
    let has = inventory.devices.len();
    let chosen = match set {
        None => (0..u32::try_from(has).unwrap_or(u32::MAX)).collect(),
        Some((name, list)) => listed(inventory, list).map_err(|unknown| {
            format!("`{name}` gives this job the device `{unknown}`, which is not one of the {has} that answer here")
        })?,
    };
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    match chosen.get(..wanted) {
        Some(chosen) => Ok(chosen.to_vec()),
        None => {
            let by =
                set.map_or_else(|| "answer here".to_owned(), |(name, list)| format!("are given by `{name}={list}`"));
            Err(format!("the job asks for {count} devices on each node, and {} {by}", chosen.len()))
        }
    }
}

/// Numbers, ranges of numbers, or identifiers, which may be shortened.
fn listed(inventory: &Inventory, list: &str) -> Result<Vec<u32>, String> {
    let mut chosen = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let range = match item.split_once('-') {
            Some((first, last)) => first.parse::<u32>().ok().zip(last.parse::<u32>().ok()),
            None => item.parse::<u32>().ok().map(|number| (number, number)),
        };
        let fits = |device: &crate::plugin::accelerators::Device| match range {
            Some((first, last)) => (first..=last).contains(&device.index),
            None => !device.uuid.is_empty() && device.uuid.starts_with(item),
        };
        let found: Vec<u32> =
            (0..).zip(&inventory.devices).filter(|(_, device)| fits(device)).map(|(place, _)| place).collect();
        let expected = range.map_or(1, |(first, last)| u64::from(last.saturating_sub(first)) + 1);
        if found.len() as u64 != expected {
            return Err(item.to_owned());
        }
        for place in found {
            if !chosen.contains(&place) {
                chosen.push(place);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::accelerators::Device;

    fn inventory(uuids: &[&str]) -> Inventory {
        let device = |(index, uuid): (u32, &&str)| Device {
            index,
            name: String::new(),
            architecture: String::new(),
            uuid: (*uuid).to_owned(),
            node: String::new(),
            extra: Vec::new(),
        };
        Inventory {
            vendor: "V".to_owned(),
            devices: (0..).zip(uuids).map(device).collect(),
            runtime_version: String::new(),
            root: String::new(),
            variables: Vec::new(),
            warnings: Vec::new(),
            extra: Vec::new(),
        }
    }

    fn chosen(count: u32, set: &[(&str, &str)]) -> Result<Vec<u32>, String> {
        let environment = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let names = ["FIRST".to_owned(), "SECOND".to_owned()];
        given(&inventory(&["U-aa", "U-ab", "U-b", "U-c"]), count, &names, &environment)
    }

    #[test]
    fn the_first_variable_that_is_set_says_which() {
        assert_eq!(chosen(2, &[("FIRST", "2,3"), ("SECOND", "0,1")]), Ok(vec![2, 3]));
        assert_eq!(chosen(2, &[("FIRST", " "), ("SECOND", "1-2")]), Ok(vec![1, 2]));
        assert_eq!(chosen(1, &[("FIRST", "U-ab")]), Ok(vec![1]));
    }

    #[test]
    fn a_job_takes_no_more_than_it_asked_for_and_no_less() {
        assert_eq!(chosen(1, &[("FIRST", "2,3")]), Ok(vec![2]));
        assert_eq!(chosen(2, &[]), Ok(vec![0, 1]));
        assert!(chosen(2, &[("FIRST", "2")]).unwrap_err().contains("`FIRST=2`"));
        assert!(chosen(5, &[]).unwrap_err().contains("4 answer here"));
    }

    #[test]
    fn a_device_that_is_not_there_or_not_the_only_one_of_that_name_is_told() {
        for list in ["7", "U-a", "U-x", "2-9", "3-2"] {
            assert!(chosen(1, &[("FIRST", list)]).unwrap_err().contains(list), "{list}");
        }
    }
}
