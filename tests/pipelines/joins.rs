//! What a pipeline says without a plugin: global tables, tables joined by a field, and records by themselves.

use crate::lab::{Lab, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, committed, read_all, until};
use pelton_tests::settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const PARTITIONS: u32 = 3;

/// Writes records by key; one without a value deletes its key.
fn produce(bootstrap: &str, topic: &str, records: &[(&str, Option<String>)]) -> Result<()> {
    let producer: BaseProducer = client(bootstrap).set("enable.idempotence", "true").create()?;
    for (key, value) in records {
        let record = BaseRecord::to(topic).key(*key);
        let record = if let Some(value) = value { record.payload(value) } else { record };
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

fn compacted(bootstrap: &str, topic: &str) -> Result<()> {
    create_topic(bootstrap, topic, PARTITIONS, &[("cleanup.policy", "compact")])
}

const FLIGHTS: &str = "name = \"flights\"\ncommit = { interval_ms = 20 }\n\
    [[source]]\nid = \"in\"\ntopic = \"flights\"\n\
    [[table]]\nid = \"airports\"\ntopic = \"airports\"\nscope = \"global\"\n\
    [[table]]\nid = \"planes\"\ntable = \"fleet\"\n\
    [[node]]\nid = \"to\"\nfrom = \"in\"\njoin = { with = \"airports\", by = \"json:dest\", kind = \"left\" }\n\
    [[node]]\nid = \"plane\"\nfrom = \"to\"\njoin = { with = \"planes\", by = \"json:tail\" }\n\
    [[sink]]\nfrom = \"plane\"\ntopic = \"joined\"\n";

/// A pipeline waits for its global tables, finds what they have through kills, and says what it lacks.
pub(crate) fn global(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, mut cli) = lab.start()?;
    create_topic(&broker.address, "flights", 2, &[])?;
    let file = lab.write("flights.toml", FLIGHTS)?;
    cli.refused(&["deploy", &file], 1, &["global table `airports`", "topic `airports` does not exist"])?;
    compacted(&broker.address, "airports")?;
    compacted(&broker.address, "planes")?;
    cli.refused(&["deploy", &file], 1, &["global table `planes`", "there is no table `fleet`"])?;
    let airports: Vec<String> = (0..50).map(|n| format!("A{n}")).collect();
    let rows: Vec<(&str, Option<String>)> =
        airports.iter().map(|code| (code.as_str(), Some(format!("{{\"code\":\"{code}\"}}")))).collect();
    produce(&broker.address, "airports", &rows)?;
    produce(&broker.address, "planes", &[("N1", Some("1".to_owned())), ("N2", Some("2".to_owned()))])?;
    cli.ok(&["table", "create", "fleet", "--topic", "planes"])?;
    let said = cli.ok(&["deploy", &file])?;
    ensure!(!said.contains("store ") && !said.contains("through topic"), "it keeps nothing: {said}");
    let mut expect: BTreeMap<String, Value> = BTreeMap::new();
    let mut sent = 0_i64;
    for kill in 0..kills {
        let mut flights = Vec::new();
        for _ in 0..rng.random_range(1..200) {
            let (dest, tail) = (rng.random_range(0..60), ["N1", "N2", "N3"][rng.random_range(0..3)]);
            let dest = format!("A{dest}");
            let airport = airports.contains(&dest).then(|| json!({ "code": dest }));
            let plane = match tail {
                "N1" => Some(1),
                "N2" => Some(2),
                _ => None,
            };
            let key = format!("flight {sent}");
            if let Some(plane) = plane {
                let flight = json!({ "dest": dest, "tail": tail, "airports": airport, "planes": plane });
                expect.insert(key.clone(), flight);
            }
            flights.push((key, format!("{{\"dest\":\"{dest}\",\"tail\":\"{tail}\"}}")));
            sent += 1;
        }
        let flights: Vec<(&str, Option<String>)> =
            flights.iter().map(|(key, value)| (key.as_str(), Some(value.clone()))).collect();
        produce(&broker.address, "flights", &flights)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        broker.kill()?;
        broker = start.start().with_context(|| format!("start after kill {kill}, seed {seed}"))?;
        cli = lab.cli(&broker)?;
    }
    let read = |bootstrap: &str| -> Result<BTreeMap<String, Value>> {
        let mut found = BTreeMap::new();
        for Read { key, value, .. } in read_all(bootstrap, "joined")? {
            let value = serde_json::from_str(&value)?;
            ensure!(found.insert(key.clone(), value).is_none(), "{key} was joined twice, seed {seed}");
        }
        Ok(found)
    };
    let end = |bootstrap: &str| committed(bootstrap, "pelton.flights", "flights", 2);
    let all_read =
        || -> Result<Option<()>> { Ok((end(&broker.address)?.iter().sum::<i64>() == sent).then_some(())) };
    let done = until("every flight is read", LIMIT, all_read);
    done.with_context(|| format!("seed {seed}; {}", start.last_words()))?;
    ensure!(read(&broker.address)? == expect, "flights are not joined as they should be, seed {seed}");

    // What changes in a table is seen by what comes after it.
    produce(&broker.address, "planes", &[("N3", Some("3".to_owned()))])?;
    until("the table has it", LIMIT, || {
        Ok((cli.run(&["table", "get", "fleet", "N3"])?.code == 0).then_some(()))
    })?;
    produce(&broker.address, "flights", &[("last", Some("{\"dest\":\"A1\",\"tail\":\"N3\"}".to_owned()))])?;
    until("it is joined", LIMIT, || Ok(read(&broker.address)?.remove("last")))?;
    cli.refused(&["table", "delete", "fleet"], 1, &["pipeline `flights` reads it as a global table"])?;

    // A topic that goes is said, and waited for.
    let before = end(&broker.address)?;
    cli.ok(&["topic", "delete", "airports"])?;
    let described = until_state(&cli, "flights", "retrying")?;
    let reason = described["failure"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("global table `airports`: topic airports does not exist"), "{reason}");
    produce(&broker.address, "flights", &[("later", Some("{\"dest\":\"A1\",\"tail\":\"N1\"}".to_owned()))])?;
    ensure!(end(&broker.address)? == before, "it goes on without a table");
    compacted(&broker.address, "airports")?;
    until_state(&cli, "flights", "running")?;
    let later = until("it is joined", LIMIT, || Ok(read(&broker.address)?.remove("later")))?;
    ensure!(later["airports"] == Value::Null, "the new topic has nothing: {later}");
    cli.ok(&["pipeline", "delete", "flights"])?;
    cli.ok(&["table", "delete", "fleet"])?;
    ensure!(!lab.data().join("state/@tables/@airports").exists(), "a copy stays that nobody reads");
    broker.stop()?;
    Ok(format!("{kills} kills, {sent} flights, seed {seed}"))
}

const FOREIGN: &str = "name = \"orders\"\ncommit = { interval_ms = 20 }\n\
    [[table]]\nid = \"orders\"\ntopic = \"orders\"\npartitioner = \"crc32\"\n\
    [[table]]\nid = \"people\"\ntopic = \"people\"\n\
    [[node]]\nid = \"n\"\nfrom = \"orders\"\n\
    join = { with = \"people\", by = \"json:who\", kind = \"left\", left = \"order\", right = \"who\" }\n\
    [[sink]]\nfrom = \"n\"\ntopic = \"of-whom\"\n";

/// Tables joined by a field: through kills, the last result of each left row is that of what both tables say.
pub(crate) fn foreign(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, cli) = lab.start()?;
    compacted(&broker.address, "orders")?;
    create_topic(&broker.address, "people", 2, &[("cleanup.policy", "compact")])?;
    let said = cli.ok(&["deploy", &lab.write("orders.toml", FOREIGN)?])?;
    for topic in ["n-right-repartition, 2", "n-subscriptions-repartition, 2", "n-answers-repartition, 3"] {
        ensure!(said.contains(&format!("through topic __pelton_orders-{topic} partitions")), "{said}");
    }
    let mut tables: [BTreeMap<String, String>; 2] = Default::default();
    for kill in 0..kills {
        let mut written: [Vec<(String, Option<String>)>; 2] = Default::default();
        for _ in 0..rng.random_range(1..60) {
            let (side, number) = (rng.random_range(0..2), rng.random_range(0..1_000));
            let key = format!("{}{}", ["o", "p"][side], rng.random_range(0..8));
            let value = match (rng.random_range(0..5), side) {
                (0, _) => None,
                (1, 0) => Some(format!("{{\"n\":{number}}}")),
                (_, 0) => Some(format!("{{\"n\":{number},\"who\":\"p{}\"}}", rng.random_range(0..8))),
                _ => Some(number.to_string()),
            };
            written[side].push((key.clone(), value.clone()));
            match value {
                Some(value) => tables[side].insert(key, value),
                None => tables[side].remove(&key),
            };
        }
        for (topic, written) in ["orders", "people"].into_iter().zip(&written) {
            let written: Vec<(&str, Option<String>)> =
                written.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            produce(&broker.address, topic, &written)?;
        }
        broker.kill()?;
        broker = start.start().with_context(|| format!("start after kill {kill}, seed {seed}"))?;
    }
    let mut expect: BTreeMap<String, Value> = BTreeMap::new();
    for (key, order) in &tables[0] {
        let order: Value = serde_json::from_str(order)?;
        let who = order["who"].as_str().and_then(|who| tables[1].get(who));
        let who: Value = who.map_or(Ok(Value::Null), |who| serde_json::from_str(who))?;
        expect.insert(key.clone(), json!({ "order": order, "who": who }));
    }
    let mut seen = BTreeMap::new();
    let joined = until("every order is joined", LIMIT, || {
        seen.clear();
        for Read { key, value, .. } in read_all(&broker.address, "of-whom")? {
            if value.is_empty() {
                seen.remove(&key)
            } else {
                seen.insert(key, serde_json::from_str(&value)?)
            };
        }
        Ok((seen == expect).then_some(()))
    });
    joined.with_context(|| format!("seed {seed}: {seen:?} and not {expect:?}; {}", start.last_words()))?;
    let cli = lab.cli(&broker)?;
    // After the last kill, stores may still be on their way when all results are there.
    let scan = || Ok(Some(cli.run(&["table", "scan", "orders/n-results"])?).filter(|ended| ended.code == 0));
    let kept = until("the table is there", LIMIT, scan)?.stdout;
    ensure!(kept.lines().count() == expect.len(), "{kept}");
    cli.ok(&["pipeline", "delete", "orders", "--own-topics"])?;
    let topics = cli.ok(&["topic", "list", "--all"])?;
    ensure!(!topics.contains("__pelton_orders-"), "{topics}");
    broker.stop()?;
    Ok(format!("{kills} kills, {} orders, seed {seed}", expect.len()))
}

