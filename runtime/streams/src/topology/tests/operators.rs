//! Built-in operators in their places.

use super::*;
use crate::manifest::OnError;

fn link(text: &str) -> Result<Topology, String> {
    let manifest = Manifest::parse(&format!("name='p'\n{text}")).expect("is valid");
    let plugins = manifest.nodes.iter().map(|node| (node.id.clone(), info())).collect();
    Topology::link(&manifest, &plugins).map_err(|error| error.to_string())
}

/// `=topic` a source that is called as its topic, `#topic` a table, `id<from what` a node, `from>topic` a sink.
fn text(parts: &[&str]) -> String {
    let part = |part: &&str| {
        if let Some(topic) = part.strip_prefix('=') {
            let (topic, rest) = topic.split_once(' ').unwrap_or((topic, ""));
            format!("[[source]]\nid='{topic}'\ntopic='{topic}'\n{rest}\n")
        } else if let Some(topic) = part.strip_prefix('#') {
            format!("[[table]]\nid='{topic}'\ntopic='{topic}'\n")
        } else if let Some((id, rest)) = part.split_once('<') {
            let (from, what) = rest.split_once(' ').expect("what it does");
            format!("[[node]]\nid='{id}'\nfrom='{from}'\n{what}\n")
        } else {
            let (from, topic) = part.split_once('>').expect("a sink");
            format!("[[sink]]\nfrom='{from}'\ntopic='{topic}'\n")
        }
    };
    parts.iter().map(part).collect()
}

const COUNT: &str = "n<a aggregate='count'";

/// What an aggregate keeps is a table, which people ask for: nothing needs to read it.
#[test]
fn an_aggregate_needs_no_reader() {
    let topology = link(&text(&["=a", COUNT])).expect("fits");
    let outputs: Vec<_> = topology.outputs.iter().map(|output| output.topic.as_str()).collect();
    assert_eq!(outputs, ["__pelton_p-n-changelog"]);
    assert_eq!(topology.state_tables().len(), 1);
    link(&text(&["=a", "f<a filter='json:x > 1'", "m<f aggregate='count'", "a>x"])).expect("fits");
    let dead = |id: &str| {
        format!("nothing reads from `{id}`: add a [[sink]] or a [[node]] with from = \"{id}\", or remove it")
    };
    assert_eq!(link(&text(&["=a", COUNT, "f<n filter='json:x > 1'"])).err(), Some(dead("f")));
    assert_eq!(link(&text(&["=a", COUNT, "d<a deduplicate={within='1m'}"])).err(), Some(dead("d")));
}

#[test]
fn sources_that_share_a_node_are_processed_together() {
    let parts = [
        "=a",
        "=b",
        "=c",
        "#t",
        "j<a join={with='t'}",
        "m<j aggregate='distinct:raw'",
        "p<b plugin='x'",
        "p>x",
        "m>y",
        "c>z",
    ];
    let topology = link(&text(&parts)).expect("fits");
    let sources: Vec<_> = topology.sub_topologies.iter().map(|sub| sub.sources.clone()).collect();
    assert_eq!(sources, [vec![0, 3], vec![1], vec![2]]);
    let graph = topology.sub_topologies[0].graph.as_ref().expect("has operators");
    assert_eq!(graph.order, [Vertex::Operator(0), Vertex::Operator(1)]);
    let stores: Vec<_> =
        graph.stores.iter().map(|store| (store.spec.name.as_str(), store.spec.ordered)).collect();
    assert_eq!(stores, [("j-table", false), ("m", false), ("m-members", true)]);
    let changelogs: Vec<_> = graph.stores.iter().map(|store| &topology.outputs[store.changelog]).collect();
    assert_eq!(changelogs[2].topic, "__pelton_p-m-members-changelog");
    assert!(changelogs.iter().all(|output| output.changelog_of == Some(0)));
    assert_eq!(topology.sub_topologies[1].graph, None);
    assert_eq!((topology.nodes_of(1), topology.sub_topology_of(3)), (vec![0], 0));
    assert_eq!(topology.operators[0].on_error, OnError::Fail);
}

