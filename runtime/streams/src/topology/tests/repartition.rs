//! Topics between the parts of a pipeline.

use super::*;

/// What goes through a topic of the pipeline's own, given how many partitions topics have: `topic: partitions, rule`; then which
/// sources are processed together.
fn plan(nodes: &str, topics: &[(&str, u32)]) -> (Vec<String>, Vec<String>) {
    let manifest = Manifest::parse(&format!("name='p'\n{nodes}")).expect("is valid");
    let plugins = manifest.nodes.iter().map(|node| (node.id.clone(), info())).collect();
    let known = |topic: &str| topics.iter().find(|(known, _)| *known == topic).map(|(_, count)| *count);
    let topology = Topology::link_over(&manifest, &plugins, &known).expect("fits");
    let made = topology.outputs.iter().filter_map(|output| {
        let name = output.topic.strip_prefix("__pelton_p-")?.strip_suffix("-repartition")?;
        assert!(topology.sources.iter().any(|source| source.topic == output.topic));
        Some(format!("{name}: {}, {}", output.repartition?, output.partitioner.native()))
    });
    let made = made.collect();
    let counts: Vec<u32> = (topology.sources.iter())
        .map(|source| source.repartition.or_else(|| known(&source.topic)).unwrap_or(0))
        .collect();
    topology.check_partitions(&counts).expect("records of a key are in one task");
    let ids = |sub: &SubTopology| {
        let ids: Vec<_> = sub.sources.iter().map(|source| topology.sources[*source].id.as_str()).collect();
        ids.join(" ")
    };
    (made, topology.sub_topologies.iter().map(ids).collect())
}

fn made(nodes: &str, topics: &[(&str, u32)]) -> Vec<String> {
    plan(nodes, topics).0
}

const SINK: &str = "[[sink]]\nfrom='n'\ntopic='out'\n";

fn source(id: &str, rule: &str) -> String {
    format!("[[source]]\nid='{id}'\ntopic='{id}'\npartitioner='{rule}'\n")
}

#[test]
fn records_go_by_another_key_where_one_has_several_partitions() {
    let group = format!(
        "{}[[node]]\nid='n'\nfrom='a'\ngroup_by='json:k'\naggregate='count'\n{SINK}",
        source("a", "unknown")
    );
    assert_eq!(made(&group, &[]), [""; 0]);
    assert_eq!(made(&group, &[("a", 1)]), [""; 0]);
    let (topics, parts) = plan(&group, &[("a", 3)]);
    assert_eq!(
        (&topics[..], &parts[..]),
        (&["n: 3, murmur2".to_owned()][..], &["a".to_owned(), "n-repartition".to_owned()][..])
    );
    // Once it is made it is used, with as many partitions as it has.
    assert_eq!(made(&group, &[("a", 1), ("__pelton_p-n-repartition", 2)]), ["n: 2, murmur2"]);
    // What is kept has so many.
    assert_eq!(made(&group, &[("a", 3), ("__pelton_p-n-changelog", 1)]), ["n: 1, murmur2"]);
    let by_key = group.replace("json:k", "key");
    assert_eq!(made(&by_key, &[("a", 3)]), [""; 0]);
    // A topic that has grown goes on with what is kept of its one partition.
    assert_eq!(made(&by_key, &[("a", 3), ("__pelton_p-n-changelog", 1)]), ["n: 1, murmur2"]);
    let plugin = format!(
        "{}[[node]]\nid='x'\nfrom='a'\nplugin='x'\n[[node]]\nid='n'\nfrom='x'\naggregate='count'\n{SINK}",
        source("a", "murmur2")
    );
    assert_eq!(made(&plugin, &[("a", 3)]), ["n: 3, murmur2"]);
    assert_eq!(made(&plugin.replace("plugin='x'", "plugin='x'\nkeeps_key=true"), &[("a", 3)]), [""; 0]);
}

/// One topic after the other.
#[test]
fn groups_of_groups_go_through_two_topics() {
    let nodes = "[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='by'\nfrom='t'\ngroup_by='json:g'\naggregate='count'\n\
                 [[node]]\nid='n'\nfrom='by'\ngroup_by='json'\naggregate='count'\n[[sink]]\nfrom='n'\ntopic='out'\n";
    let (topics, parts) = plan(nodes, &[("t", 4)]);
    assert_eq!(topics, ["by: 4, murmur2", "n: 4, murmur2"]);
    assert_eq!(parts, ["t", "by-repartition", "n-repartition"]);
}

