//! The ready plugins in one pipeline over real flights: each hour of an airport comes as one object with a list of flights,
//! and what leaves is compared with what the lines of the data set say by themselves.

use crate::lab::{Lab, path, until_committed};
use anyhow::{Context, Result, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, read_all};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines of the data set: a few days.
const FLIGHTS: usize = 4_000;
/// Beyond what a float can tell apart, and beyond what fits into 63 bits.
const FIRST_ID: u64 = 18_446_744_073_700_000_000;
const LATE: i64 = 15;

/// A flight, as its line has it; what is not known is `NA`.
struct Flight {
    hour: String,
    origin: String,
    dest: String,
    carrier: String,
    tailnum: String,
    dep_delay: String,
}

fn flights() -> Result<Vec<Flight>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/nycflights13/flights.csv.gz");
    let unpacked =
        Command::new("gzip").arg("-dc").arg(&file).stderr(Stdio::inherit()).output().context("run gzip")?;
    ensure!(unpacked.status.success(), "gzip could not read {}", file.display());
    let text = String::from_utf8(unpacked.stdout)?;
    let flight = |line: &str| {
        let column = |n: usize| line.split(',').nth(n).map(str::to_owned).with_context(|| line.to_owned());
        Ok(Flight {
            hour: column(18)?,
            origin: column(12)?,
            dest: column(13)?,
            carrier: column(9)?,
            tailnum: column(11)?,
            dep_delay: column(5)?,
        })
    };
    text.lines().skip(1).take(FLIGHTS).map(flight).collect()
}

/// The flights of one airport in one hour are one record.
fn hours(flights: &mut [Flight]) -> Vec<&[Flight]> {
    flights.sort_by(|a, b| (&a.hour, &a.origin).cmp(&(&b.hour, &b.origin)));
    flights.chunk_by(|a, b| (&a.hour, &a.origin) == (&b.hour, &b.origin)).collect()
}

