//! Built-in operators and tables in manifests.

use super::*;
use crate::manifest::operator::{AggregateWork, DeduplicateWork, GlobalOf, Work};
use crate::operator::aggregate::{Function, Part, ResultForm};
use crate::operator::{
    Closing, Condition, Emit, Field, JoinKind, JoinWindow, JsonJoin, Late, Selection, Side, WindowSpec,
};
use crate::state::StoreKind;

/// A pipeline with one node that is built in.
fn parse(node: &str) -> Result<Manifest, String> {
    let text = format!(
        "name='p'\n[[source]]\nid='s'\ntopic='s'\n[[source]]\nid='r'\ntopic='r'\n[[node]]\nid='n'\n{node}\n\
         [[sink]]\nfrom='n'\ntopic='out'\n"
    );
    Manifest::parse(&text).map_err(|error| error.to_string())
}

fn work(node: &str) -> Work {
    let mut manifest = parse(&format!("from='s'\n{node}")).expect("is valid");
    assert_eq!(manifest.nodes, []);
    manifest.operators.remove(0).work
}

fn part(name: &str, function: &str) -> Part {
    Part { name: name.to_owned(), function: Function::parse(function).expect("is one") }
}

#[test]
fn aggregates() {
    let counted = AggregateWork {
        group_by: None,
        window: None,
        parts: vec![part("value", "count")],
        form: ResultForm::Single,
    };
    assert_eq!(work("aggregate='count'"), Work::Aggregate(counted.clone()));
    let by = Some(Field::parse("json:origin").expect("is one"));
    let closing =
        Closing { grace_ms: 600_000, emit: Emit::OnClose, late: Late::Emit, retention_ms: 86_400_000 };
    let hour = WindowSpec::Hopping { size_ms: 3_600_000, advance_ms: 3_600_000 };
    assert_eq!(
        work(
            "group_by='json:origin'\naggregate={n='count',mean='avg:json:delay'}\n\
             window={tumbling='1h',grace='10m',emit='on-close',late='emit',retention='1d'}"
        ),
        Work::Aggregate(AggregateWork {
            group_by: by,
            window: Some((hour, closing)),
            parts: vec![part("mean", "avg:json:delay"), part("n", "count")],
            form: ResultForm::Object,
        })
    );
    for (window, expect) in [
        ("hopping='1m',advance='10s'", WindowSpec::Hopping { size_ms: 60_000, advance_ms: 10_000 }),
        ("sliding='5m'", WindowSpec::Sliding { size_ms: 300_000 }),
        ("session='30m'", WindowSpec::Session { gap_ms: 1_800_000 }),
    ] {
        let window = format!("aggregate='count'\nwindow={{{window}}}");
        let expect = AggregateWork { window: Some((expect, Closing::default())), ..counted.clone() };
        assert_eq!(work(&window), Work::Aggregate(expect), "{window}");
    }
}

#[test]
fn a_plugin_aggregates() {
    let text = "from='s'\ngroup_by='json:a'\naggregate={plugin='mean'}\nconfig={field='x'}\nlimits={deadline_ms=7}\n\
                on_error={policy='retry'}";
    let manifest = parse(text).expect("is valid");
    let node = &manifest.operators[0];
    let Work::Aggregate(work) = &node.work else { panic!("aggregates") };
    assert_eq!((work.form, work.parts.len()), (ResultForm::Raw, 0));
    let plugin = node.plugin.as_ref().expect("is named");
    assert_eq!((plugin.config["field"].as_str(), plugin.limits.deadline_ms), (Some("x"), Some(7)));
    let named: Vec<_> = manifest.plugins().collect();
    assert_eq!(named, [("n".to_owned(), &PluginRef::Name("mean".to_owned()))]);
    let both = parse("from='s'\naggregate={plugin='mean',n='count'}").map(|_| ());
    let expect = "`node[0].aggregate.n` cannot stand beside `plugin`, whose value is the whole result; add another [[node]]";
    assert_eq!(both, Err(expect.to_owned()));
    let config = parse("from='s'\naggregate='count'\nconfig={field='x'}").map(|_| ());
    assert_eq!(config, Err("`node[0].config` is for nodes with a plugin".to_owned()));
}

#[test]
fn joins_and_others() {
    let Work::Join(join) = work("join={with='r',kind='left',within='10m',grace='1m',right='weather'}") else {
        panic!("is a join")
    };
    let window = JoinWindow { before_ms: 600_000, after_ms: 600_000, grace_ms: 60_000 };
    assert_eq!((join.kind, join.window), (JoinKind::Left, Some(window)));
    assert_eq!(
        join.result,
        JsonJoin::new(Side::Spread, Side::Member("weather".to_owned())).expect("is fine")
    );
    let Work::Join(join) = work("join={with='r',after='1s',left='l',right='*'}") else { panic!("is a join") };
    let window = JoinWindow { before_ms: 0, after_ms: 1_000, grace_ms: 0 };
    assert_eq!((join.kind, join.window), (JoinKind::Inner, Some(window)));
    assert_eq!(join.result, JsonJoin::new(Side::Member("l".to_owned()), Side::Spread).expect("is fine"));

    let deduplicate =
        DeduplicateWork { by: Some(Field::Key), within_ms: 3_600_000, grace_ms: 1, late: Late::Drop };
    assert_eq!(work("deduplicate={by='key',within='1h',grace='1ms'}"), Work::Deduplicate(deduplicate));
    let merged = parse("from=['s','r']").expect("is valid");
    assert_eq!((&merged.operators[0].work, merged.operators[0].from.len()), (&Work::Merge, 2));
}

