//! HTTP over the socket: who is let in, what is too much, and what there is to see.

use crate::lab::{Lab, Pipe, until_committed, until_state};
use crate::metrics::Page;
use anyhow::{Context, Result, ensure};
use pelton_tests::http::{Answer, request};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, committed, produce};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// A request to one broker.
struct Http {
    address: String,
    token: String,
}

impl Http {
    fn host(&self) -> String {
        format!("Host: {}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    fn get(&self, target: &str) -> Result<Answer> {
        request(&self.address, &format!("GET {target}"), &[self.host()], None)
    }

    fn json(&self, target: &str) -> Result<Value> {
        let answer = self.get(target)?;
        ensure!(answer.status == 200, "{target} gives {}: {}", answer.status, answer.body);
        ensure!(
            answer.head.to_ascii_lowercase().contains("content-type: application/json"),
            "{}",
            answer.head
        );
        answer.json()
    }

    fn send(&self, line: &str, headers: &[String], body: &[u8], status: u16) -> Result<Answer> {
        let answer = request(&self.address, line, headers, Some(body))?;
        let Answer { status: got, body, .. } = &answer;
        ensure!(*got == status, "{line} with {headers:?} gives {got}, not {status}: {body}");
        Ok(answer)
    }

    /// Refused, with a reason that a program can read.
    fn refuse(&self, line: &str, headers: &[String], body: &[u8], status: u16, word: &str) -> Result<()> {
        let answer = self.send(line, headers, body, status)?;
        let error = answer.json()?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(error.contains(word), "{line} with {headers:?} is refused with: {error}");
        ensure!(!answer.body.contains(&self.token), "the token is given away");
        Ok(())
    }
}

pub(crate) fn access(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 1, &[])?;
    lab.deploy(&cli, Pipe::new("p", "in", "out"))?;
    let file = lab.data().join("http.token");
    let token = std::fs::read_to_string(&file)?.trim().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file)?.permissions());
    ensure!(
        token.len() >= 32 && mode & 0o777 == 0o600,
        "a token of {} characters, mode {mode:o}",
        token.len()
    );
    until_state(&cli, "p", "running")?;
    let http = Http { address: cli.http.clone(), token };
    let pause = "POST /v1/pipelines/p/pause";
    let changes = [
        pause,
        "POST /v1/pipelines/p/resume",
        "DELETE /v1/pipelines/p",
        "POST /v1/pipelines",
        "POST /v1/plugins",
    ];
    let ours = |more: &[&str]| {
        [&[http.host()][..], &more.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()].concat()
    };
    let wrong = format!("Authorization: Bearer {}", "f".repeat(http.token.len()));
    let short = format!("Authorization: Bearer {}", &http.token[..http.token.len() - 1]);
    for line in changes {
        http.refuse(line, &ours(&[]), b"", 401, "Bearer")?;
        http.refuse(line, &ours(&["Authorization: Bearer"]), b"", 401, "")?;
        http.refuse(line, &ours(&[&format!("Authorization: Basic {}", http.token)]), b"", 401, "Bearer")?;
        for header in [&wrong, &short, &format!("{wrong}x")] {
            http.refuse(line, &ours(&[header]), b"", 401, "wrong")?;
        }
    }
    foreign(&http, &changes)?;
    ensure!(cli.pipeline("p")?["state"] == "running", "something was changed");
    http.send(pause, &[http.host(), http.bearer()], b"", 200)?;
    until_state(&cli, "p", "paused")?;
    // Our own page, if there ever is one.
    let origin = format!("Origin: http://{}", http.address);
    http.send("POST /v1/pipelines/p/resume", &[http.host(), http.bearer(), origin], b"", 200)?;
    until_state(&cli, "p", "running")?;
    bodies(&http)?;
    impolite(&http)?;
    let stopped = slow_clients(&http, broker)?;
    Ok(format!("{} changes, a stop beside slow clients in {stopped:?}", changes.len()))
}

