//! "Did you mean …?": the known name that is closest to one that is not known.

/// The closest of `known` to `given`, if any is close enough to be a likely slip: a third of its letters may be wrong.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1.max(name.chars().count().max(given.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `; did you mean `x`?`, or the whole list when nothing is close.
pub(crate) fn hint<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(given, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
            if names.is_empty() { "none is known".to_owned() } else { format!("known: {}", names.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_else() {
        let known = ["topic", "partitioner", "from"];
        for (given, expect) in [
            ("topik", Some("topic")),
            ("partioner", Some("partitioner")),
            ("form", Some("from")),
            ("Topic", Some("topic")),
            ("elephant", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), expect, "{given}");
        }
        assert_eq!(hint("elephant", known), "known: `topic`, `partitioner`, `from`");
    }
}
