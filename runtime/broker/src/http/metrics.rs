//! `/metrics` for Prometheus. Values that the broker does not count anyway are gathered for each page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::HttpState;
use crate::blocking::run_blocking;
use crate::group::lag::lag;
use crate::group::service::GroupOffsets;
use crate::partition::Offsets;
use crate::topics::Topic;
use pelton_partitions::partition::clean::Cleaning;
use pelton_pipelines::status::{PipelineState, Totals};
use pelton_pipelines::supervisor::{PipelineDescription, StoreMetrics};
use pelton_streams::meter::{BOUNDS_US, CallCounts};
use pelton_tables::{PartitionStatus, StoreState, StoreStatus, Totals as TableTotals};

/// Name, help, and where the value is.
type Family<T, N> = (&'static str, &'static str, fn(&T) -> N);

/// How long a page is cached, and the committed offsets in it, which the group coordinator has to be asked for.
pub(super) const PAGE_KEPT: Duration = Duration::from_secs(1);
pub(super) const OFFSETS_KEPT: Duration = Duration::from_secs(5);
/// Most committed offsets that a page shows.
const OFFSETS_MAX: usize = 100_000;

pub(super) async fn render(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    let page = state.metrics_page.get(page(Arc::clone(&state))).await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page)
}

async fn page(state: Arc<HttpState>) -> Bytes {
    let groups = state.parts.groups.clone();
    let offsets = async { groups.committed(OFFSETS_MAX).await.into() };
    let groups = state.group_offsets.get(offsets).await;
    // The page may be megabytes of text: the runtime's threads are left to clients.
    run_blocking(move || {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&state.parts.metrics)));
        registry.register_collector(Box::new(Scrape { state, groups }));
        let mut page = String::new();
        encode(&mut page, &registry).expect("a String takes everything that is written");
        page.into()
    })
    .await
}

/// The values gathered for one page.
struct Scrape {
    state: Arc<HttpState>,
    groups: Arc<[GroupOffsets]>,
}

impl std::fmt::Debug for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let mut page = Page { encoder: &mut encoder };
        self.broker(&mut page)?;
        self.topics(&mut page)?;
        self.journal(&mut page)?;
        self.groups(&mut page)?;
        self.pipelines(&mut page)?;
        self.tables(&mut page)
    }
}

