//! Broker settings that Kafka's tools ask for and that this broker derives instead of having them configured.

use crate::config::{Config, HostPort};

/// A Kafka setting that is fixed here, or follows from a setting with another name.
pub(in crate::api) struct Derived {
    pub(in crate::api) name: &'static str,
    pub(in crate::api) value: String,
    pub(in crate::api) meaning: &'static str,
    pub(in crate::api) kind: DerivedKind,
}

/// Kafka's type of the value.
#[derive(Clone, Copy)]
pub(in crate::api) enum DerivedKind {
    Text,
    Short,
    Int,
    List,
}

/// Every derived setting, by name. `advertised` is the advertised address, `logs` the directory of the partitions.
pub(in crate::api) fn derived(config: &Config, advertised: &HostPort, logs: &str) -> Vec<Derived> {
    const ONE_BROKER: &str = "There is one broker, so there is one copy of each partition.";
    let plaintext = |address: &HostPort| format!("PLAINTEXT://{address}");
    let text = |name, value: String, meaning| Derived { name, value, meaning, kind: DerivedKind::Text };
    let list = |name, value: String, meaning| Derived { name, value, meaning, kind: DerivedKind::List };
    let one = |name, kind| Derived { name, value: "1".to_owned(), meaning: ONE_BROKER, kind };
    vec![
        list(
            "advertised.listeners",
            plaintext(advertised),
            "What clients are told to connect to: `advertise`.",
        ),
        text(
            "authorizer.class.name",
            String::new(),
            "There is no authorizer: every client may do everything.",
        ),
        Derived {
            name: "broker.id",
            value: config.node_id.to_string(),
            meaning: "The number of this broker: `node.id`.",
            kind: DerivedKind::Int,
        },
        one("default.replication.factor", DerivedKind::Int),
        text("inter.broker.listener.name", "PLAINTEXT".to_owned(), "The one listener."),
        list(
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT".to_owned(),
            "The one listener is neither encrypted nor authenticated.",
        ),
        list("listeners", plaintext(&config.listen), "Where Kafka clients connect: `listen`."),
        text("log.dir", logs.to_owned(), "The directory of the partitions: `topics` in `data.dir`."),
        list("log.dirs", logs.to_owned(), "The directory of the partitions: `topics` in `data.dir`."),
        one("offsets.topic.replication.factor", DerivedKind::Short),
        list(
            "process.roles",
            "broker,controller".to_owned(),
            "This broker keeps the metadata of the cluster itself.",
        ),
        text("security.inter.broker.protocol", "PLAINTEXT".to_owned(), "There are no other brokers."),
        one("transaction.state.log.min.isr", DerivedKind::Int),
        one("transaction.state.log.replication.factor", DerivedKind::Short),
    ]
}