#[test]
fn what_operators_cannot_be_is_named() {
    let check = |node: &str, expect: &str| {
        assert_eq!(parse(node).map(|_| ()), Err(expect.to_owned()), "{node}");
    };
    check(
        "from='s'\nagregate='count'",
        "`agregate` is not a key of `node[0]` (line 11); did you mean `aggregate`?",
    );
    check(
        "from='s'\naggregate='count'\nwindow={tumblng='1h'}",
        "`tumblng` is not a key of `node[0].window` (line 12); did you mean `tumbling`?",
    );
    check(
        "from='s'",
        "`node[0].plugin` is missing in `n`: say which plugin it runs, or what it does: `filter`, `branch`, `select`, \
         `flat_map`, `aggregate`, `deduplicate` or `join`",
    );
    check(
        "from='s'\ngroup_by='json:a'",
        "`node[0].group_by` needs `aggregate`: say what is made of the records, as aggregate = \"count\"",
    );
    check(
        "from='s'\naggregate='count'\njoin={with='r'}",
        "`node[0].join` cannot stand beside `aggregate`: a node does one thing; add another [[node]]",
    );
    check(
        "from='s'\naggregate='count'\nwindow={tumbling='1h',session='1h'}",
        "`node[0].window` is `tumbling` and `session`, and can be one of them",
    );
    check(
        "from='s'\naggregate='count'\nwindow={grace='1h'}",
        "`node[0].window` has no kind: give it `tumbling`, `hopping` with `advance`, `sliding` or `session`",
    );
    check(
        "from='s'\naggregate='count'\nwindow={hopping='1h'}",
        "`node[0].window.advance` is missing: say how much later the next window begins",
    );
    check(
        "from='s'\naggregate='count'\nwindow={hopping='1h',advance='2h'}",
        "`node[0].window` cannot be: windows of 3600000 ms that advance by 7200000 ms leave gaps: advance by at most \
         their size",
    );
    check(
        "from='s'\naggregate='count'\nwindow={tumbling='1h',emit='onclose'}",
        "`node[0].window.emit` is `onclose`; did you mean `on-close`?",
    );
}

#[test]
fn what_does_not_go_together_is_named() {
    let check = |node: &str, expect: &str| {
        assert_eq!(parse(node).map(|_| ()), Err(expect.to_owned()), "{node}");
    };
    check(
        "from='s'\naggregate='count'\nlimits={deadline_ms=5}",
        "`node[0].limits` is for nodes with a plugin",
    );
    check(
        "from='s'\naggregate='count'\non_error={policy='retry'}",
        "`node[0].on_error.policy` is \"retry\", but a built-in operator gives the same answer again; say \"fail\", \
         \"skip\" or \"dead-letter\"",
    );
    check(
        "from='s'\njoin={with='r',left='a',right='a'}",
        "`node[0].join` has no good result: both values would have the same name in the result",
    );
    check(
        "from='s'\njoin={with='r',within='1m',after='1m'}",
        "`node[0].join.within` is `before` and `after` at once: leave those out, or it",
    );
    check("from=['s','s']", "`node[0].from` names `s` twice");
    check(
        "from=['s','r']\nplugin='p'",
        "`node[0].from` must be one source or node for a plugin; merge several with a node that has a list in `from` \
         and nothing else",
    );
    check(
        "from='s'\nfilter='key = 1'\njoin={with='r'}",
        "`node[0].join` cannot stand beside `filter`: a node does one thing; add another [[node]]",
    );
    let aggregate = parse("from='s'\naggregate='cuont'").map(|_| ());
    assert!(
        aggregate.is_err_and(|error| error.starts_with("`node[0].aggregate` is `cuont`, but must be one of"))
    );
}