#[test]
fn one_side_of_a_join_is_put_beside_the_other() {
    let join = |left: &str, right: &str, join: &str| {
        format!(
            "{}{}[[node]]\nid='n'\nfrom='a'\njoin={{with='b',{join}}}\n{SINK}",
            source("a", left),
            source("b", right)
        )
    };
    let streams = |left, right| join(left, right, "within='1m'");
    let counts = |a, b| [("a", a), ("b", b)];
    assert_eq!(made(&streams("murmur2", "murmur2"), &counts(2, 2)), [""; 0]);
    assert_eq!(made(&streams("unknown", "unknown"), &counts(1, 1)), [""; 0]);
    // Another number, another rule, no rule.
    assert_eq!(made(&streams("murmur2", "crc32"), &counts(2, 3)), ["n-left: 3, crc32"]);
    assert_eq!(made(&streams("crc32", "murmur2"), &counts(2, 2)), ["n-left: 2, murmur2"]);
    assert_eq!(made(&streams("crc32", "unknown"), &counts(2, 3)), ["n-right: 2, crc32"]);
    let both = ["n-left: 3, murmur2", "n-right: 3, murmur2"];
    assert_eq!(made(&streams("unknown", "unknown"), &counts(2, 3)), both);
    // A topic that is away for a time changes nothing.
    assert_eq!(made(&streams("unknown", "unknown"), &[("a", 2)]), [""; 0]);
    let away = [("a", 2), ("__pelton_p-n-left-repartition", 3)];
    assert_eq!(made(&streams("murmur2", "crc32"), &away), ["n-left: 3, crc32"]);
    // Whichever was made is used.
    let topics = [("a", 2), ("b", 2), ("__pelton_p-n-right-repartition", 2)];
    assert_eq!(made(&streams("murmur2", "murmur2"), &topics), ["n-right: 2, murmur2"]);
    assert_eq!(
        made(&join("murmur2", "murmur2", "by='json:k',within='1m'"), &counts(2, 2)),
        ["n-left: 2, murmur2"]
    );
}

#[test]
fn a_stream_is_joined_with_a_table_by_a_field() {
    let join = |table: &str| {
        format!(
            "{}[[table]]\nid='t'\ntopic='t'\n{table}\n[[node]]\nid='n'\nfrom='a'\njoin={{with='t',by='json:k',kind='left'}}\n{SINK}",
            source("a", "unknown")
        )
    };
    let (topics, parts) = plan(&join("partitioner='crc32'"), &[("a", 2), ("t", 3)]);
    assert_eq!(topics, ["n-left: 3, crc32"]);
    assert_eq!(parts, ["a", "t n-left-repartition"]);
    assert_eq!(made(&join("partitioner='consistent'"), &[("a", 2), ("t", 3)]), ["n-left: 3, consistent"]);
    // What goes by no key says nothing of where keys are.
    let both = ["n-left: 3, murmur2", "n-right: 3, murmur2"];
    for rule in ["unknown", "uniform", "sticky", "round-robin"] {
        assert_eq!(made(&join(&format!("partitioner='{rule}'")), &[("a", 2), ("t", 3)]), both, "{rule}");
    }
    assert_eq!(made(&join(""), &[("a", 1), ("t", 1)]), [""; 0]);
    assert_eq!(made(&join(""), &[("a", 3), ("t", 1)]), ["n-left: 1, murmur2"]);
    assert_eq!(made(&join(""), &[("a", 1), ("t", 4)]), ["n-left: 4, murmur2", "n-right: 4, murmur2"]);
}