const NATIVE: &str = "name = \"native\"\nguarantee = \"at-least-once\"\n\
    [[source]]\nid = \"in\"\ntopic = \"flights\"\n\
    [[node]]\nid = \"flown\"\nfrom = \"in\"\nfilter = \"json:dep_delay is not null\"\n\
    on_error = { policy = \"dead-letter\", topic = \"dead\" }\n\
    [[node]]\nid = \"by\"\nfrom = \"flown\"\nbranch = { late = \"json:dep_delay > 15\", early = \"json:dep_delay < 0\" }\n\
    [[node]]\nid = \"short\"\nfrom = \"by:late\"\nselect = { delay = \"json:dep_delay\", carrier = \"key\" }\n\
    [[node]]\nid = \"legs\"\nfrom = \"by:rest\"\nflat_map = \"json:legs\"\n\
    [[sink]]\nfrom = \"short\"\ntopic = \"late\"\n[[sink]]\nfrom = \"by:early\"\ntopic = \"early\"\n\
    [[sink]]\nfrom = \"legs\"\ntopic = \"legs\"\n";

/// Records are filtered, parted and made of others as the manifest says.
pub(crate) fn native(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    create_topic(&broker.address, "flights", 1, &[])?;
    let wrong = NATIVE.replace("dep_delay > 15", "dep_delay >> 15");
    let file = lab.write("wrong.toml", wrong)?;
    cli.refused(&["deploy", &file], 2, &["node[1].branch.late", "where a number", "at character"])?;
    cli.ok(&["deploy", &lab.write("native.toml", NATIVE)?])?;
    let flights = [
        ("UA", "{\"dep_delay\":16.50}"),
        ("AA", "{\"dep_delay\":-3}"),
        ("DL", "{\"dep_delay\":0,\"legs\":[\"EWR\", {\"to\" : 1.0}]}"),
        ("B6", "{\"dep_delay\":null}"),
        ("9E", "no json"),
        ("WN", "{\"dep_delay\":1}"),
    ];
    let flights = flights.map(|(key, value)| (key, Some(value.to_owned())));
    produce(&broker.address, "flights", &flights)?;
    until_committed(&cli, "native", &[6])?;
    for (topic, expect) in [
        ("late", &[("UA", "{\"delay\":16.50,\"carrier\":\"UA\"}")][..]),
        ("early", &[("AA", "{\"dep_delay\":-3}")]),
        ("legs", &[("DL", "\"EWR\""), ("DL", "{\"to\" : 1.0}")]),
        ("dead", &[("9E", "no json")]),
    ] {
        let read = read_all(&broker.address, topic)?;
        let read: Vec<(&str, &str)> =
            read.iter().map(|read| (read.key.as_str(), read.value.as_str())).collect();
        ensure!(read == expect, "{topic} has {read:?}");
    }
    let described = cli.pipeline("native")?;
    ensure!(described["dropped"]["legs"]["null_field"] == 1, "{described}");
    broker.stop()?;
    Ok(format!("{} records", flights.len()))
}
