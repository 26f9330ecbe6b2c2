//! What an operator sees of a pipeline while it runs, and says of it: log lines that stay, limits that are changed.

use crate::lab::{Lab, Pipe, until_committed, until_state};
use crate::metrics::Page;
use anyhow::{Context, Result, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::http::request;
use pelton_tests::load::create_topic;
use pelton_tests::records::{LIMIT, produce, read_all, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Records of a round that the plugin computes a moment for.
const SLOW: usize = 1_000;
const ROUNDS: usize = 5;

/// Lines say which record they are about, and outlive a crash, a revision and the pipeline.
pub(crate) fn lines(lab: &Lab) -> Result<String> {
    let (mut start, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 2, &[])?;
    lab.deploy(&cli, Pipe::new("said", "in", "out"))?;
    produce(&broker.address, "in", 1, &["a", "b"])?;
    until_committed(&cli, "said", &[0, 2])?;
    produce(&broker.address, "in", 1, &["log the third record"])?;
    until_committed(&cli, "said", &[0, 3])?;
    let first = cli.ok(&["pipeline", "logs", "said"])?;
    let line =
        first.lines().find(|line| line.contains("the third record")).context("no line of the plugin")?;
    let digest = cli.pipeline("said")?["plugins"]["work"].as_str().unwrap_or_default().replace("sha256:", "");
    ensure!(line.contains(&format!("work[1] in@2 {} the third record", &digest[..12])), "{line}");
    // What was printed was written before.
    broker.kill()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    ensure!(cli.ok(&["pipeline", "logs", "said"])? == first, "a crash has changed what was said");
    lab.deploy(&cli, Pipe { tag: "+", ..Pipe::new("said", "in", "out") })?;
    produce(&broker.address, "in", 0, &["log after a revision"])?;
    until_committed(&cli, "said", &[1, 3])?;
    let both = cli.ok(&["pipeline", "logs", "said"])?;
    ensure!(both.starts_with(&first) && both.contains("work[0] in@0"), "{both}");
    let newest = cli.ok(&["pipeline", "logs", "said", "-n", "1"])?;
    ensure!(newest.lines().count() == 1 && both.ends_with(&newest), "{newest}");
    let (mut from, mut paged) = (0, String::new());
    loop {
        let page: Value =
            serde_json::from_str(&get(&cli, &format!("/v1/pipelines/said/logs?since={from}&limit=1"))?)?;
        let Some(line) = page["lines"][0].as_object() else { break };
        paged.push_str(&format!("{}\n", line["text"].as_str().unwrap_or_default()));
        from = page["next"].as_i64().context("no next")?;
    }
    ensure!(
        paged.lines().zip(both.lines()).all(|(text, line)| line.ends_with(text)),
        "pages: {paged}, all: {both}"
    );
    ensure!(paged.lines().count() == both.lines().count(), "pages: {paged}, all: {both}");
    ensure!(
        cli.ok(&["pipeline", "logs", "said", "--since", "2100-01-01T00:00:00Z"])?.is_empty(),
        "lines of the future"
    );
    follow(&cli, &broker.address)?;
    cli.ok(&["pipeline", "delete", "said"])?;
    ensure!(cli.ok(&["pipeline", "logs", "said"])?.starts_with(&both), "they went with the pipeline");
    broker.stop()?;
    Ok(format!("{} lines", both.lines().count()))
}

fn get(cli: &Cli, path: &str) -> Result<String> {
    let address = cli.http.trim_start_matches("http://");
    let answer = request(address, &format!("GET {path}"), &[format!("Host: {address}")], None)?;
    ensure!(answer.status == 200, "{path} gives {}: {}", answer.status, answer.body);
    Ok(answer.body)
}

/// A line that comes while somebody follows is printed without being asked for again.
fn follow(cli: &Cli, address: &str) -> Result<()> {
    let mut command = Command::new(&cli.binary);
    command.args(["pipeline", "logs", "said", "-n", "1", "--follow"]).env("PELTON_HTTP_SERVER", &cli.http);
    command.env("PELTON_DATA_DIR", &cli.data_dir).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let found = (|| {
        lines.next().context("it ended")??;
        produce(address, "in", 0, &["log while somebody looks"])?;
        let line = lines.next().context("it ended")??;
        ensure!(line.contains("work[0] in@1") && line.ends_with("while somebody looks"), "{line}");
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    found
}

/// Limits hold at once, or from the next commit on, and stay until they are taken back.
pub(crate) fn limits(lab: &Lab) -> Result<String> {
    let (mut start, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 1, &[])?;
    lab.deploy(&cli, Pipe { deadline_ms: 1_000, ..Pipe::new("p", "in", "out") })?;
    produce(&broker.address, "in", 0, &["a"])?;
    until_committed(&cli, "p", &[1])?;
    let said = cli.ok(&["pipeline", "limits", "p"])?;
    ensure!(said.contains("nothing is said"), "{said}");
    cli.refused(&["pipeline", "limits", "p", "--cpu-percent", "0"], 1, &["limits.cpu_percent is 0"])?;
    cli.refused(&["pipeline", "limits", "p", "--memory", "2GiB"], 1, &["limits.memory"])?;
    cli.refused(&["pipeline", "limits", "p", "--memory", "64KiB"], 1, &["node `work` does not start"])?;
    cli.refused(&["pipeline", "limits", "nobody", "--log-lines", "1"], 1, &["no pipeline `nobody`"])?;

    // Its share of CPU: it rests for four times as long as it computes, and nothing is lost.
    cli.ok(&["pipeline", "limits", "p", "--cpu-percent", "20"])?;
    let before = cli.pipeline("p")?;
    let (mut done, mut after) = (1, Value::Null);
    // In rounds: it rests for one before it begins with the next.
    for round in 0..ROUNDS {
        let slow: Vec<String> = (0..SLOW).map(|n| format!("slow {round} {n}")).collect();
        produce(&broker.address, "in", 0, &slow.iter().map(String::as_str).collect::<Vec<_>>())?;
        done += i64::try_from(SLOW)?;
        after = until_committed(&cli, "p", &[done])?;
    }
    let grew = |key: &str| after[key].as_f64().unwrap_or(0.0) - before[key].as_f64().unwrap_or(0.0);
    let (cpu_ms, rested_ms) = (grew("cpu_ms"), grew("rested_ms"));
    ensure!(
        rested_ms > 2.0 * cpu_ms && cpu_ms > 0.0,
        "it computed for {cpu_ms} ms and rested for {rested_ms}"
    );
    ensure!(read_all(&broker.address, "out")?.len() == ROUNDS * SLOW + 1, "records are missing");

    // Its log.
    cli.ok(&["pipeline", "limits", "p", "--log-lines", "2"])?;
    produce(&broker.address, "in", 0, &["log x"; 50])?;
    let seen = until_committed(&cli, "p", &[done + 50])?;
    ensure!(seen["log_lines_dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{seen}");
    ensure!(seen["limits"] == json!({ "cpu_percent": 20, "log_lines": 2 }), "{seen}");
    let page = Page::parse(&get(&cli, "/metrics")?)?;
    let of = [("pipeline", "p"), ("node", "work")];
    ensure!(page.get("pelton_plugin_records_total", &of)? >= 51.0, "the calls of the plugin are not counted");
    ensure!(page.get("pelton_plugin_call_seconds_count", &of)? > 0.0, "nor how long they take");
    ensure!(page.get("pelton_plugin_memory_max_bytes", &of)? >= 65536.0, "nor what it has of memory");

    // A limit of the plugin, through a crash and another revision.
    cli.ok(&["pipeline", "limits", "p", "--deadline-ms", "150", "--cpu-percent", "100000"])?;
    broker.kill()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    lab.deploy(&cli, Pipe { deadline_ms: 1_000, tag: "+", ..Pipe::new("p", "in", "out") })?;
    produce(&broker.address, "in", 0, &["loop"])?;
    let failed = until_state(&cli, "p", "failed")?;
    let reason = failed["failure"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("within 150 ms"), "{reason}");
    let calls: &Value = &failed["calls"]["work"];
    ensure!(calls["timed_out"].as_u64().is_some_and(|calls| calls > 0), "{failed}");
    let said = cli.ok(&["pipeline", "limits", "p", "--reset"])?;
    ensure!(said.contains("nothing is said"), "{said}");
    let failed = until_failed_by(&cli, "within 1000 ms")?;
    ensure!(failed["limits"].is_null(), "{failed}");
    broker.stop()?;
    Ok(format!("computed for {cpu_ms} ms, rested for {rested_ms}"))
}

/// The pipeline has failed again, for that reason.
fn until_failed_by(cli: &Cli, why: &str) -> Result<Value> {
    until("the pipeline fails by the limit of its manifest", LIMIT, || {
        let seen = cli.pipeline("p")?;
        let reason = seen["failure"]["reason"].as_str().unwrap_or_default();
        Ok(reason.contains(why).then_some(seen))
    })
}
