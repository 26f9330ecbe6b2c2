//! Which topic names are special.

/// Topics of a broker's own that Kafka has too. A `__` alone means nothing: canaries and schema registries name their
/// topics so.
const INTERNAL: [&str; 4] =
    ["__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"];

/// Those that Kafka does not have start so.
const INTERNAL_PREFIX: &str = "__pelton_";

/// What the names of intakes begin with: topics that take what clients write to one with a server-side partitioner.
pub const INTAKE_PREFIX: &str = "__pelton_intake_";

/// What the names of the topics begin with that say where the records of such a topic have come to lie.
pub const PLACES_PREFIX: &str = "__pelton_places_";

/// True for the broker's own topics, which clients may read, not write.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name) || name.starts_with(INTERNAL_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::is_internal;

    #[test]
    fn only_the_brokers_own_are_internal() {
        for own in ["__consumer_offsets", "__transaction_state", "__cluster_metadata", "__pelton_deployments"]
        {
            assert!(is_internal(own), "{own}");
        }
        for other in ["__", "__strimzi_canary", "__consumer_offsets2", "_schemas", "pelton", "__pelton"] {
            assert!(!is_internal(other), "{other}");
        }
    }
}
