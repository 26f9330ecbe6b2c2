//! Records over HTTP: each request with an idempotency key is written once, whatever is killed and however often it is sent.

use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use pelton_tests::http::{Answer, request};
use pelton_tests::records::{LIMIT, Read, read_all, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SENDERS: usize = 4;
const REQUESTS: usize = 60;
const KILLS: usize = 4;
/// One that goes by its own partitioner, and one that does not.
const TOPICS: [&str; 2] = ["plain", "routed"];

/// Where requests go, and the token.
#[derive(Clone)]
struct To {
    address: String,
    token: String,
}

impl To {
    fn post(&self, target: &str, key: &str, body: &Value) -> Result<Answer> {
        let headers = [
            format!("Host: {}", self.address),
            format!("Authorization: Bearer {}", self.token),
            "Content-Type: application/json".to_owned(),
            format!("Idempotency-Key: {key}"),
        ];
        request(&self.address, &format!("POST {target}"), &headers, Some(body.to_string().as_bytes()))
    }
}

fn body(sender: usize, n: usize) -> Value {
    let record =
        |i: usize| json!({ "key": format!("k{}", (n + i) % 7), "value": format!("{sender}-{n}-{i}") });
    json!({ "records": [record(0), record(1), record(2)] })
}

/// Sends every request until it is answered, and some of them again: with the same answer. How many were sent.
fn send(to: &To, sender: usize, answered: &AtomicUsize) -> Result<(usize, Vec<Ticket>)> {
    let (mut sent, mut tickets) = (0, Vec::new());
    for n in 0..REQUESTS {
        let topic = TOPICS[n % 2];
        let (target, key, body) =
            (format!("/v1/topics/{topic}/records"), format!("{sender}-{n}"), body(sender, n));
        let begun = Instant::now();
        let first = loop {
            sent += 1;
            match to.post(&target, &key, &body) {
                Ok(answer) if answer.status == 200 => break answer,
                // Refused because the broker is stopping or not ready, or cut off.
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => anyhow::bail!("{key} is answered {}: {}", answer.status, answer.body),
                Err(_) => {}
            }
            ensure!(begun.elapsed() < LIMIT, "{key} is not answered");
            std::thread::sleep(Duration::from_millis(5));
        };
        answered.fetch_add(1, Ordering::Relaxed);
        if topic == TOPICS[1] {
            tickets.extend(tickets_of(&first.body, &body).with_context(|| first.body.clone())?);
        }
        if n % 5 == 0
            && let Ok(again) = to.post(&target, &key, &body)
        {
            sent += 1;
            let same = again.status == 503 || again.body == first.body;
            ensure!(same, "{key} is answered {} and then {}", first.body, again.body);
        }
    }
    Ok((sent, tickets))
}

/// What a client was answered for a record of the topic with a partitioner of its own.
struct Ticket {
    partition: i64,
    offset: i64,
    value: String,
}

fn tickets_of(answer: &str, body: &Value) -> Result<Vec<Ticket>> {
    let answer: Value = serde_json::from_str(answer)?;
    ensure!(answer["tickets"] == true, "these are tickets");
    let (answered, sent) = (answer["records"].as_array(), body["records"].as_array());
    let (answered, sent) = (answered.context("records")?, sent.context("records")?);
    ensure!(answered.len() == sent.len(), "one for each record");
    let ticket = |(answer, sent): (&Value, &Value)| {
        let number = |name: &str| answer[name].as_i64().context("a number");
        let value = sent["value"].as_str().context("a text")?.to_owned();
        Ok(Ticket { partition: number("partition")?, offset: number("offset")?, value })
    };
    answered.iter().zip(sent).map(ticket).collect()
}

/// Each ticket says where its record is.
fn found_by_ticket(to: &To, tickets: &[Ticket], records: &[Read]) -> Result<()> {
    for Ticket { partition, offset, value } in tickets {
        let target = format!("/v1/topics/{}/intake/{partition}/{offset}", TOPICS[1]);
        let answer =
            request(&to.address, &format!("GET {target}"), &[format!("Host: {}", to.address)], None)?;
        let said: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        let read = records.iter().find(|read| read.value == *value).context("it is there")?;
        let place = json!({ "partition": read.partition, "offset": read.offset });
        ensure!(said["place"] == place && said["routed"] == true, "{value} is at {place}, and not {said}");
    }
    Ok(())
}

/// See the module.
pub(crate) fn once(lab: &Lab) -> Result<String> {
    let (mut start, mut broker, cli) = lab.start()?;
    // The same address in each life.
    start.http = broker.http.clone().context("the broker has an HTTP port")?;
    cli.ok(&["topic", "create", "plain", "--partitions", "3", "-c", "max.message.bytes=20000"])?;
    cli.ok(&["topic", "create", "routed", "--partitions", "3", "--partitioner", "crc32"])?;
    let token = std::fs::read_to_string(lab.data().join("http.token"))?.trim().to_owned();
    let to = To { address: start.http.clone(), token };
    let answered = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (to, answered) = (to.clone(), Arc::clone(&answered));
            std::thread::spawn(move || send(&to, sender, &answered))
        })
        .collect();
    for kill in 1..=KILLS {
        let enough = SENDERS * REQUESTS * kill / (KILLS + 2);
        until("requests to be answered", LIMIT, || {
            Ok((answered.load(Ordering::Relaxed) >= enough).then_some(()))
        })?;
        broker.kill()?;
        broker = start.start()?;
    }
    let (mut sent, mut tickets) = (0, Vec::new());
    for sender in senders {
        let (times, of_sender) = sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        sent += times;
        tickets.extend(of_sender);
    }
    for (t, topic) in TOPICS.iter().enumerate() {
        let expect = SENDERS * REQUESTS / 2 * 3;
        let records = until("every record to be there", LIMIT, || {
            let records = read_all(&broker.address, topic)?;
            Ok((records.len() >= expect).then_some(records))
        })?;
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        records.iter().for_each(|record| *found.entry(record.value.clone()).or_default() += 1);
        for (sender, n) in (0..SENDERS).flat_map(|sender| (t..REQUESTS).step_by(2).map(move |n| (sender, n)))
        {
            for i in 0..3 {
                let times = found.remove(&format!("{sender}-{n}-{i}")).unwrap_or(0);
                ensure!(times == 1, "{topic}: record {i} of request {sender}-{n} is there {times} times");
            }
        }
        ensure!(found.is_empty(), "{topic}: nobody sent {found:?}");
        if t == 1 {
            found_by_ticket(&to, &tickets, &records)?;
        }
    }
    refused(&to)?;
    broker.stop()?;
    let (requests, tickets) = (SENDERS * REQUESTS, tickets.len());
    Ok(format!("{requests} requests sent {sent} times through {KILLS} kills, {tickets} tickets"))
}

fn refused(to: &To) -> Result<()> {
    let check = |target: &str, key: &str, body: Value, status: u16, word: &str| -> Result<()> {
        let answer = to.post(target, key, &body)?;
        ensure!(
            answer.status == status && answer.body.contains(word),
            "{key}: {} {}",
            answer.status,
            answer.body
        );
        Ok(())
    };
    let plain = "/v1/topics/plain/records";
    check(plain, "0-0", body(9, 9), 422, "another request")?;
    check(plain, "new", json!({ "records": [] }), 400, "send 1 to")?;
    check(plain, "new", json!({ "records": [{ "partition": 3 }] }), 400, "no partition 3")?;
    check(plain, "new", json!({ "records": [{ "value": "x".repeat(30_000) }] }), 400, "max.message.bytes")?;
    check("/v1/topics/none/records", "new", body(0, 0), 404, "no topic `none`")?;
    check("/v1/topics/__pelton_idempotency/records", "new", body(0, 0), 400, "the broker's own")?;
    check("/v1/topics/plain/records?partitioner=x", "new", body(0, 0), 400, "partitioner")
}
