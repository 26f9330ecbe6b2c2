//! `/metrics`: what Prometheus reads. Everything is gathered when it is asked for; nothing is counted twice.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::HttpState;
use crate::group::lag::lag;
use crate::partition::Offsets;
use crate::processor::{PipelineState, Totals};

/// Name, help, and where the value is.
type Family<T, N> = (&'static str, &'static str, fn(&T) -> N);

/// The text format's version.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn render(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    let mut page = Page::default();
    broker(&mut page, &state);
    log(&mut page, &state);
    journal(&mut page, &state);
    groups(&mut page, &state).await;
    pipelines(&mut page, &state);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.text)
}

fn broker(page: &mut Page, state: &HttpState) {
    let broker = &state.broker;
    page.family("pelton_build_info", "gauge", "The running version.");
    page.sample("pelton_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("pelton_connections", "gauge", "Open connections of Kafka clients.");
    page.sample("pelton_connections", &[], i64::from(broker.open_connections()));
    for (family, help, value) in broker.counters.families() {
        page.family(family, "counter", help);
        for (label, count) in value {
            let labels = label.map(|api| ("api", api));
            page.sample(family, labels.as_slice(), i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn log(page: &mut Page, state: &HttpState) {
    let mut topics = state.broker.topics.list();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    page.family("pelton_topics", "gauge", "Topics, internal ones too.");
    page.sample("pelton_topics", &[], topics.len() as i64);
    page.family("pelton_partitions", "gauge", "Partitions, internal ones too.");
    page.sample(
        "pelton_partitions",
        &[],
        topics.iter().map(|topic| topic.partitions.len() as i64).sum::<i64>(),
    );
    let families: [Family<Offsets, i64>; 3] = [
        ("pelton_partition_log_start_offset", "First offset that can be read.", |offsets| offsets.log_start),
        ("pelton_partition_high_watermark", "Up to here consumers may read.", |offsets| {
            offsets.high_watermark
        }),
        ("pelton_partition_log_end_offset", "The offset that the next record gets.", |offsets| {
            offsets.log_end
        }),
    ];
    for (family, help, pick) in families {
        page.family(family, "gauge", help);
        for topic in topics.iter().filter(|topic| !topic.is_internal()) {
            for partition in &topic.partitions {
                let index = partition.index().to_string();
                let labels = [("topic", topic.name.as_str()), ("partition", index.as_str())];
                page.sample(family, &labels, pick(&partition.offsets()));
            }
        }
    }
}

fn journal(page: &mut Page, state: &HttpState) {
    let stats = state.broker.log_dir.journal_stats();
    let space = state.broker.log_dir.space();
    page.family(
        "pelton_journal_groups_total",
        "counter",
        "Syncs: groups of batches that became durable together.",
    );
    page.sample("pelton_journal_groups_total", &[], stats.groups);
    page.family("pelton_journal_write_seconds_total", "counter", "Time that the writes of groups took.");
    page.sample("pelton_journal_write_seconds_total", &[], stats.write_time.as_secs_f64());
    page.family(
        "pelton_journal_bytes_total",
        "counter",
        "Bytes of the journal that are durable, of all starts.",
    );
    page.sample("pelton_journal_bytes_total", &[], stats.durable_lsn);
    let gauges = [
        ("pelton_journal_pending_bytes", "Bytes that wait to become durable.", stats.pending_bytes),
        ("pelton_journal_ring_bytes", "Size of the journal's files.", stats.ring_bytes),
        (
            "pelton_journal_ring_used_bytes",
            "Bytes of them that a restart would read again.",
            stats.ring_used_bytes,
        ),
        (
            "pelton_disk_free_bytes",
            "Free bytes on the file system of the data directory.",
            space.free_bytes(),
        ),
    ];
    for (family, help, value) in gauges {
        page.family(family, "gauge", help);
        page.sample(family, &[], value);
    }
    page.family(
        "pelton_journal_waits_total",
        "counter",
        "Groups that had to wait for a checkpoint to make room.",
    );
    page.sample("pelton_journal_waits_total", &[], stats.waits_for_room);
}

async fn groups(page: &mut Page, state: &HttpState) {
    page.family("pelton_groups", "gauge", "Consumer groups, with and without members.");
    page.sample("pelton_groups", &[], i64::try_from(state.broker.groups.count()).unwrap_or(i64::MAX));
    let groups = state.broker.groups.committed().await;
    page.family("pelton_group_members", "gauge", "Members of a consumer group.");
    for group in &groups {
        page.sample("pelton_group_members", &[("group", &group.group.group_id)], group.members as i64);
    }
    let mut rows = Vec::new();
    for group in &groups {
        for (at, committed) in &group.committed {
            let topic = state.broker.topics.get(&at.topic);
            let end = topic.and_then(|topic| Some(topic.partition(at.partition)?.high_watermark()));
            rows.push((group.group.group_id.to_string(), at, *committed, end));
        }
    }
    page.family("pelton_group_committed_offset", "gauge", "What a group has finished.");
    for (group, at, committed, _) in &rows {
        let partition = at.partition.to_string();
        let labels = [("group", group.as_str()), ("topic", &*at.topic), ("partition", partition.as_str())];
        page.sample("pelton_group_committed_offset", &labels, *committed);
    }
    page.family(
        "pelton_group_lag",
        "gauge",
        "Records between the committed offset and the end of the partition.",
    );
    for (group, at, committed, end) in &rows {
        if let Some(end) = end {
            let partition = at.partition.to_string();
            let labels =
                [("group", group.as_str()), ("topic", &*at.topic), ("partition", partition.as_str())];
            page.sample("pelton_group_lag", &labels, lag(*committed, *end));
        }
    }
}

fn pipelines(page: &mut Page, state: &HttpState) {
    let Ok(supervisor) = state.supervisor() else { return };
    let pipelines = supervisor.pipelines();
    page.family("pelton_pipeline_state", "gauge", "1 for the state that a pipeline is in.");
    for pipeline in &pipelines {
        for known in PipelineState::ALL {
            let labels = [("pipeline", pipeline.name.as_str()), ("state", known.name())];
            page.sample("pelton_pipeline_state", &labels, i64::from(pipeline.status.state == known));
        }
    }
    let families: [Family<Totals, u64>; 6] = [
        ("pelton_pipeline_records_in_total", "Input records done since the pipeline started.", |t| {
            t.records_in
        }),
        ("pelton_pipeline_records_out_total", "Records appended since the pipeline started.", |t| {
            t.records_out
        }),
        ("pelton_pipeline_skipped_total", "Records dropped because a plugin could not process them.", |t| {
            t.skipped
        }),
        ("pelton_pipeline_dead_lettered_total", "Records sent to a dead-letter topic.", |t| t.dead_lettered),
        ("pelton_pipeline_failed_calls_total", "Calls of plugins that failed.", |t| t.failed_calls),
        ("pelton_pipeline_commits_total", "Commits of input offsets.", |t| t.commits),
    ];
    for (family, help, pick) in families {
        page.family(family, "counter", help);
        for pipeline in &pipelines {
            let count = i64::try_from(pick(&pipeline.status.totals)).unwrap_or(i64::MAX);
            page.sample(family, &[("pipeline", &pipeline.name)], count);
        }
    }
    page.family("pelton_pipeline_lag", "gauge", "Records that a pipeline has not finished.");
    for pipeline in &pipelines {
        let lag: i64 = pipeline.status.tasks.iter().map(|task| task.lag).sum();
        page.sample("pelton_pipeline_lag", &[("pipeline", &pipeline.name)], lag);
    }
}

/// The text format of Prometheus.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.text.push_str(if i == 0 { "{" } else { "," });
            let _ = write!(self.text, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.family("a_total", "counter", "Things.");
        page.sample("a_total", &[], 1);
        page.sample("a_total", &[("topic", "a\"b\\c\nd"), ("partition", "0")], -2);
        let expect = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n\
                      a_total{topic=\"a\\\"b\\\\c\\nd\",partition=\"0\"} -2\n";
        assert_eq!(page.text, expect);
    }
}