#[test]
fn tables() {
    let parse = |rest: &str| {
        let text = format!("name='p'\n[[table]]\nid='t'\n{rest}\n[[sink]]\nfrom='t'\ntopic='out'\n");
        Manifest::parse(&text).map_err(|error| error.to_string())
    };
    let table =
        |rest: &str| parse(&format!("topic='t'\n{rest}")).map(|mut manifest| manifest.tables.remove(0));
    let plain = table("scope='partitioned'\npartitioner='unknown'").expect("is valid");
    assert_eq!((plain.partitioner, plain.history_ms), (None, None));
    let versioned = table("history='1d'\npartitioner='crc32'").expect("is valid");
    assert_eq!((versioned.partitioner.as_deref(), versioned.history_ms), (Some("crc32"), Some(86_400_000)));
    let global = |rest: &str| parse(rest).map(|mut manifest| manifest.globals.remove(0).of);
    let (topic, alone) = (GlobalOf::Topic("t".to_owned()), GlobalOf::Table("planes".to_owned()));
    assert_eq!(global("topic='t'\nscope='global'"), Ok(topic.clone()));
    assert_eq!(global("topic='t'\nscope='global'\npartitioner='crc32'"), Ok(topic));
    assert_eq!(global("table='planes'"), Ok(alone.clone()));
    assert_eq!(global("table='planes'\nscope='global'"), Ok(alone));
    for (bad, expect) in [
        ("scope='global'", "`table[0].topic` is missing"),
        ("topic='t'\ntable='planes'", "`table[0].table` stands beside `topic`"),
        ("table='planes'\nscope='partitioned'", "`table[0].table` names a table that stands alone"),
        ("table='@planes'", "`table[0].table` is no name"),
        ("topic='t'\nscope='global'\nhistory='1d'", "`table[0].history` is for partitioned tables"),
        ("topic='t'\nscope='golbal'", "`table[0].scope` is `golbal`; did you mean `global`?"),
    ] {
        let error = parse(bad).expect_err(bad);
        assert!(error.starts_with(expect), "{bad}: {error}");
    }
}

#[test]
fn what_is_said_of_each_record() {
    let condition = |text: &str| Condition::parse(text).expect("is one");
    assert_eq!(work("filter='json:delay > 15'"), Work::Filter(condition("json:delay > 15")));
    // In the order in which they are written.
    let branches = ["z", "a"].map(|name| (name.to_owned(), condition(&format!("json:{name} = 1"))));
    let inline = "branch={z='json:z = 1',a='json:a = 1'}";
    assert_eq!(
        Manifest::parse(&branched(inline, "n:a")).map(|mut m| m.operators.remove(0).work),
        Ok(Work::Branch(branches.to_vec()))
    );
    let field = |text: &str| Field::parse(text).expect("is one");
    let members = vec![("z".to_owned(), field("json:a.b")), ("a".to_owned(), field("key"))];
    assert_eq!(work("select={z='json:a.b',a='key'}"), Work::Select(Selection(members.clone())));
    assert_eq!(work("[node.select]\nz='json:a.b'\na='key'"), Work::Select(Selection(members)));
    assert_eq!(work("flat_map='json:items'"), Work::FlatMap(vec!["items".to_owned()]));
    assert_eq!(work("flat_map='json'"), Work::FlatMap(Vec::new()));
    for (node, expect) in [
        ("filter='json:a'", "`node[0].filter` is `json:a`, which ends where a comparison"),
        ("branch={}", "`node[0].branch` has 0 conditions"),
        ("branch={rest='key = 1'}", "`node[0].branch.rest` has a name that is taken"),
        ("branch={'a b'='key = 1'}", "`node[0].branch.a b` is no name of an output"),
        ("branch={a='x'}", "`node[0].branch.a` is `x`, which has `x` at character 1, where a field"),
        ("select={}", "`node[0].select` has 0 members"),
        ("select={a='jsn:x'}", "`node[0].select.a` is `jsn:x`, but must be one of"),
        ("select={a=1}", "`node[0].select`: `a` must be a text"),
        ("flat_map='key'", "`node[0].flat_map` is `key`, but must be a list"),
        ("filter='key = 1'\ntable='t'", "`node[0].table` is for nodes that aggregate"),
        ("filter='key = 1'\non_error={policy='retry'}", "`node[0].on_error.policy` is \"retry\""),
        ("filter='key = 1'\nplugin='p'", "`node[0].filter` cannot stand beside `plugin`"),
    ] {
        let error = parse(&format!("from='s'\n{node}")).expect_err(node);
        assert!(error.starts_with(expect), "{node}: {error}");
    }
}

fn branched(branch: &str, from: &str) -> String {
    format!(
        "name='p'\n[[source]]\nid='s'\ntopic='s'\n[[node]]\nid='n'\nfrom='s'\n{branch}\n[[sink]]\nfrom='{from}'\ntopic='out'\n"
    )
}

#[test]
fn where_a_node_keeps_what_it_keeps() {
    let parsed = parse("from='s'\naggregate='count'\nstore='memory'").expect("is valid");
    assert_eq!((parsed.store, parsed.operators[0].store), (StoreKind::Rocksdb, Some(StoreKind::Memory)));
    let refused = |node: &str| parse(node).expect_err("is not valid");
    assert_eq!(
        refused("from='s'\naggregate='count'\nstore='memroy'"),
        "`node[0].store` is `memroy`; did you mean `memory`?"
    );
    let merges = refused("from=['s','r']\nstore='memory'");
    assert!(merges.starts_with("`node[0].store` is for nodes that keep something"), "{merges}");
    let parsed = parse("from='s'\nplugin='x'\nstore='memory'").expect("is valid");
    assert_eq!(parsed.nodes[0].store, Some(StoreKind::Memory));
}
