//! What is put before plugins that act on the outside.

use super::*;

/// Links a pipeline whose node `hook` acts on the outside; the topics that exist have these numbers of partitions.
fn linked(text: &str, topics: &[(&str, u32)]) -> Result<Topology, TopologyError> {
    let manifest = Manifest::parse(&format!("name='p'\n{text}")).expect("is valid");
    let world = |id: &str| if id == "hook" { World::Consumer } else { World::Transform };
    let plugin = |id: &String| PluginInfo { world: world(id), manifest: None, ..info() };
    let plugins = manifest.nodes.iter().map(|node| (node.id.clone(), plugin(&node.id))).collect();
    let known = |topic: &str| topics.iter().find(|(known, _)| *known == topic).map(|(_, count)| *count);
    Topology::link_over(&manifest, &plugins, &known)
}

/// The topics that nodes named `hook` read.
fn read(topology: &Topology) -> Vec<(&str, Option<u32>)> {
    let sources = 0..topology.sources.len();
    let sources = sources.filter(|source| topology.consumer_of(*source).is_some());
    let source =
        |source: usize| (topology.sources[source].topic.as_str(), topology.sources[source].repartition);
    sources.map(source).collect()
}

const ALONE: &str = "[[source]]\nid='a'\ntopic='a'\n[[node]]\nid='hook'\nfrom='a'\nplugin='x'\n";
const BEHIND: &str = "[[source]]\nid='a'\ntopic='a'\n[[node]]\nid='n'\nfrom='a'\nplugin='x'\n\
                      [[node]]\nid='hook'\nfrom='n'\nplugin='x'\n";
const OWN: &str = "__pelton_p-hook-repartition";

#[test]
fn one_that_is_not_alone_reads_a_topic_of_its_own() {
    assert_eq!(read(&linked(ALONE, &[("a", 3)]).expect("fits")), [("a", None)]);
    assert_eq!(read(&linked(BEHIND, &[("a", 3)]).expect("fits")), [(OWN, Some(3))]);
    let beside = format!("{ALONE}[[sink]]\nfrom='a'\ntopic='x'\n");
    assert_eq!(read(&linked(&beside, &[("a", 3)]).expect("fits")), [(OWN, Some(3))]);
}

#[test]
fn what_waits_in_its_topic_is_read_when_the_other_node_goes() {
    let topology = linked(ALONE, &[("a", 3), (OWN, 2)]).expect("fits");
    assert_eq!(read(&topology), [(OWN, Some(2))]);
    let writes: Vec<_> = topology.repartitions().map(|(_, topic)| topic.as_str()).collect();
    assert_eq!(writes, [OWN], "and what comes goes behind it");
}

#[test]
fn its_topic_is_written_exactly_once() {
    let once = |text: &str| format!("guarantee='at-least-once'\n{text}");
    assert!(linked(&once(ALONE), &[("a", 3)]).is_ok());
    for (text, topics) in [(BEHIND, &[("a", 3)][..]), (ALONE, &[("a", 3), (OWN, 2)])] {
        let refused = linked(&once(text), topics).map(|_| ()).expect_err("is refused");
        assert_eq!(refused, TopologyError::BetweenAtLeastOnce("hook".to_owned()));
        assert!(
            refused.to_string().contains("node `hook`")
                && refused.to_string().contains("leave `guarantee` out")
        );
    }
}