#[test]
fn what_a_store_holds_is_part_of_its_shape() {
    let shape = |node: &str| {
        let topology = link(&text(&["=a", node, "n>x"])).expect("fits");
        topology.sub_topologies[0].graph.as_ref().expect("has operators").stores[0].shape.clone()
    };
    assert_eq!(shape(COUNT), "value=count by key, no windows");
    let hour = "n<a group_by='json:k'\naggregate={n='count',m='max:json:v'}\nwindow={tumbling='1h'}";
    assert_eq!(shape(hour), "m=max:json:v n=count by json:k, windows of 3600000 ms, every 3600000 ms");
    // When results are sent says nothing of what is stored.
    assert_eq!(shape(&hour.replace("'1h'", "'1h',grace='1m',emit='on-close'")), shape(hour));
}

/// Nodes with plugins that keep something, or aggregate.
#[test]
fn plugins_have_stores() {
    let with = |text: &str, world: World, plugin: &str| {
        let manifest = Manifest::parse(&format!("name='p'\n{text}")).expect("is valid");
        let plugin = format!("name='p'\nversion='1'\nworld='{world}'\n{plugin}");
        let manifest_of = Some(PluginManifest::parse(&plugin).expect("is valid"));
        let info = PluginInfo { world, manifest: manifest_of, ..info() };
        let plugins = manifest.plugins().map(|(node, _)| (node.to_owned(), info.clone())).collect();
        Topology::link(&manifest, &plugins).map_err(|error| error.to_string())
    };
    let node = |rest: &str| text(&["=a", &format!("n<a plugin='x'\n{rest}"), "n>x"]);
    let needs = "[stores.seen]\nformat=2\n[stores.w]\nkind='window'\nretention='1s'";
    let topology = with(&node(""), World::TransformState, needs).expect("fits");
    let graph = topology.sub_topologies[0].graph.as_ref().expect("has state");
    let stores: Vec<_> = graph.stores.iter().map(|store| (&*store.spec.name, &*store.shape)).collect();
    assert_eq!(
        stores,
        [("n-seen", "entries of plugin p, format 2"), ("n-w", "windows of plugin p, format 0")]
    );
    assert_eq!(topology.outputs[graph.stores[0].changelog].topic, "__pelton_p-n-seen-changelog");
    let kinds = |rest: &str| {
        let topology = with(&node(rest), World::TransformState, needs).expect("fits");
        topology.stores().map(|store| store.spec.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(""), [StoreKind::Rocksdb; 2]);
    assert_eq!(kinds("store='memory'"), [StoreKind::Memory; 2]);
    let fails = |text: &str, world, plugin: &str, start: &str| {
        let error = with(text, world, plugin).map(|_| ()).expect_err("is refused");
        assert!(error.starts_with(start), "{error}");
    };
    for keeps in ["stores={a={}}", "store='memory'"] {
        fails(&node(keeps), World::Transform, "", "node `n`: stores are for plugins with state");
    }
    fails(
        &node(""),
        World::TransformState,
        "",
        "node `n`: its plugin is of the world `transform-state` and is given no store",
    );
    fails(
        &format!("guarantee='at-least-once'\n{}", node("stores={a={}}")),
        World::TransformState,
        "",
        "node `n` keeps state, which needs guarantee",
    );
    let aggregate = text(&["=a", "n<a aggregate={plugin='x'}", "n>x"]);
    let topology = with(&aggregate, World::Aggregator, "format=3").expect("fits");
    let graph = topology.sub_topologies[0].graph.as_ref().expect("has state");
    assert_eq!(graph.stores[0].shape, "plugin p, format 3 by key, no windows");
    fails(
        &aggregate,
        World::Transform,
        "",
        "node `n` aggregates with a plugin of the world `transform`, but needs one of the world `aggregator`",
    );
    // What it keeps of a key is in one partition, unless it is not of a key.
    let behind =
        |rest: &str| text(&["=a", "m<a plugin='x'", &format!("n<m plugin='x'\n{rest}"), "n>x", "m>y"]);
    let scattered =
        with(&behind(""), World::TransformState, "[stores.s]").expect("fits").check_partitions(&[2]);
    assert!(matches!(&scattered, Err(TopologyError::Scattered { node, .. }) if node == "n"), "{scattered:?}");
    let by_partition =
        with(&behind("state_by='partition'"), World::TransformState, "[stores.s]").expect("fits");
    assert_eq!(by_partition.check_partitions(&[2]), Ok(()));
}

#[test]
fn what_operators_cannot_read_is_named() {
    let check = |parts: &[&str], expect: &str| {
        assert_eq!(link(&text(parts)).map(|_| ()), Err(expect.to_owned()), "{parts:?}");
    };
    check(
        &["=a", "=b", "n<a join={with='b'}", "n>x"],
        "node `n` joins two streams, so it must say which records match: add within = \"10m\" to `join` (or read `b` as a \
         [[table]])",
    );
    check(
        &["=a", "#b", "n<a join={with='b',within='1m'}", "n>x"],
        "node `n` joins the table `b`: `within`, `before` and `after` are for two streams; leave them out",
    );
    check(
        &["=a", "#b", "n<a join={with='b',kind='outer'}", "n>x"],
        "node `n` joins a stream with the table `b`, which is \"inner\" or \"left\"",
    );
    check(
        &["=a", "#b", "n<b join={with='a'}", "n>x"],
        "node `n` joins a table with the stream `a`: swap `from` and `join.with`",
    );
    check(
        &["=a", "#b", "n<a join={with='b',grace='1m'}", "n>x"],
        "node `n` waits for the table `b` with `grace`, but the table has no history: give it one, as history = \"1d\", or \
         leave `grace` out",
    );
    check(
        &["#b", "n<b aggregate='last:raw'", "n>x"],
        "node `n` aggregates a table: `last:raw` cannot be computed of a table: it would have to remember all that there was",
    );
    check(
        &["#b", "n<b aggregate='count'\nwindow={tumbling='1h'}", "n>x"],
        "node `n` has windows, but reads a table, whose rows replace each other; leave `window` out",
    );
    check(
        &["=a", COUNT, "n:late>x", "n>y"],
        "`sink x` reads the output `late` of `n`, which has no such output; known: `main`",
    );
    check(
        &[
            "=a",
            COUNT,
            "n-members<n aggregate='distinct:raw'",
            "n-members>x",
            "m<a aggregate='distinct:raw'",
            "m>y",
            "m-members<m aggregate='count'",
            "m-members>z",
        ],
        "two nodes would both have a store `m-members`: give one of them another id",
    );
    let circle = "=a|m<a join={with='n',within='1m'}|n<m aggregate='count'\nwindow={tumbling='1h',emit='on-close'}|n>x";
    check(
        &circle.split('|').collect::<Vec<_>>(),
        "node `m` cannot be reached from a source: nodes read each other in a circle",
    );
    let once = format!("guarantee='at-least-once'\n{}", text(&["=a", COUNT, "n>x"]));
    let once = link(&once).map(|_| ());
    assert!(
        once.as_ref().is_err_and(|text| text.starts_with("node `n` keeps state, which needs")),
        "{once:?}"
    );
}

#[test]
fn records_of_a_key_must_be_in_one_partition() {
    let check = |parts: &[&str], partitions: &[u32], expect: Result<(), &str>| {
        let topology = link(&text(parts)).expect("fits");
        let checked = topology.check_partitions(partitions).map_err(|error| error.to_string());
        match expect {
            Ok(()) => assert_eq!(checked, Ok(()), "{parts:?}"),
            Err(start) => {
                let error = checked.expect_err("is refused");
                assert!(error.starts_with(start), "{parts:?}: {error}");
            }
        }
    };
    check(&["=a", COUNT, "n>x"], &[4], Ok(()));
    let by = "n<a group_by='json:k'\naggregate='count'";
    check(&["=a", by, "n>x"], &[1], Ok(()));
    check(
        &["=a", by, "n>x"],
        &[4],
        Err(
            "node `n` needs all records of a key in one partition, but it goes by `json:k`, which is not the key, and topic \
             `a` has 4 partitions now: `pelton pipeline resume` goes on",
        ),
    );
    check(
        &["=a", "n<a deduplicate={by='json:k',within='1h'}", "n>x"],
        &[2],
        Err("node `n` needs all records of a key"),
    );
    let plugin = "p<a plugin='x'";
    let count = "n<p aggregate='count'";
    check(
        &["=a", plugin, count, "n>x"],
        &[4],
        Err(
            "node `n` needs all records of a key in one partition, but the plugin of `p` may change keys (if it does not, \
             say keeps_key = true there)",
        ),
    );
    check(&["=a", "p<a plugin='x'\nkeeps_key=true", count, "n>x"], &[4], Ok(()));
    // A window in the key is no matter as long as nothing else joins it.
    let windows = "w<a aggregate='count'\nwindow={tumbling='1h'}";
    check(&["=a", windows, "n<w aggregate='count'", "n>x"], &[4], Ok(()));
    check(
        &["=a", "#b", windows, "n<w join={with='b'}", "n>x"],
        &[4, 4],
        Err(
            "node `n` needs all records of a key in one partition, but some of what it reads has windows in its keys",
        ),
    );
    let join =
        ["=a partitioner='murmur2'", "=b partitioner='murmur2'", "n<a join={with='b',within='1m'}", "n>x"];
    check(&join, &[4, 4], Ok(()));
    check(
        &join,
        &[4, 3],
        Err(
            "node `n` needs the records of a key from topics `a` and `b` in partitions of one number, but they have 4 and 3",
        ),
    );
    let unknown = ["=a partitioner='murmur2'", "=b", "n<a join={with='b',within='1m'}", "n>x"];
    check(&unknown, &[1, 1], Ok(()));
    check(
        &unknown,
        &[4, 4],
        Err(
            "node `n` needs the records of a key from topics `a` and `b` in partitions of one number, but `a` has its keys \
             placed by murmur2, and `b` by nobody knows what: say in both sources",
        ),
    );
}

#[test]
fn what_is_said_of_each_record_keeps_nothing() {
    let branch = "b<a branch={x='key = 1',y='key = 2'}";
    let topology = link(&text(&[
        "=a",
        branch,
        "f<b:y filter='key = 1'",
        "s<f select={k='key'}",
        "e<s flat_map='json'",
        "e>out",
        "b:rest>rest",
    ]));
    let topology = topology.expect("fits");
    let graph = topology.sub_topologies[0].graph.as_ref().expect("has operators");
    assert_eq!((graph.order.len(), &graph.stores[..]), (4, &[][..]));
    let refused = |parts: &[&str]| link(&text(parts)).map(|_| ()).expect_err("is refused");
    assert_eq!(
        refused(&["=a", branch, "b>out"]),
        "`sink out` reads `b`, which has several outputs and none that is first: say which, as \"b:NAME\", of `x`, `y`, `rest`"
    );
    assert_eq!(
        refused(&["=a", branch, "b:z>out"]),
        "`sink out` reads the output `z` of `b`, which has no such output; did you mean `x`?"
    );
    for node in ["n<t branch={x='key = 1'}", "n<t flat_map='json'"] {
        let error = refused(&["#t", node, if node.contains("branch") { "n:x>out" } else { "n>out" }]);
        assert!(error.starts_with("node `n` reads a table, whose rows replace each other"), "{error}");
    }
    // At least once is enough for them.
    assert!(
        link(&format!("guarantee='at-least-once'\n{}", text(&["=a", "f<a filter='key = 1'", "f>out"])))
            .is_ok()
    );
}

#[test]
fn stores_are_where_the_node_says_or_else_the_pipeline() {
    let nodes =
        |n: &str| format!("[[node]]\nid='n'\nfrom='a'\naggregate={{n='count',all='distinct:raw'}}\n{n}\n");
    let text = |pipeline: &str, n: &str| {
        let ends = "[[node]]\nid='d'\nfrom='n'\ndeduplicate={within='1s'}\n[[sink]]\nfrom='d'\ntopic='x'\n";
        format!("{pipeline}\n[[source]]\nid='a'\ntopic='a'\n{}{ends}", nodes(n))
    };
    let kinds = |text: &str| {
        let topology = link(text).expect("fits");
        let graph = topology.sub_topologies[0].graph.clone().expect("has operators");
        let kind =
            |store: &StoreUse| (store.spec.name.clone(), store.spec.kind.to_string(), store.shape.clone());
        graph.stores.iter().map(kind).collect::<Vec<_>>()
    };
    let (here, there) = (kinds(&text("", "")), kinds(&text("store='memory'", "store='rocksdb'")));
    let names = |kinds: &[(String, String, String)]| {
        kinds.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect::<Vec<_>>()
    };
    assert_eq!(names(&here), ["n rocksdb", "n-members rocksdb", "d rocksdb"]);
    assert_eq!(names(&there), ["n rocksdb", "n-members rocksdb", "d memory"]);
    assert_eq!(names(&kinds(&text("", "store='memory'"))), ["n memory", "n-members memory", "d rocksdb"]);
    // What entries mean is the same, so either revision goes on with what the other one has.
    let shapes = |kinds: Vec<(String, String, String)>| {
        kinds.into_iter().map(|(_, _, shape)| shape).collect::<Vec<_>>()
    };
    assert_eq!(shapes(here), shapes(there));
}