impl Scrape {
    fn broker(&self, page: &mut Page<'_, '_>) -> Encoded {
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1_i64)];
        page.gauges("pelton_build_info", "The running version.", version)?;
        let open = self.state.parts.connections.open();
        page.gauge("pelton_connections", "Open connections of Kafka clients.", open)?;
        let memory = self.state.parts.request_memory.in_use();
        page.gauge("pelton_request_memory_bytes", "Memory of requests that are not answered yet.", memory)?;
        let (sessions, partitions) = self.state.parts.fetch_sessions.count();
        page.gauge("pelton_fetch_sessions", "Fetch sessions of consumers.", sessions)?;
        page.gauge("pelton_fetch_session_partitions", "Partitions of all fetch sessions.", partitions)
    }

    fn topics(&self, page: &mut Page<'_, '_>) -> Encoded {
        let topics = self.state.parts.admin.list_topics();
        let partitions: i32 = topics.iter().map(|topic| topic.partition_count).sum();
        page.gauge("pelton_topics", "Topics, internal ones too.", topics.len())?;
        page.gauge("pelton_partitions", "Partitions, internal ones too.", partitions)?;
        let families: [Family<Offsets, i64>; 3] = [
            ("pelton_partition_log_start_offset", "First offset that can be read.", |offsets| {
                offsets.log_start
            }),
            ("pelton_partition_high_watermark", "High watermark: consumers may read below it.", |offsets| {
                offsets.high_watermark
            }),
            ("pelton_partition_log_end_offset", "The offset that the next record gets.", |offsets| {
                offsets.log_end
            }),
        ];
        for (family, help, pick) in families {
            let shown = topics.iter().filter(|topic| !topic.is_internal());
            let samples = shown.flat_map(|topic| {
                topic.local.iter().map(move |partition| {
                    let labels =
                        [("topic", topic.name.clone()), ("partition", partition.index().to_string())];
                    (labels, pick(&partition.offsets()))
                })
            });
            page.gauges(family, help, samples)?;
        }
        self.intakes(page, &topics)?;
        self.cleaner(page, &topics)
    }

    /// Only topics with a partitioner of their own.
    fn intakes(&self, page: &mut Page<'_, '_>, topics: &[Arc<Topic>]) -> Encoded {
        let admin = &self.state.parts.admin;
        let unrouted =
            topics.iter().filter_map(|topic| Some((topic.name.clone(), admin.unrouted_bytes(topic)?)));
        let help = "Bytes that clients have written to a topic with a partitioner of its own and that are not routed yet.";
        page.gauges(
            "pelton_topic_unrouted_bytes",
            help,
            unrouted.map(|(topic, bytes)| ([("topic", topic)], bytes)),
        )
    }

    /// Only partitions that the cleaner has looked at: those of compacted topics.
    fn cleaner(&self, page: &mut Page<'_, '_>, topics: &[Arc<Topic>]) -> Encoded {
        let cleaned: Vec<([(&str, String); 2], Cleaning)> = topics
            .iter()
            .flat_map(|topic| {
                topic.local.iter().filter_map(|partition| {
                    let labels =
                        [("topic", topic.name.clone()), ("partition", partition.index().to_string())];
                    Some((labels, partition.cleaning()?))
                })
            })
            .collect();
        let help = "Part of a compacted partition, by bytes, that was not compacted yet, when the cleaner last looked.";
        let ratios = cleaned.iter().map(|(labels, cleaning)| (labels.clone(), cleaning.dirty_ratio));
        page.gauges("pelton_partition_dirty_ratio", help, ratios)?;
        let help =
            "When a compacted partition was last cleaned, in seconds since 1970; 0 before the first time.";
        let last = cleaned.iter().map(|(labels, cleaning)| {
            (labels.clone(), cleaning.last_run_ms.map_or(0.0, |ms| ms as f64 / 1000.0))
        });
        page.gauges("pelton_partition_cleaned_seconds", help, last)?;
        let help = "1 for a partition that is not compacted before a restart: the log says why.";
        let uncleanable = cleaned
            .iter()
            .map(|(labels, cleaning)| (labels.clone(), i64::from(cleaning.uncleanable.is_some())));
        page.gauges("pelton_partition_uncleanable", help, uncleanable)?;
        let families: [Family<Cleaning, u64>; 5] = [
            ("pelton_partition_cleans", "Times that a partition was compacted.", |c| c.runs),
            ("pelton_partition_cleaned_bytes_in", "Bytes that compaction read.", |c| c.bytes_read),
            ("pelton_partition_cleaned_bytes_out", "Bytes that compaction kept.", |c| c.bytes_written),
            ("pelton_partition_cleaned_records_in", "Records that compaction read.", |c| c.records_read),
            ("pelton_partition_cleaned_records_out", "Records that compaction kept.", |c| c.records_written),
        ];
        for (family, help, pick) in families {
            let samples = cleaned.iter().map(|(labels, cleaning)| (labels.clone(), pick(cleaning)));
            page.counters(family, help, samples)?;
        }
        Ok(())
    }

    fn journal(&self, page: &mut Page<'_, '_>) -> Encoded {
        let stats = self.state.parts.log_dir.journal_stats();
        let free = self.state.parts.log_dir.space().free_bytes();
        let help = "Syncs: groups of batches that became durable together.";
        page.counter("pelton_journal_groups", help, stats.groups)?;
        let help = "Time that the writes of groups took.";
        page.counter("pelton_journal_write_seconds", help, stats.write_time.as_secs_f64())?;
        let help = "Bytes of the journal that are durable, of all starts.";
        page.counter("pelton_journal_bytes", help, stats.durable_lsn)?;
        let help = "Groups that had to wait for a checkpoint to make room.";
        page.counter("pelton_journal_waits", help, stats.waits_for_room)?;
        let help = "Bytes that wait for the journal's sync.";
        page.gauge("pelton_journal_pending_bytes", help, stats.pending_bytes)?;
        page.gauge("pelton_journal_ring_bytes", "Size of the journal's files.", stats.ring_bytes)?;
        let help = "Bytes of the journal that a restart would replay.";
        page.gauge("pelton_journal_ring_used_bytes", help, stats.ring_used_bytes)?;
        page.gauge("pelton_disk_free_bytes", "Free bytes on the file system of the data directory.", free)
    }

    fn groups(&self, page: &mut Page<'_, '_>) -> Encoded {
        let groups = &self.groups;
        let help = "Consumer groups, with and without members.";
        page.gauge("pelton_groups", help, self.state.parts.groups.count())?;
        let members =
            groups.iter().map(|group| ([("group", &*group.summary.group.group_id)], group.summary.members));
        page.gauges("pelton_group_members", "Members of a consumer group.", members)?;
        let rows = || {
            groups.iter().flat_map(|group| {
                group.committed.iter().map(|(at, committed)| {
                    let labels = [
                        ("group", group.summary.group.group_id.to_string()),
                        ("topic", at.topic.to_string()),
                        ("partition", at.partition.to_string()),
                    ];
                    (labels, at, *committed)
                })
            })
        };
        let committed = rows().map(|(labels, _, committed)| (labels, committed));
        page.gauges("pelton_group_committed_offset", "Committed offset of a group.", committed)?;
        let help = "Records between the committed offset and the end of the partition.";
        let lags = rows().filter_map(|(labels, at, committed)| {
            let topic: Arc<Topic> = self.state.parts.admin.topic(&at.topic)?;
            Some((labels, lag(committed, topic.partition(at.partition).ok()?.high_watermark())))
        });
        page.gauges("pelton_group_lag", help, lags)?;
        let cut = groups.iter().filter(|group| group.committed.len() < group.summary.offsets).count();
        let help = "Groups whose offsets are not all shown, since there are more than 100,000 in all.";
        page.gauge("pelton_groups_cut", help, cut)
    }

    fn pipelines(&self, page: &mut Page<'_, '_>) -> Encoded {
        let Ok(supervisor) = self.state.supervisor() else { return Ok(()) };
        let help = "Log lines of pipelines that went before they were written to `__pelton_logs`: it takes none, or not as many.";
        page.counter("pelton_log_lines_lost", help, self.state.parts.logs.pending.dropped())?;
        let pipelines = supervisor.pipelines();
        states(page, &pipelines)?;
        work(page, &pipelines)?;
        let stores = supervisor.store_metrics();
        let of_store = |pick: fn(&StoreMetrics) -> u64| {
            let labels =
                |store: &StoreMetrics| [("pipeline", store.pipeline.clone()), ("store", store.store.clone())];
            stores.iter().map(move |store| (labels(store), pick(store))).collect::<Vec<_>>()
        };
        let help = "Size of what a pipeline keeps, of all its partitions.";
        page.gauges("pelton_pipeline_store_bytes", help, of_store(|store| store.bytes))?;
        let help = "Entries of what a pipeline keeps, of all its partitions, about.";
        page.gauges("pelton_pipeline_store_keys", help, of_store(|store| store.keys))?;
        let help = "Records of changelogs that are read before the pipeline goes on.";
        page.gauges("pelton_pipeline_store_restore_remaining", help, of_store(|store| store.to_restore))
    }
}