/// An hour as its topic has it. Members are in an order of their own, and there is space between them.
fn object(id: u64, hour: &[Flight]) -> String {
    let known = |text: &str| if text == "NA" { "null".to_owned() } else { text.to_owned() };
    let flight = |flight: &Flight| {
        let tail =
            if flight.tailnum == "NA" { String::new() } else { format!(r#""tail":"{}", "#, flight.tailnum) };
        let Flight { dest, carrier, dep_delay, .. } = flight;
        format!(
            r#"{{{tail}"to" : "{dest}","carrier":"{carrier}","delay":{{"minutes":{},"of":1.00}}}}"#,
            known(dep_delay)
        )
    };
    let list: Vec<String> = hour.iter().map(flight).collect();
    let Flight { hour, origin, .. } = &hour[0];
    format!(
        r#" {{"id": {id},"from":"{origin}", "flights":[{}], "hour":"{hour}","crew":{{"captain":"Zoë"}}}} "#,
        list.join(" , ")
    )
}

/// What must come out of a flight that left late and not to Los Angeles: the output, the key and the value.
fn expected(id: u64, flight: &Flight) -> Option<(&'static str, String, String)> {
    let Flight { hour, origin, dest, carrier, tailnum, dep_delay } = flight;
    let is_late = dep_delay.parse::<i64>().is_ok_and(|minutes| minutes > LATE);
    if !is_late || dest == "LAX" || tailnum == "NA" {
        return None;
    }
    let output = match carrier.as_str() {
        "UA" | "AA" => "large",
        other if other.starts_with(['9', 'W']) => "other",
        _ => "rest",
    };
    let (hidden, shown) = tailnum.split_at(tailnum.len() - 2);
    let tail = format!("{}{shown}", "*".repeat(hidden.len()));
    let value = format!(
        r#"{{"id":{id},"route":{{"from":"{origin}","to":"{dest}"}},"tail":"{tail}","minutes":{dep_delay},"carrier":"{carrier}","of":1.00,"hour":"{hour}"}}"#
    );
    Some((output, carrier.clone(), value))
}

fn plugin(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name)
}

fn manifest() -> String {
    let node = |id: &str, from: &str, plugin_name: &str, config: &str| {
        format!(
            "[[node]]\nid = \"{id}\"\nfrom = \"{from}\"\nplugin = \"{}\"\nconfig = {{ {config} }}\n\
             on_error = {{ policy = \"dead-letter\", topic = \"bad\" }}\n\n",
            path(&plugin(plugin_name))
        )
    };
    let sink = |from: &str, topic: &str| format!("[[sink]]\nfrom = \"{from}\"\ntopic = \"{topic}\"\n\n");
    [
        "name = \"ready\"\n\n[[source]]\nid = \"in\"\ntopic = \"hours\"\n\n".to_owned(),
        node(
            "flight",
            "in",
            "explode",
            "items = \"json:flights\", into = \"object\", key = \"json:carrier\", index_header = \"nr\"",
        ),
        node(
            "late",
            "flight",
            "filter",
            "where = \"json:flights.delay.minutes > 15 and json:flights.to not in ('LAX') and exists json:flights.tail \
             and header:origin is not null\"",
        ),
        node("masked", "late", "redact", "mask = \"json:flights.tail, json:crew.captain\", keep = 2"),
        node(
            "short",
            "masked",
            "project",
            "select = \"json:id, json:from as route.from, json:flights.to as route.to, json:flights.tail as tail, \
             json:flights.delay.minutes, json:flights.carrier, json:flights.delay.of, \
             json:hour\", missing = \"reject\"",
        ),
        node(
            "by-carrier",
            "short",
            "route",
            "by = \"json:carrier\", out1 = \"'UA', 'AA'\", out2 = \"starts with '9', starts with 'W'\"",
        ),
        sink("by-carrier:out1", "large"),
        sink("by-carrier:out2", "other"),
        sink("by-carrier", "rest"),
    ]
    .concat()
}

/// The hours, with the origin as a header and the hour's number as the time; behind them a delete, and what does not fit.
fn send(bootstrap: &str, hours: &[&[Flight]]) -> Result<usize> {
    let producer: BaseProducer = client(bootstrap).set("message.timeout.ms", "20000").create()?;
    for (n, hour) in hours.iter().enumerate() {
        let (value, headers) = (object(FIRST_ID + n as u64, hour), OwnedHeaders::new());
        let headers = headers.insert(Header { key: "origin", value: Some(&hour[0].origin) });
        let record = BaseRecord::<str, str>::to("hours").partition(0).payload(&value).headers(headers);
        producer.send(record.timestamp(1_000_000 + n as i64)).map_err(|(error, _)| error)?;
    }
    let gone = BaseRecord::<str, str>::to("hours").partition(0).key("gone").timestamp(1);
    producer.send(gone).map_err(|(error, _)| error)?;
    let wrong = [r#"{"flights":[{"carrier":"UA"}"#, r#"{"flights":{"carrier":"UA"}}"#, r#"{"flights":[{}]}"#];
    for value in wrong {
        let record = BaseRecord::<str, str>::to("hours").partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    for value in [r#"{"flights":[]}"#, r#"{"flights":null}"#, "{}"] {
        let record = BaseRecord::<str, str>::to("hours").partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")?;
    Ok(hours.len() + 1 + wrong.len() + 3)
}

/// See the module.
pub(crate) fn over_flights(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    for topic in ["hours", "large", "other", "rest", "bad"] {
        create_topic(&broker.address, topic, 1, &[])?;
    }
    refused(lab, &cli)?;
    cli.ok(&["deploy", &lab.write("ready.toml", manifest())?])?;
    let mut flights = flights()?;
    let hours = hours(&mut flights);
    let sent = send(&broker.address, &hours)?;
    until_committed(&cli, "ready", &[sent as i64])?;
    let mut left = 0;
    for topic in ["large", "other", "rest"] {
        let mut expect = Vec::new();
        for (n, hour) in hours.iter().enumerate() {
            for (nr, flight) in hour.iter().enumerate() {
                if let Some((output, key, value)) = expected(FIRST_ID + n as u64, flight)
                    && output == topic
                {
                    let headers = [("origin", flight.origin.clone()), ("nr", nr.to_string())];
                    expect.push((key, value, headers.map(|(name, value)| (name.to_owned(), value)).to_vec()));
                }
            }
        }
        left += expect.len();
        // The delete goes to each output.
        expect.push(("gone".to_owned(), String::new(), Vec::new()));
        let read = read_all(&broker.address, topic)?;
        let read: Vec<_> =
            read.into_iter().map(|Read { key, value, headers, .. }| (key, value, headers)).collect();
        if let Some((read, expect)) = read.iter().zip(&expect).find(|(read, expect)| read != expect) {
            anyhow::bail!("{topic} has {read:?}, and not {expect:?}");
        }
        ensure!(
            read.len() == expect.len() && read.len() > 50,
            "{topic} has {} records, not {}",
            read.len(),
            expect.len()
        );
    }
    let bad = read_all(&broker.address, "bad")?;
    let values: Vec<&str> = bad.iter().map(|read| read.value.as_str()).collect();
    let wrong = [r#"{"flights":[{"carrier":"UA"}"#, r#"{"flights":{"carrier":"UA"}}"#, r#"{"flights":[{}]}"#];
    ensure!(values == wrong, "the dead letters are {values:?}");
    broker.stop()?;
    Ok(format!("{} hours with {FLIGHTS} flights, of which {left} came out", hours.len()))
}

/// Settings that are wrong are refused when they are deployed, with the place.
fn refused(lab: &Lab, cli: &pelton_tests::cli::Cli) -> Result<()> {
    for (right, wrong, words) in [
        ("minutes > 15", "minutes >> 15", ["where has `> 15", "at character 29, where a number"]),
        ("key = \"json:carrier\"", "key = \"carrier\"", ["key has `carrier` at character 1", "one of `key`"]),
        ("keep = 2", "keep = -2", ["keep is `-2`", "invalid digit"]),
        ("json:hour\"", "json:id\"", ["select writes `id` twice", "node `short`"]),
        ("by = \"json:carrier\"", "by = \"\"", ["by names 0 fields", "node `by-carrier`"]),
    ] {
        let text = manifest();
        ensure!(text.contains(right), "the manifest has `{right}`");
        let file = lab.write("wrong.toml", text.replace(right, wrong))?;
        cli.refused(&["deploy", &file], 1, &words)?;
    }
    Ok(())
}
