//! Which partition of its topic a record goes to, by the names of manifests. The rules have a package of their own.

pub use pelton_partitioner::{KeyRule, Partitioner, PartitionerKind, crc32};

/// Parses the name of a partitioner.
///
/// # Errors
/// The nearest name, or all of them, as a text for people.
pub fn parse(name: &str) -> Result<PartitionerKind, String> {
    PartitionerKind::from_name(name).ok_or_else(|| crate::nearest::hint(name, PartitionerKind::names()))
}

/// Parses the name of the partitioner of a topic's producers: the one by which keys are placed, none if it goes by no key,
/// so that those of a key may be in any partition.
///
/// # Errors
/// The nearest name of those that go by keys, or all of them, as a text for people.
pub fn parse_of_producers(name: &str) -> Result<Option<PartitionerKind>, String> {
    let goes_by_key = |kind: &PartitionerKind| kind.rule().is_some();
    match PartitionerKind::from_name(name) {
        Some(kind) => Ok(Some(kind).filter(goes_by_key)),
        None => {
            let known = PartitionerKind::all().filter(goes_by_key).map(PartitionerKind::name);
            Err(crate::nearest::hint(name, known))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for kind in PartitionerKind::all() {
            assert_eq!(parse(kind.name()), Ok(kind));
            assert_eq!(parse_of_producers(kind.name()), Ok(Some(kind).filter(|kind| kind.rule().is_some())));
        }
        assert_eq!(parse("murmur3"), Err("did you mean `murmur2`?".to_owned()));
        assert_eq!(parse("uniforn"), Err("did you mean `uniform`?".to_owned()));
        let all = "known: `murmur2`, `crc32`, `fnv1a`, `consistent`, `uniform`, `sticky`, `round-robin`";
        assert_eq!(parse("by region"), Err(all.to_owned()));
        // What a source's producers do is told by a rule of keys, so no other name is offered.
        assert_eq!(parse_of_producers("consitent"), Err("did you mean `consistent`?".to_owned()));
        let of_keys = "known: `murmur2`, `crc32`, `fnv1a`, `consistent`";
        assert_eq!(parse_of_producers("stickyy"), Err(of_keys.to_owned()));
    }
}
