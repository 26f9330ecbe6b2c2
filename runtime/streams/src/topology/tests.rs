use super::*;
use crate::digest::Digest;
use crate::plugin_manifest::PluginManifest;
use crate::world::World;

mod consumers;
mod operators;
mod repartition;

/// A plugin that is `transform` and has the outputs `main` and `late`, and a setting `field` without default.
fn info() -> PluginInfo {
    let text = "name='p'\nversion='1'\nworld='transform'\noutputs=['main','late']\nlimits.deadline_ms = 7\n\
                config.field = { type = 'string', default = 'x' }";
    PluginInfo {
        digest: Digest::new([1; 32]),
        world: World::Transform,
        manifest: Some(PluginManifest::parse(text).expect("is valid")),
        bytes: 1,
    }
}

/// `parts`: `id<from` is a node, `from>topic` a sink, `=topic` a source that is called as its topic.
fn link(parts: &str) -> Result<Topology, TopologyError> {
    let mut text = "name = 'p'\nguarantee = 'at-least-once'\n".to_owned();
    let mut plugins = BTreeMap::new();
    for part in parts.split_whitespace() {
        if let Some((id, from)) = part.split_once('<') {
            let dead = "on_error = { policy = 'dead-letter', topic = 'dead' }";
            text += &format!("[[node]]\nid = '{id}'\nfrom = '{from}'\nplugin = 'p'\n{dead}\n");
            plugins.insert(id.to_owned(), info());
        } else if let Some((from, topic)) = part.split_once('>') {
            text += &format!("[[sink]]\nfrom = '{from}'\ntopic = '{topic}'\n");
        } else if let Some(topic) = part.strip_prefix('=') {
            text += &format!("[[source]]\nid = '{topic}'\ntopic = '{topic}'\n");
        }
    }
    Topology::link(&Manifest::parse(&text).expect("is valid"), &plugins)
}

#[test]
fn a_tree_is_linked_in_order() {
    let topology = link("=a =b n2<n1:late n1<a n3<b n1>x n2>y n3>x b>z").expect("fits");
    assert_eq!(topology.nodes_of(0), [1, 0]);
    assert_eq!(topology.nodes_of(1), [2]);
    assert_eq!(topology.nodes[1].outputs, [vec![Target::Output(0)], vec![Target::Node(0)]]);
    let topics: Vec<_> = topology.outputs.iter().map(|o| (o.topic.as_str(), o.dead_letter)).collect();
    assert_eq!(topics, [("x", false), ("y", false), ("x", false), ("z", false), ("dead", true)]);
    assert_eq!(topology.nodes[0].dead_letter, Some(4));
    assert_eq!(topology.nodes[0].limits.deadline_ms, 7);
    assert_eq!(topology.nodes[0].config, [("field".to_owned(), "x".to_owned())]);
}

#[test]
fn what_does_not_fit_is_named() {
    let check = |parts: &str, expect: &str| {
        assert_eq!(link(parts).map(|_| ()).map_err(|e| e.to_string()), Err(expect.to_owned()), "{parts}");
    };
    check("", "the pipeline has no [[source]]");
    check(
        "=a n<a",
        "the pipeline has no [[sink]], no node with `aggregate`, whose results could be asked for, and none with a plugin that \
         acts on the outside",
    );
    check("=abc n<abd n>x", "`n` reads from `abd`, which is no source or node; did you mean `abc`?");
    check(
        "=a n<a n:lat>x",
        "`sink x` reads the output `lat` of `n`, which has no such output; did you mean `late`?",
    );
    check("=a a:main>x", "`sink x` reads the output `main` of `a`, which has no such output; none is known");
    check(
        "=a a>x n<m m<n m>y",
        "node `n` cannot be reached from a source: nodes read each other in a circle",
    );
    let dead = |id| {
        format!("nothing reads from `{id}`: add a [[sink]] or a [[node]] with from = \"{id}\", or remove it")
    };
    check("=a n<a a>x", &dead("n"));
    check("=a =b a>x", &dead("b"));
    check("=a a>a", "the pipeline writes to the topic `a` and reads it: it would never come to rest");
    check(
        "=dead n<dead n>x",
        "the pipeline writes to the topic `dead` and reads it: it would never come to rest",
    );
}

#[test]
fn a_node_needs_a_transform() {
    let manifest = "name='p'\nguarantee='at-least-once'\n[[source]]\nid='a'\ntopic='a'\n[[node]]\nid='n'\nfrom='a'\n\
                    plugin='p'\nCONFIG\n[[sink]]\nfrom='n'\ntopic='x'";
    let check = |config: &str, info: Option<PluginInfo>, expect: &str| {
        let manifest = Manifest::parse(&manifest.replace("CONFIG", config)).expect("is valid");
        let plugins = info.map(|info| ("n".to_owned(), info)).into_iter().collect();
        let got = Topology::link(&manifest, &plugins).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(got, Err(expect.to_owned()));
    };
    check("", None, "the plugin of node `n` is not known");
    check(
        "",
        Some(PluginInfo { world: World::Partitioner, ..info() }),
        "node `n` runs a plugin of the world `partitioner`, but a node needs one of transform-timer, transform, transform-state",
    );
    check(
        "config = { feild = 'y' }",
        Some(info()),
        "node `n`: config.feild is not a setting of the plugin; did you mean `field`?",
    );
}
