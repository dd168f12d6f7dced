//! "Did you mean": the known names nearest to one that is not known.

/// The known names that are similar, nearest first, three at most.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= THRESHOLD)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().map(|(_, candidate)| candidate).take(3).collect()
}

/// Below this two names have nothing to do with each other.
const THRESHOLD: f64 = 0.8;

/// Names in backticks, the last two joined by `last`: "`a`, `b` or `c`".
#[must_use]
pub fn listed<S: AsRef<str>>(names: &[S], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

/// "did you mean `x`?", or none where nothing is near.
#[must_use]
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = nearest(name, known);
    (!near.is_empty()).then(|| format!("did you mean {}?", listed(&near, "or")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first_and_strangers_do_not_come() {
        assert_eq!(nearest("guest_oz", ["timeout", "guest_os", "guests"]).first(), Some(&"guest_os"));
        assert_eq!(suggestion("zzz", ["timeout", "guest_os"]), None);
    }

    #[test]
    fn names_are_listed_as_a_sentence() {
        assert_eq!(listed(&["a", "b", "c"], "or"), "`a`, `b` or `c`");
        assert_eq!(listed(&["a"], "and"), "`a`");
    }
}
