//! Why a setting is refused.

/// A refused setting: its key, the given value, and a value that would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("there is no setting `{key}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The value that was asked for.
        key: String,
        /// The known name closest to it, if one is close.
        nearest: Option<String>,
    },
    /// The text is not a value of the setting's kind, or is out of its range.
    #[error("`{key}` cannot be `{value}`: {fix}")]
    BadValue {
        key: String,
        value: String,
        /// What to write instead.
        fix: String,
    },
    /// Two settings do not fit together.
    #[error("`{key}` cannot be `{value}` {why}: {fix}")]
    Conflict {
        /// The setting to change.
        key: &'static str,
        value: String,
        /// The setting that it collides with.
        why: &'static str,
        /// What to write instead.
        fix: &'static str,
    },
}

/// The candidate nearest to `given` by edit distance, when it is near enough to be a slip of the finger.
pub fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names longer than any of ours cannot be a slip of one, and the work grows with the product of both lengths.
    const LONGEST_NAME: usize = 64;
    if given.len() > LONGEST_NAME {
        return None;
    }
    candidates
        .map(|candidate| (strsim::levenshtein(given, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_only_a_near_one() {
        let known = ["retention.ms", "segment.bytes", "listen"];
        let check = |given: &str, expect: Option<&str>| {
            assert_eq!(nearest(given, known.into_iter()), expect, "{given}");
        };
        check("retention.msec", Some("retention.ms"));
        check("segment-bytes", Some("segment.bytes"));
        check("lisen", Some("listen"));
        check("quota", None);
        check(&"x".repeat(10_000), None);
    }
}