/// Subscriptions are placed as right rows are, answers as left rows.
#[test]
fn tables_are_joined_by_a_field_through_two_topics() {
    let table = |id: &str, rule: &str| format!("[[table]]\nid='{id}'\ntopic='{id}'\npartitioner='{rule}'\n");
    let join = |left: &str, right: &str| {
        format!(
            "{}{}[[node]]\nid='n'\nfrom='a'\njoin={{with='b',by='json:k'}}\n{SINK}",
            table("a", left),
            table("b", right)
        )
    };
    let counts = |a, b| [("a", a), ("b", b)];
    let (topics, parts) = plan(&join("murmur2", "crc32"), &counts(2, 3));
    assert_eq!(topics, ["n-answers: 2, murmur2", "n-subscriptions: 3, crc32"]);
    assert_eq!(parts, ["a n-answers-repartition", "b n-subscriptions-repartition"]);
    assert_eq!(
        made(&join("unknown", "unknown"), &counts(1, 1)),
        ["n-answers: 1, murmur2", "n-subscriptions: 1, murmur2"]
    );
    assert_eq!(
        made(&join("unknown", "murmur2"), &counts(2, 1)),
        ["n-left: 2, murmur2", "n-answers: 2, murmur2", "n-subscriptions: 1, murmur2"]
    );
    let away = [("a", 2), ("__pelton_p-n-subscriptions-repartition", 3)];
    assert_eq!(
        made(&join("murmur2", "crc32"), &away),
        ["n-answers: 2, murmur2", "n-subscriptions: 3, crc32"]
    );
    // A topic that has grown goes on with what is kept of it.
    let grown = [("a", 2), ("b", 4), ("__pelton_p-n-right-changelog", 1), ("__pelton_p-n-left-changelog", 2)];
    assert_eq!(
        made(&join("murmur2", "murmur2"), &grown),
        ["n-right: 1, murmur2", "n-answers: 2, murmur2", "n-subscriptions: 1, murmur2"]
    );
    // A table with itself.
    let itself =
        join("murmur2", "murmur2").replace("with='b'", "with='a'").replace(&table("b", "murmur2"), "");
    let (topics, parts) = plan(&itself, &[("a", 2)]);
    assert_eq!(topics, ["n-answers: 2, murmur2", "n-subscriptions: 2, murmur2"]);
    assert_eq!(parts, ["a n-subscriptions-repartition n-answers-repartition"]);
    // Results are by the left key, so what follows finds them.
    let counted = join("murmur2", "murmur2").replace(SINK, "")
        + "[[node]]\nid='c'\nfrom='n'\ngroup_by='key'\naggregate='count'\n[[sink]]\nfrom='c'\ntopic='out'\n";
    assert_eq!(made(&counted, &counts(2, 2)).len(), 2);
    let manifest = Manifest::parse(&format!(
        "name='p'\n{}",
        join("murmur2", "murmur2").replace("by=", "kind='outer',by=")
    ));
    let error =
        Topology::link(&manifest.expect("is valid"), &BTreeMap::new()).expect_err("is refused").to_string();
    assert!(error.starts_with("node `n` joins tables by `json:k`, a field of the left one"), "{error}");
}

/// A copy of all partitions is asked by any field.
#[test]
fn a_global_table_needs_no_topic() {
    let join = |global: &str, join: &str| {
        format!(
            "{}[[table]]\nid='t'\n{global}\n[[node]]\nid='x'\nfrom='a'\njoin={{with='t',{join}}}\n\
             [[node]]\nid='n'\nfrom='x'\naggregate='count'\n{SINK}",
            source("a", "unknown")
        )
    };
    for (global, by) in
        [("topic='t'\nscope='global'", "by='json:k',kind='left'"), ("table='alone'", "kind='inner'")]
    {
        let (topics, parts) = plan(&join(global, by), &[("a", 3), ("t", 2)]);
        assert_eq!(
            (&topics[..], &parts[..]),
            (&[][..], &["a".to_owned()][..]),
            "keys are those that they were"
        );
    }
    let refused = |nodes: &str| {
        let manifest = Manifest::parse(&format!("name='p'\n{nodes}")).expect("is valid");
        Topology::link(&manifest, &BTreeMap::new()).expect_err("is refused").to_string()
    };
    let topic = "topic='t'\nscope='global'";
    for (by, expect) in [
        ("within='1m'", "node `x` joins the global table `t` as it is when a record comes"),
        ("grace='1m'", "node `x` joins the global table `t` as it is when a record comes"),
        ("kind='outer'", "node `x` joins a stream with the global table `t`, which is \"inner\" or \"left\""),
    ] {
        let error = refused(&join(topic, by));
        assert!(error.starts_with(expect), "{by}: {error}");
    }
    let table = join(topic, "kind='left'").replace("[[source]]", "[[table]]");
    assert!(refused(&table).starts_with("node `x` joins a table with the global table `t`"));
    let read = join(topic, "kind='left'").replace("from='x'", "from='t'");
    assert!(refused(&read).starts_with("`n` reads the global table `t`"), "{}", refused(&read));
    let unused = join(topic, "kind='left'").replace("with='t'", "with='a'");
    assert!(
        refused(&unused).starts_with("nothing is joined with the global table `t`"),
        "{}",
        refused(&unused)
    );
}