/// What pipelines and their lanes do.
fn states(page: &mut Page<'_, '_>, pipelines: &[PipelineDescription]) -> Encoded {
    let states = pipelines.iter().flat_map(|pipeline| {
        PipelineState::ALL.map(|known| {
            let labels = [("pipeline", pipeline.name.as_str()), ("state", known.name())];
            (labels, i64::from(pipeline.status.state == known))
        })
    });
    page.gauges("pelton_pipeline_state", "1 for the state that a pipeline is in.", states)?;
    let lanes = pipelines.iter().flat_map(|pipeline| {
        PipelineState::ALL.map(|known| {
            let lanes = pipeline.status.lanes.iter().filter(|lane| lane.state == known).count();
            let only = pipeline.status.lanes.is_empty() && pipeline.status.state == known;
            let labels = [("pipeline", pipeline.name.as_str()), ("state", known.name())];
            (labels, lanes as u64 + u64::from(only))
        })
    });
    page.gauges("pelton_pipeline_lanes", "Lanes of a pipeline (`threads`) that are in a state.", lanes)
}

/// What pipelines have done, and what they have to do.
fn work(page: &mut Page<'_, '_>, pipelines: &[PipelineDescription]) -> Encoded {
    let families: [Family<Totals, u64>; 8] = [
        ("pelton_pipeline_records_in", "Input records that are done and committed.", |t| t.records_in),
        ("pelton_pipeline_records_out", "Records that were appended and committed.", |t| t.records_out),
        ("pelton_pipeline_skipped", "Records dropped because a plugin could not process them.", |t| {
            t.skipped
        }),
        ("pelton_pipeline_dead_lettered", "Records sent to a dead-letter topic.", |t| t.dead_lettered),
        (
            "pelton_pipeline_undeliverable",
            "Records dropped because their dead-letter topic does not take them.",
            |t| t.undeliverable,
        ),
        ("pelton_pipeline_failed_calls", "Calls of plugins that failed.", |t| t.failed_calls),
        (
            "pelton_pipeline_retries",
            "Records that a plugin which acts on the outside was to be given again, each time.",
            |t| t.retries,
        ),
        ("pelton_pipeline_commits", "Commits of input offsets.", |t| t.commits),
    ];
    let of = |pipeline: &PipelineDescription| [("pipeline", pipeline.name.clone())];
    for (family, help, pick) in families {
        let samples = pipelines.iter().map(|pipeline| (of(pipeline), pick(&pipeline.status.totals)));
        page.counters(family, help, samples)?;
    }
    let lag =
        |pipeline: &PipelineDescription| -> i64 { pipeline.status.tasks.iter().map(|task| task.lag).sum() };
    let lags = pipelines.iter().map(|pipeline| (of(pipeline), lag(pipeline)));
    page.gauges("pelton_pipeline_lag", "Records that a pipeline has not finished.", lags)?;
    let help = "Records that a plugin which acts on the outside has: not done, given now, to be given again, done ahead.";
    page.gauges("pelton_pipeline_delivery_records", help, deliveries(pipelines))?;
    let dropped = pipelines.iter().flat_map(|pipeline| {
        pipeline.status.dropped.iter().flat_map(move |(node, dropped)| {
            let labels =
                |reason| [("pipeline", pipeline.name.clone()), ("node", node.clone()), ("reason", reason)];
            dropped.by_reason().map(|(reason, count)| (labels(reason.to_owned()), count))
        })
    });
    plugin_calls(page, pipelines)?;
    let used = pipelines.iter().map(|pipeline| (of(pipeline), pipeline.status.cpu_ms));
    let help = "CPU that the drivers of a pipeline have used since it started, in ms.";
    page.counters("pelton_pipeline_cpu_milliseconds", help, used)?;
    let rested = pipelines.iter().map(|pipeline| (of(pipeline), pipeline.status.rested_ms));
    let help = "How long they have rested because of the pipeline's share of CPU, in ms.";
    page.counters("pelton_pipeline_rested_milliseconds", help, rested)?;
    let unsaid = pipelines.iter().map(|pipeline| (of(pipeline), pipeline.status.log_lines_dropped));
    let help = "Log lines that were not kept, because a pipeline said too much in a second.";
    page.counters("pelton_pipeline_log_lines_dropped", help, unsaid)?;
    let help = "Records that a built-in node has not let through, or windows that they came too late for.";
    page.counters("pelton_pipeline_dropped", help, dropped)
}