/// Another name than ours is DNS rebinding, another origin a page of somebody else's: neither reads nor changes anything.
fn foreign(http: &Http, changes: &[&str]) -> Result<()> {
    let reads = ["GET /metrics", "GET /v1/pipelines", "GET /v1/topics", "GET /v1/groups", "GET /healthz"];
    let port = http.address.rsplit(':').next().unwrap_or_default();
    for line in reads.iter().chain(changes) {
        for host in
            [&format!("evil.example:{port}"), "evil.example", "127.0.0.1.evil.example", "10.1.2.3", ""]
        {
            http.refuse(line, &[format!("Host: {host}"), http.bearer()], b"", 403, "Host")?;
        }
        // The one that we would look at is ours, another one is not.
        let twice = [http.host(), "Host: evil.example".to_owned(), http.bearer()];
        let answer = request(&http.address, line, &twice, Some(b""))?;
        ensure!([400, 403].contains(&answer.status), "two Hosts give {}", answer.status);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"] {
            let headers = [http.host(), http.bearer(), format!("Origin: {origin}")];
            http.refuse(line, &headers, b"", 403, "Origin")?;
        }
    }
    for host in [&format!("localhost:{port}"), "localhost", &format!("127.0.0.1:{port}"), "[::1]:80"] {
        http.send("GET /healthz", &[format!("Host: {host}")], b"", 200)?;
    }
    let answer = request(&http.address, "GET /healthz", &[], None)?;
    ensure!([400, 403].contains(&answer.status), "no Host gives {}", answer.status);
    // No page of another origin is ever allowed to read an answer.
    let answer = http.get("/v1/pipelines")?;
    ensure!(!answer.head.to_ascii_lowercase().contains("access-control-allow"), "{}", answer.head);
    Ok(())
}