/// What was counted of the calls of plugins, by pipeline and node.
fn plugin_calls(page: &mut Page<'_, '_>, pipelines: &[PipelineDescription]) -> Encoded {
    let calls: Vec<([(&'static str, String); 2], &CallCounts)> = pipelines
        .iter()
        .flat_map(|pipeline| {
            let of = |node: &String| [("pipeline", pipeline.name.clone()), ("node", node.clone())];
            pipeline.status.calls.iter().map(move |(node, counts)| (of(node), counts))
        })
        .collect();
    let each =
        |pick: fn(&CallCounts) -> u64| calls.iter().map(move |(of, counts)| (of.clone(), pick(counts)));
    page.counters(
        "pelton_plugin_records",
        "Records that a plugin was given, each time.",
        each(|c| c.records),
    )?;
    page.counters("pelton_plugin_traps", "Calls that trapped.", each(|c| c.trapped))?;
    let help = "Calls that were not back within `limits.deadline_ms`.";
    page.counters("pelton_plugin_timeouts", help, each(|c| c.timed_out))?;
    let help = "Calls that wanted more memory or a larger answer than they may have, or had no valid one.";
    page.counters("pelton_plugin_failures", help, each(|c| c.failed))?;
    let help = "The most linear memory that an instance has had since its pipeline started.";
    page.gauges("pelton_plugin_memory_max_bytes", help, each(|c| c.memory_bytes))?;
    let help = "How long calls took. A plugin computes all of this time, unless it sends requests.";
    page.histograms("pelton_plugin_call_seconds", help, calls.iter().map(|(of, c)| (of.clone(), *c)))
}

/// What plugins that act on the outside have, by pipeline, node and state.
fn deliveries(pipelines: &[PipelineDescription]) -> Vec<([(&'static str, String); 3], u64)> {
    let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for pipeline in pipelines {
        for delivery in pipeline.status.tasks.iter().filter_map(|task| task.delivery.as_ref()) {
            let states = [
                ("unfinished", delivery.unfinished),
                ("given", delivery.given),
                ("retrying", delivery.retrying),
                ("ahead", delivery.ahead),
            ];
            for (state, count) in states {
                *counts.entry((&pipeline.name, &delivery.node, state)).or_default() += count;
            }
        }
    }
    let labels = |(pipeline, node, state): (&str, &str, &str)| {
        [("pipeline", pipeline.to_owned()), ("node", node.to_owned()), ("state", state.to_owned())]
    };
    counts.into_iter().map(|(of, count)| (labels(of), count)).collect()
}

impl Scrape {
    fn tables(&self, page: &mut Page<'_, '_>) -> Encoded {
        let Ok(tables) = self.state.tables() else { return Ok(()) };
        let help = "Memory of stores on disk: blocks that were read, and what is not written yet.";
        page.gauge("pelton_state_memory_bytes", help, tables.memory_bytes())?;
        let help = "Memory of the entries of stores in memory, of `pelton.state.memory.max.bytes`.";
        page.gauge("pelton_state_memory_stores_bytes", help, tables.memory_stores_bytes())?;
        let tables = tables.list();
        let states = tables.iter().flat_map(|table| {
            StoreState::ALL.map(|known| {
                let labels = [("table", table.name.as_str()), ("state", known.name())];
                (labels, i64::from(table.state == known))
            })
        });
        page.gauges("pelton_table_state", "1 for the state that a table is in.", states)?;
        let of_partition = |pick: fn(&PartitionStatus) -> f64| {
            tables.iter().flat_map(move |table| {
                table.stores.iter().flat_map(|store| &store.partitions).map(move |status| {
                    let labels = [("table", table.name.clone()), ("partition", status.partition.to_string())];
                    (labels, pick(status))
                })
            })
        };
        let help = "Offsets of a partition that its table does not reflect yet.";
        page.gauges("pelton_table_records_behind", help, of_partition(|status| status.behind as f64))?;
        let help = "Part of what a partition had when its store was opened that was read since, from 0 to 1.";
        page.gauges("pelton_table_restored_ratio", help, of_partition(|status| status.restored))?;
        let of_store = |pick: fn(&StoreStatus) -> u64| {
            tables.iter().flat_map(move |table| {
                let labels =
                    |store: &StoreStatus| [("table", table.name.clone()), ("store", store.store.clone())];
                table.stores.iter().map(move |store| (labels(store), pick(store)))
            })
        };
        page.gauges("pelton_table_bytes", "Size of a table's store.", of_store(|store| store.bytes))?;
        page.gauges("pelton_table_keys", "Rows of a table's store, about.", of_store(|store| store.keys))?;
        let families: [Family<TableTotals, u64>; 4] = [
            ("pelton_table_puts", "Records that set a row.", |totals| totals.puts),
            ("pelton_table_tombstones", "Records that delete a row.", |totals| totals.tombstones),
            ("pelton_table_null_keys", "Records without a key, dropped.", |totals| totals.null_keys),
            ("pelton_table_rebuilds", "Stores that were made again from their topic.", |totals| {
                totals.rebuilds
            }),
        ];
        for (family, help, pick) in families {
            let samples = tables.iter().map(|table| ([("table", table.name.clone())], pick(&table.totals)));
            page.counters(family, help, samples)?;
        }
        Ok(())
    }
}

/// Writes metric families whose values are gathered for the page.
struct Page<'p, 'e> {
    encoder: &'p mut DescriptorEncoder<'e>,
}

impl Page<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> Encoded {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> Encoded {
        let mut encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        encoder.encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&value, None)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> Encoded {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histograms<'c, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, &'c CallCounts)>,
    ) -> Encoded {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, counts) in samples {
            let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.buckets.iter().copied()).collect();
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
                counts.took_us as f64 / 1e6,
                counts.calls,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> Encoded {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}