fn bodies(http: &Http) -> Result<()> {
    let headers = [http.host(), http.bearer()];
    let manifest = vec![b' '; (1 << 20) + 1];
    http.refuse("POST /v1/pipelines", &headers, &manifest, 413, "1048576")?;
    let component = vec![0; (32 << 20) + 1];
    http.refuse("POST /v1/plugins", &headers, &component, 413, "33554432")?;
    // Without the token nothing is read at all.
    http.refuse("POST /v1/plugins", &[http.host()], &component, 401, "Bearer")?;
    // A length that is a lie is not believed.
    let lie = [http.host(), http.bearer(), "Content-Length: 99999999999".to_owned()];
    let answer = request(&http.address, "POST /v1/plugins", &lie, None)?;
    ensure!(answer.status == 413, "a body of 99999999999 bytes gives {}", answer.status);
    let chunked = [http.host(), http.bearer(), "Transfer-Encoding: chunked".to_owned()];
    let mut stream = TcpStream::connect(&http.address)?;
    write!(stream, "POST /v1/pipelines HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n", chunked.join("\r\n"))?;
    for _ in 0..40 {
        // The server may have had enough.
        if write!(stream, "10000\r\n{}\r\n", "x".repeat(0x10000)).is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    stream.set_read_timeout(Some(LIMIT))?;
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer).context("no answer to too many chunks")?;
    ensure!(&answer == b"HTTP/1.1 413", "chunks: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn impolite(http: &Http) -> Result<()> {
    let headers = [http.host(), http.bearer()];
    http.refuse("GET /nothing", &headers, b"", 404, "/v1/pipelines")?;
    http.refuse("GET /v1/pipelines/nobody", &headers, b"", 404, "nobody")?;
    http.refuse("GET /v1/pipelines/%ff", &headers, b"", 400, "")?;
    http.refuse("GET /v1/topics/nothing", &headers, b"", 404, "nothing")?;
    http.refuse("GET /v1/groups/nobody", &headers, b"", 404, "nobody")?;
    http.refuse("GET /v1/groups?limit=-1", &headers, b"", 400, "limit")?;
    http.refuse("GET /v1/pipelines/p/logs?since=-1", &headers, b"", 400, "since")?;
    http.refuse("PUT /v1/pipelines", &headers, b"", 405, "")?;
    http.refuse("POST /v1/pipelines", &headers, b"{", 400, "not valid")?;
    http.refuse("POST /v1/pipelines", &headers, br#"{"manifst":""}"#, 400, "manifst")?;
    let digest = json!({"manifest": "", "plugins": {"n": "md5:1"}}).to_string();
    http.refuse("POST /v1/pipelines", &headers, digest.as_bytes(), 400, "`n`")?;
    let missing = json!({"manifest": "name = \"x\"\nguarantee = \"at-least-once\""}).to_string();
    http.refuse("POST /v1/pipelines", &headers, missing.as_bytes(), 422, "source")?;
    http.refuse("POST /v1/plugins", &headers, b"\0asm", 422, "component")
}

/// Clients that send half a request and wait do not hold up a stop.
fn slow_clients(http: &Http, broker: pelton_tests::broker::Broker) -> Result<Duration> {
    let mut open = Vec::new();
    for text in
        ["", "GET /met", "POST /v1/plugins HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"]
    {
        let mut stream = TcpStream::connect(&http.address)?;
        stream.write_all(text.as_bytes())?;
        open.push(stream);
    }
    let mut authorised = TcpStream::connect(&http.address)?;
    let head = format!("{}\r\n{}\r\nContent-Length: 100", http.host(), http.bearer());
    write!(authorised, "POST /v1/plugins HTTP/1.1\r\n{head}\r\n\r\nabc")?;
    ensure!(http.get("/healthz")?.status == 200, "slow clients hold up others");
    let took = broker.stop().context("beside slow clients")?;
    ensure!(took < Duration::from_secs(10), "a stop beside slow clients took {took:?}");
    Ok(took)
}

/// Where the operator says so, reading needs the token as well; the command line finds it, and probes do without.
pub(crate) fn guarded_reads(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_as(|start| start.set("pelton.http.reads.need.token", "true"))?;
    let token = std::fs::read_to_string(lab.data().join("http.token"))?.trim().to_owned();
    let http = Http { address: cli.http.clone(), token };
    let reads = ["/metrics", "/v1/topics", "/v1/groups", "/v1/pipelines", "/v1/plugins", "/nothing"];
    for path in reads {
        let line = format!("GET {path}");
        http.refuse(&line, &[http.host()], b"", 401, "Bearer")?;
        let wrong = format!("{}x", http.bearer());
        http.refuse(&line, &[http.host(), wrong], b"", 401, "wrong")?;
        let expect = if path == "/nothing" { 404 } else { 200 };
        http.send(&line, &[http.host(), http.bearer()], b"", expect)?;
    }
    for probe in ["/healthz", "/readyz"] {
        http.send(&format!("GET {probe}"), &[http.host()], b"", 200)?;
    }
    cli.ok(&["pipeline", "list"])?;
    broker.stop()?;
    Ok(format!("{} reads", reads.len()))
}

pub(crate) fn views(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 2, &[])?;
    lab.deploy(&cli, Pipe::new("views", "in", "out"))?;
    produce(&broker.address, "in", 1, &["a", "b", "c"])?;
    until_committed(&cli, "views", &[0, 3])?;
    // A group may be called anything.
    let odd = "a \"quoted\" \\ group\nof two lines";
    let consumer: BaseConsumer = client(&broker.address).set("group.id", odd).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("in", 1, Offset::Offset(2))?;
    consumer.commit(&offsets, CommitMode::Sync)?;
    create_topic(&broker.address, "bad", 1, &[])?;
    lab.deploy(&cli, Pipe::new("broken", "bad", "bad-out"))?;
    produce(&broker.address, "bad", 0, &["trap"])?;
    until_state(&cli, "broken", "failed")?;

    let http = Http { address: cli.http.clone(), token: "none is needed here".to_owned() };
    let answer = http.get("/metrics")?;
    let head = answer.head.to_ascii_lowercase();
    ensure!(answer.status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
    let page = Page::parse(&answer.body)?;
    samples(&page, odd)?;
    json_views(&http, odd)?;
    ensure!(http.get("/healthz")?.body == "ok\n" && http.get("/readyz")?.body == "ready\n", "not healthy");
    let head = request(&http.address, "HEAD /healthz", &[http.host()], None)?;
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    ensure!(committed(&broker.address, "pelton.views", "in", 2)?[1] == 3, "other offsets");
    broker.stop()?;
    Ok(format!("{} families, {} samples", page.families.len(), page.samples.len()))
}

/// A name, labels and a value.
type Sample<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

fn samples(page: &Page, odd: &str) -> Result<()> {
    let expect: [Sample<'_>; 16] = [
        ("pelton_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        ("pelton_partition_high_watermark", &[("topic", "in"), ("partition", "1")], 3.0),
        ("pelton_partition_log_end_offset", &[("topic", "out"), ("partition", "0")], 3.0),
        ("pelton_partition_log_start_offset", &[("topic", "in"), ("partition", "0")], 0.0),
        (
            "pelton_group_committed_offset",
            &[("group", "pelton.views"), ("topic", "in"), ("partition", "1")],
            3.0,
        ),
        ("pelton_group_committed_offset", &[("group", odd), ("topic", "in"), ("partition", "1")], 2.0),
        ("pelton_group_lag", &[("group", odd), ("topic", "in"), ("partition", "1")], 1.0),
        ("pelton_group_members", &[("group", odd)], 0.0),
        ("pelton_pipeline_state", &[("pipeline", "views"), ("state", "running")], 1.0),
        ("pelton_pipeline_state", &[("pipeline", "views"), ("state", "failed")], 0.0),
        ("pelton_pipeline_state", &[("pipeline", "broken"), ("state", "failed")], 1.0),
        ("pelton_pipeline_records_in_total", &[("pipeline", "views")], 3.0),
        ("pelton_pipeline_records_out_total", &[("pipeline", "views")], 3.0),
        ("pelton_pipeline_lag", &[("pipeline", "views")], 0.0),
        ("pelton_pipeline_lag", &[("pipeline", "broken")], 1.0),
        ("pelton_produced_records_total", &[], 4.0),
    ];
    for (name, labels, value) in expect {
        // The topic that a sink made has as many partitions as the broker gives it: its records are in one of them.
        if name == "pelton_partition_log_end_offset" {
            let all = page.samples.iter().filter(|((n, l), _)| n == name && l[0].1 == "out").map(|(_, v)| v);
            let (all, markers) = (all.sum::<f64>(), 1.0..=value);
            ensure!(markers.contains(&(all - value)), "{name} {labels:?} is {all} in all: a marker a commit");
            continue;
        }
        let got = page.get(name, labels)?;
        ensure!((got - value).abs() < f64::EPSILON, "{name} {labels:?} is {got}, not {value}");
    }
    for (name, labels) in [
        ("pelton_requests_total", &[("api", "Produce")][..]),
        ("pelton_request_bytes_total", &[]),
        ("pelton_produced_bytes_total", &[]),
        ("pelton_connections", &[]),
        ("pelton_topics", &[]),
        ("pelton_journal_groups_total", &[]),
        ("pelton_journal_write_seconds_total", &[]),
        ("pelton_journal_bytes_total", &[]),
        ("pelton_journal_ring_bytes", &[]),
        ("pelton_disk_free_bytes", &[]),
        ("pelton_partitions", &[]),
        ("pelton_groups", &[]),
        ("pelton_pipeline_commits_total", &[("pipeline", "views")]),
        ("pelton_pipeline_failed_calls_total", &[("pipeline", "broken")]),
        ("pelton_produce_seconds_count", &[]),
        ("pelton_produce_seconds_sum", &[]),
    ] {
        ensure!(page.get(name, labels)? > 0.0, "{name} {labels:?} is 0");
    }
    Ok(())
}

/// Every byte of a name as a path may have it.
fn percent(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A whole list, asked for one entry at a time, each once and in order.
fn pages(http: &Http, path: &str, list: &str, name: &str) -> Result<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.json(&format!("{path}?limit=1&after={}", percent(&after)))?;
        let entries = page[list].as_array().with_context(|| format!("no list in {page}"))?;
        ensure!(entries.len() <= 1, "{page} has more than was asked for");
        all.extend(entries.iter().cloned());
        match page["next"].as_str() {
            Some(next) => {
                ensure!(entries.len() == 1 && entries[0][name] == next && *next > *after, "{page} {after}");
                after = next.to_owned();
            }
            None => return Ok(Value::Array(all)),
        }
    }
}

fn json_views(http: &Http, odd: &str) -> Result<()> {
    let find = |list: &Value, key: &str, name: &str| -> Result<Value> {
        let found = list.as_array().into_iter().flatten().find(|one| one[key] == name).cloned();
        found.with_context(|| format!("no {key} {name} in {list}"))
    };
    let topic = find(&pages(http, "/v1/topics", "topics", "name")?, "name", "in")?;
    ensure!(topic["internal"] == false && topic["partitions"] == 2, "{topic}");
    let topic = http.json("/v1/topics/in")?;
    ensure!(topic["id"] != "" && topic["partitions"][1]["high_watermark"] == 3, "{topic}");
    let internal = http.json("/v1/topics/__pelton_deployments")?;
    ensure!(internal["internal"] == true, "{internal}");
    let group = find(&pages(http, "/v1/groups", "groups", "group")?, "group", odd)?;
    ensure!(group["offsets"] == 1 && group["members"] == 0, "{group}");
    let group = http.json(&format!("/v1/groups/{}", percent(odd)))?;
    let offset = &group["offsets"][0];
    ensure!(offset["topic"] == "in" && offset["committed"] == 2 && offset["lag"] == 1, "{group}");
    let plugin = find(&http.json("/v1/plugins")?, "name", "unruly")?;
    ensure!(plugin["world"] == "transform" && plugin["version"] == "0.1.0", "{plugin}");
    let pipeline = find(&http.json("/v1/pipelines")?, "name", "views")?;
    ensure!(pipeline["state"] == "running" && pipeline["plugins"]["work"] == plugin["digest"], "{pipeline}");
    let broken = http.json("/v1/pipelines/broken")?;
    ensure!(broken["failure"]["offset"] == 0 && broken["failure"]["topic"] == "bad", "{broken}");
    let logs = http.json("/v1/pipelines/broken/logs")?;
    ensure!(logs["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{logs}");
    let more = http.json(&format!("/v1/pipelines/broken/logs?since={}", logs["next"]))?;
    ensure!(more["lines"].as_array().is_some_and(Vec::is_empty), "{more}");
    Ok(())
}
