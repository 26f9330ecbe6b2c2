//! The broker's configuration: one table gives the struct, the defaults, the checks and the documentation. The binary reads
//! files, the environment and flags, and passes pairs of key and text.

mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use pelton_pipelines::allowed::{AllowedDigests, AllowedKeys};
use pelton_wire::record::DecompressLimit;

pub use pelton_partitions::setting::ConfigError;
pub(crate) use pelton_partitions::setting::nearest;
pub use value::HostPort;
pub(crate) use value::Value;

use crate::memory;
use crate::topic_config::{self, TopicConfig};

/// One documented setting.
#[derive(Clone, Copy)]
pub struct Key {
    /// The name an operator writes. Kafka's, where Kafka has the setting.
    pub name: &'static str,
    /// Unit of the value: `ms`, `bytes`, `count`, or what it is: `bool`, `host:port`, `path`, `text`.
    pub unit: &'static str,
    /// What it does and why its default is what it is.
    pub meaning: &'static str,
    /// Smallest and largest value of a number.
    pub range: Option<(i128, i128)>,
    default: fn() -> String,
    set: fn(&mut Config, &str) -> Result<(), String>,
    get: fn(&Config) -> String,
}

impl Key {
    /// The default, as an operator would write it.
    pub fn default(&self) -> String {
        (self.default)()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("unit", &self.unit).finish_non_exhaustive()
    }
}

macro_rules! settings {
    ($( $field:ident: $ty:ty = $default:expr, $name:literal, $unit:literal, $range:expr, $meaning:literal; )*) => {
        /// Every setting of the broker. Field names are the keys with `.` written `_`.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $( #[doc = $meaning] #[doc = ""] #[doc = concat!("Key `", $name, "`, in ", $unit, ".")] pub $field: $ty, )*
            /// Settings that topics have unless they set their own: `log.*` and friends, by the topic's key.
            pub topic_defaults: BTreeMap<String, String>,
        }

        impl Default for Config {
            fn default() -> Self {
                Config { $( $field: $default, )* topic_defaults: BTreeMap::new() }
            }
        }

        const KEYS: &[Key] = &[ $( Key {
            name: $name,
            unit: $unit,
            meaning: $meaning,
            range: $range,
            default: || { let value: $ty = $default; value.render() },
            set: |config, text| {
                let value = <$ty as Value>::parse(text)?;
                check_range(value.number(), $range)?;
                config.$field = value;
                Ok(())
            },
            get: |config| config.$field.render(),
        }, )* ];
    };
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;

fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

settings! {
    data_dir: PathBuf = PathBuf::from("pelton-data"), "data.dir", "path", None,
        "Directory of all data. One broker at a time can use it; it is created if missing.";
    node_id: i32 = 1, "node.id", "count", Some((0, i32::MAX as i128)),
        "Node id of this broker.";
    listen: HostPort = local(9092), "listen", "host:port", None,
        "Address for Kafka clients. The default is reachable from this machine alone.";
    advertise: Option<HostPort> = None, "advertise", "host:port", None,
        "Address that clients are told to connect to. Needed if `listen` is a wildcard such as 0.0.0.0; the default is the \
         address of `listen`.";
    http_listen: Option<HostPort> = Some(local(8080)), "http.listen", "host:port", None,
        "Address of the HTTP port: health, metrics, pipelines. `off` for none. A deployment runs code, so for an address \
         other than loopback the token in `<data.dir>/http.token` must exist before the start.";
    socket_request_max_bytes: u32 = 16 * MIB as u32, "socket.request.max.bytes", "bytes", Some((KIB as i128, 1 << 30)),
        "Largest request. 16 MiB is sixteen times the largest default batch; Kafka's default is 100 MiB.";
    queued_max_request_bytes: u64 = 0, "queued.max.request.bytes", "bytes", Some((0, i64::MAX as i128)),
        "Bytes of memory that the requests of all connections may take at once, from the arrival of their bytes to their response, with what they decode to. \
         A connection waits for more before it reads more; an eighth is kept for requests of up to 16 KiB, and one large request at a time is let \
         through beside the limit. 0 takes a quarter of the memory of the machine or container.";
    max_connections: u32 = 4096, "max.connections", "count", Some((1, 1_000_000)),
        "Open connections; one more is closed at once. Bounded because each holds a file descriptor and buffers.";
    max_connections_per_ip: u32 = 256, "max.connections.per.ip", "count", Some((1, 1_000_000)),
        "Open connections from one address. Loopback is not counted.";
    connections_max_idle_ms: i64 = 10 * MINUTE_MS, "connections.max.idle.ms", "ms", Some((1, i64::MAX as i128)),
        "A connection without a request for so long is closed.";
    request_receive_timeout_ms: i64 = 60 * SECOND_MS, "pelton.request.receive.timeout.ms", "ms", Some((1, i64::MAX as i128)),
        "Longest time from the first byte of a request to its last. After that the connection is closed, since it holds a \
         share of `queued.max.request.bytes`.";
    response_send_timeout_ms: i64 = 60 * SECOND_MS, "pelton.response.send.timeout.ms", "ms", Some((1, i64::MAX as i128)),
        "Longest time in which a client may accept no byte of a response that waits for it. After that its connection is \
         closed.";
    max_pipelined_requests: u32 = 100, "pelton.max.pipelined.requests", "count", Some((1, 10_000)),
        "Requests of one connection that may wait for their response; with that many nothing is read from it. Clients have 1 \
         to 5 in flight by default.";
    max_response_bytes: u32 = 4 * MIB as u32, "pelton.connection.response.max.bytes", "bytes", Some((64 * KIB as i128, 1 << 30)),
        "Bytes of finished responses of one connection that wait for the client to take them; after that nothing is read from it.";
    max_request_partition_size_limit: i32 = 2000, "max.request.partition.size.limit", "count", Some((1, 1_000_000)),
        "Most partitions in one answer of DescribeTopicPartitions; the client asks for the next ones.";
    shutdown_timeout_ms: i64 = 10 * SECOND_MS, "pelton.shutdown.timeout.ms", "ms", Some((0, i64::MAX as i128)),
        "How long a stopping broker waits for requests that are under way. After that their connections are closed.";
    max_partitions: u32 = 20_000, "pelton.max.partitions", "count", Some((1, 10_000_000)),
        "Partitions on this broker. Creating more is refused: each costs files, memory and start-up time.";
    num_partitions: i32 = 1, "num.partitions", "count", Some((1, 10_000)),
        "Partitions of a topic that is created without a number of partitions.";
    auto_create_topics_enable: bool = true, "auto.create.topics.enable", "bool", None,
        "Create a topic when a client that allows it asks for its metadata.";
    delete_topic_enable: bool = true, "delete.topic.enable", "bool", None,
        "Allow topics to be deleted.";
    fetch_max_bytes: u32 = 55 * MIB as u32, "fetch.max.bytes", "bytes", Some((KIB as i128, 1 << 30)),
        "Most bytes of records in one fetch response, whatever the client asks for. One batch larger than that still goes out whole.";
    fetch_sessions_max: u32 = 1000, "max.incremental.fetch.session.cache.slots", "count", Some((0, 10_000_000)),
        "Fetch sessions of consumers. One that was not used for two minutes is evicted for a new one; without a session a \
         consumer names all of its partitions in each request.";
    fetch_session_partitions_max: u32 = 200_000, "pelton.fetch.session.partitions.max", "count", Some((0, 100_000_000)),
        "Partitions of all fetch sessions together. Each costs about 250 bytes.";
    decompression_max_bytes: u32 = 64 * MIB as u32, "pelton.decompression.max.bytes", "bytes", Some((MIB as i128, 1 << 30)),
        "Bytes that one compressed batch may unpack to when it is appended. Bounds the memory that a batch of a few KiB can \
         take.";
    log_retention_check_interval_ms: i64 = 5 * MINUTE_MS, "log.retention.check.interval.ms", "ms", Some((1, i64::MAX as i128)),
        "How often partitions look for segments to delete by retention.";
    log_cleaner_enable: bool = true, "log.cleaner.enable", "bool", None,
        "Compact topics whose `cleanup.policy` says so, on one thread of low priority. Without it they only grow.";
    log_cleaner_backoff_ms: i64 = 15 * SECOND_MS, "log.cleaner.backoff.ms", "ms", Some((1, i64::MAX as i128)),
        "How long the cleaner sleeps when no partition has to be compacted.";
    log_cleaner_dedupe_buffer_size: u64 = 128 * MIB, "log.cleaner.dedupe.buffer.size", "bytes", Some((64 * KIB as i128, 1 << 40)),
        "Memory that the keys of one clean may take, at 27 bytes a key; a partition with more keys is cleaned in several rounds. It is \
         taken only while something is cleaned, and no more than the partition's records need.";
    log_cleaner_io_max_bytes_per_second: u64 = 64 * MIB, "log.cleaner.io.max.bytes.per.second", "bytes", Some((0, i64::MAX as i128)),
        "Bytes that the cleaner reads and writes in a second, in sum, so that producers do not wait for a disk that is busy with it. \
         0 is no limit, which is Kafka's default.";
    producer_id_expiration_ms: i64 = 24 * HOUR_MS, "producer.id.expiration.ms", "ms", Some((1, i64::MAX as i128)),
        "How long a partition remembers a producer after its last batch, to recognise duplicates.";
    producer_id_expiration_check_interval_ms: i64 = 10 * MINUTE_MS, "producer.id.expiration.check.interval.ms", "ms", Some((1, i64::MAX as i128)),
        "How often partitions look for producers to forget (`producer.id.expiration.ms`).";
    partition_producers_max: u32 = 10_000, "pelton.partition.producers.max", "count", Some((1, 1_000_000)),
        "Idempotent and transactional producers that one partition remembers. For one more it forgets the producer whose last \
         batch is the oldest, but none with an open transaction; if all have one, the new producer is told to try again. \
         Each costs about 500 bytes.";
    transactional_id_expiration_ms: i64 = 7 * 24 * HOUR_MS, "transactional.id.expiration.ms", "ms", Some((1, i64::MAX as i128)),
        "How long a transactional id without an open transaction is remembered after its last use.";
    transaction_max_timeout_ms: i32 = 15 * MINUTE_MS as i32, "transaction.max.timeout.ms", "ms", Some((1, i32::MAX as i128)),
        "Longest `transaction.timeout.ms` that a producer may ask for. An open transaction holds up read-committed consumers \
         for as long.";
    transaction_abort_check_interval_ms: i64 = 10 * SECOND_MS, "transaction.abort.timed.out.transaction.cleanup.interval.ms", "ms", Some((1, i64::MAX as i128)),
        "How often the coordinator looks for transactions that have timed out, to abort them.";
    transaction_state_log_num_partitions: i32 = 50, "transaction.state.log.num.partitions", "count", Some((1, 10_000)),
        "Partitions of `__transaction_state`. Cannot change once the topic exists: the partition of a transactional id follows \
         from it.";
    transaction_state_log_segment_bytes: u32 = 100 * MIB as u32, "transaction.state.log.segment.bytes", "bytes", Some((MIB as i128, 1 << 30)),
        "`segment.bytes` of `__transaction_state`, when it is created.";
    snapshot_check_interval_ms: i64 = 10 * SECOND_MS, "pelton.snapshot.check.interval.ms", "ms", Some((10, i64::MAX as i128)),
        "How often the coordinators look at the size of `__consumer_offsets` and `__transaction_state`, whose partitions are kept small by snapshots.";
    snapshot_min_bytes: u64 = 64 * MIB, "pelton.snapshot.min.bytes", "bytes", Some((4096, 1 << 40)),
        "A partition of `__consumer_offsets`, `__transaction_state` or `__pelton_deployments` that is larger than this, and \
         than twice the state that its records give, gets a snapshot: that state is appended once more, and the segments \
         before it are deleted.";
    max_transactional_ids: u32 = 1_000_000, "pelton.max.transactional.ids", "count", Some((1, 100_000_000)),
        "Transactional ids that are remembered at once. Bounded because each costs memory until it expires.";
    journal_max_bytes: u64 = 1024 * MIB, "pelton.journal.max.bytes", "bytes", Some((16 * MIB as i128, 1 << 40)),
        "Largest size of the journal. A smaller journal stalls producers at full load while a checkpoint makes segments \
         durable.";
    journal_pending_max_bytes: u64 = 64 * MIB, "pelton.journal.pending.max.bytes", "bytes", Some((MIB as i128, 1 << 40)),
        "Bytes that may wait for the journal before producers wait with them. A sync moves hundreds of MB a second, so the default is a fifth of a second of full load.";
    checkpoint_bytes: u64 = 64 * MIB, "pelton.checkpoint.bytes", "bytes", Some((MIB as i128, 1 << 40)),
        "Bytes of journal between two checkpoints, at most a quarter of the journal. A checkpoint syncs every segment that was written; a start after a crash reads again what came after the last one.";
    unwritten_max_bytes: u64 = 512 * MIB, "pelton.log.unwritten.max.bytes", "bytes", Some((16 * MIB as i128, 1 << 40)),
        "Bytes that are durable in the journal and wait in memory to be written to segments; at more, producers wait for a checkpoint.";
    checkpoint_interval_ms: i64 = 5 * SECOND_MS, "pelton.checkpoint.interval.ms", "ms", Some((1, i64::MAX as i128)),
        "Longest time between two checkpoints while segments have something to sync.";
    commit_gap_us: u32 = 0, "pelton.commit.gap.us", "us", Some((0, 1_000_000)),
        "Least time between two starts of a group sync. 250 to 500 halves the CPU of many small acks and adds as much latency.";
    disk_free_min: u64 = 512 * MIB, "pelton.disk.free.min", "bytes", Some((0, i64::MAX as i128)),
        "Producers are refused (KAFKA_STORAGE_ERROR) while the disk has less room than this; coordinators and deletion still use it.";
    open_files_max: u32 = 1024, "pelton.log.open.files", "count", Some((16, 10_000_000)),
        "Files of old segments and indexes that are kept open. The newest segment of each partition is open in addition.";
    tail_cache_bytes: u64 = 64 * MIB, "pelton.log.tail.cache.bytes", "bytes", Some((0, 1 << 40)),
        "Memory for the newest batches of all partitions, from which consumers at the end of a log are served.";
    offsets_topic_num_partitions: i32 = 50, "offsets.topic.num.partitions", "count", Some((1, 10_000)),
        "Partitions of `__consumer_offsets`. Cannot change once the topic exists: the partition of a group follows from it.";
    offsets_topic_segment_bytes: u32 = 100 * MIB as u32, "offsets.topic.segment.bytes", "bytes", Some((MIB as i128, 1 << 30)),
        "`segment.bytes` of `__consumer_offsets`, when it is created. Smaller than other topics', so that compaction has something to do.";
    offsets_batch_max_bytes: u32 = 16 * MIB as u32, "pelton.offsets.batch.max.bytes", "bytes", Some((MIB as i128, 64 * MIB as i128)),
        "Largest batch of `__consumer_offsets`. A group is one record with the subscription and assignment of every member: 10,000 members of 1.6 KiB each fit.";
    group_queue_max_requests: u32 = 1024, "pelton.group.queue.max.requests", "count", Some((1, 1_000_000)),
        "Requests that wait for the owner of one partition of `__consumer_offsets`; one more waits in its connection.";
    group_appends_max: u32 = 1024, "pelton.group.appends.max", "count", Some((1, 1_000_000)),
        "Appends of one partition of `__consumer_offsets` that are not durable yet; with that many its owner takes no requests.";
    group_name_max_bytes: u32 = 4096, "pelton.group.name.max.bytes", "bytes", Some((1, 32_767)),
        "Longest group id, client id, host or instance id that is kept of a group. Kafka has no bound below the 32,767 of its strings.";
    group_member_protocols_max: u32 = 64, "pelton.group.member.protocols.max", "count", Some((1, 10_000)),
        "Protocols that one member of a group may list. Clients list one to four.";
    group_member_metadata_max_bytes: u32 = MIB as u32, "pelton.group.member.metadata.max.bytes", "bytes", Some((KIB as i128, 1 << 30)),
        "Metadata of one member of a group over all its protocols. A subscription to 5,000 topics with long names has about 500 KiB; the leader is sent that of every member.";
    group_metadata_max_bytes: u32 = 64 * MIB as u32, "pelton.group.metadata.max.bytes", "bytes", Some((KIB as i128, 1 << 30)),
        "Metadata of all members of one group over all their protocols.";
    offsets_retention_minutes: i32 = 7 * 24 * 60, "offsets.retention.minutes", "minutes", Some((1, i32::MAX as i128)),
        "How long the offsets of a group without members are kept.";
    offsets_retention_check_interval_ms: i64 = 10 * MINUTE_MS, "offsets.retention.check.interval.ms", "ms", Some((1, i64::MAX as i128)),
        "How often groups look for expired offsets.";
    offset_metadata_max_bytes: i32 = 4096, "offset.metadata.max.bytes", "bytes", Some((0, i32::MAX as i128)),
        "Longest metadata that a consumer may commit with an offset.";
    group_min_session_timeout_ms: i32 = 6_000, "group.min.session.timeout.ms", "ms", Some((0, i32::MAX as i128)),
        "Shortest session time-out a group member may ask for.";
    group_max_session_timeout_ms: i32 = 30 * 60_000, "group.max.session.timeout.ms", "ms", Some((0, i32::MAX as i128)),
        "Longest session time-out a group member may ask for.";
    group_initial_rebalance_delay_ms: i32 = 3_000, "group.initial.rebalance.delay.ms", "ms", Some((0, i32::MAX as i128)),
        "How long an empty group waits for more members before its first assignment.";
    group_max_size: i32 = 10_000, "group.max.size", "count", Some((1, i32::MAX as i128)),
        "Members of one group; one more is refused.";
    logs_retention_bytes: u64 = 64 * MIB, "pelton.logs.retention.bytes", "bytes", Some((2 * MIB as i128, 1 << 40)),
        "What `__pelton_logs` may have, the log lines of all pipelines; older ones are deleted. `pelton pipeline logs` reads all of it.";
    logs_retention_ms: i64 = 7 * 24 * 60 * 60 * SECOND_MS, "pelton.logs.retention.ms", "ms", Some((-1, i64::MAX as i128)),
        "How long log lines of pipelines are kept; -1 is no limit but that of bytes.";
    max_pipelines: u32 = 256, "pelton.max.pipelines", "count", Some((0, 100_000)),
        "Pipelines that may be deployed. Each has a thread and the memory of its plugins.";
    plugin_max_bytes: u32 = 32 * MIB as u32, "pelton.plugin.max.bytes", "bytes", Some((KIB as i128, 1 << 30)),
        "Largest component that is accepted. CPython's, the largest of the known toolchains, has 18 MiB; a larger one would \
         take minutes to compile.";
    plugin_max_instances: u32 = 1_000, "pelton.plugin.max.instances", "count", Some((1, 4_000)),
        "Instances of all plugins at once: one for each node of a pipeline. Each may reserve 4 GiB of address space, of which a process has 128 TiB.";
    plugin_memory_max_bytes: u64 = 0, "pelton.plugin.memory.max.bytes", "bytes", Some((0, i64::MAX as i128)),
        "Memory of all plugin instances together, as they grow. A pipeline whose plugin wants more starts again later, with the same records. 0 takes half \
         of the memory of the machine or container.";
    plugin_compile_max: u32 = 1, "pelton.plugin.compile.max", "count", Some((1, 1_000)),
        "Components compiled at once. One compilation takes every core it finds, so more at once make each of them slower.";
    plugin_compile_wait_ms: i64 = 30 * SECOND_MS, "pelton.plugin.compile.wait.ms", "ms", Some((0, i64::MAX as i128)),
        "How long a component waits for others to be compiled before it is refused; it may be sent again. Together with \
         `pelton.plugin.compile.timeout.ms` it stays below the two minutes that the command line waits.";
    plugin_compile_timeout_ms: i64 = MINUTE_MS, "pelton.plugin.compile.timeout.ms", "ms", Some((1, i64::MAX as i128)),
        "How long a request waits for a compilation before it is told to try again. The compilation goes on, and its result is \
         kept. A Python component takes 15 s on a busy machine.";
    plugin_allow_digests: AllowedDigests = AllowedDigests::default(), "pelton.plugin.allow.digests", "digests", None,
        "Components that this server runs, by digest (`sha256:…`), with commas between them. With this or `pelton.plugin.allow.keys` it \
         runs no others: they are refused when they are pushed or deployed, and a pipeline that is deployed already does not start.";
    plugin_allow_keys: AllowedKeys = AllowedKeys::default(), "pelton.plugin.allow.keys", "keys", None,
        "Public keys of minisign, with commas between them: this server runs components that one of them has signed, and those of \
         `pelton.plugin.allow.digests`. `pelton plugin push FILE` sends FILE.minisig along.";
    secrets_dir: PathBuf = PathBuf::from("secrets"), "pelton.secrets.dir", "path", None,
        "Directory of secrets for plugins that send over HTTP, a file each; a relative one is below `data.dir`. A pipeline names them, and they stay in the server. \
         The variable PELTON_SECRET_NAME in the server's environment comes before the file `name`.";
    state_dir: PathBuf = PathBuf::from("state"), "pelton.state.dir", "path", None,
        "Directory of the stores of tables and pipelines; a relative one is below `data.dir`. What is in it can be made again from topics, so it may be on a disk of its own that nobody backs up.";
    state_block_cache_bytes: u64 = 256 * MIB, "pelton.state.block.cache.bytes", "bytes", Some((MIB as i128, 1 << 40)),
        "Memory for blocks that were read from stores on disk, over all of them. A larger one gained nothing while the machine's page cache held the files.";
    state_write_buffer_bytes: u64 = 128 * MIB, "pelton.state.write.buffer.bytes", "bytes", Some((MIB as i128, 1 << 40)),
        "Memory for what stores on disk have taken and not written, over all of them. It is part of the block cache's; they write early to stay near it.";
    state_threads: u32 = 2, "pelton.state.threads", "count", Some((1, 64)),
        "Threads that write and compact the files of stores on disk, for all of them.";
    state_flush_interval_ms: i64 = MINUTE_MS, "pelton.state.flush.interval.ms", "ms", Some((1, i64::MAX as i128)),
        "Longest time until a store on disk has written what it took. A start after a crash reads again what came after that, from the topic.";
    max_tables: u32 = 256, "pelton.max.tables", "count", Some((0, 100_000)),
        "Tables that there may be. Each has a store for every partition of its topic, which is files and memory.";
    table_threads: u32 = 2, "pelton.table.threads", "count", Some((1, 64)),
        "Threads that keep tables fresh. The partitions of each table are spread over them; each holds up to 16 MiB of what it has read.";
    table_followers_max: u32 = 64, "pelton.table.followers.max", "count", Some((0, 10_000)),
        "Readers that follow tables at once. Each has a thread and less than 1 MiB of events on their way.";
    state_memory_bytes: u64 = 1024 * MIB, "pelton.state.memory.max.bytes", "bytes", Some((MIB as i128, 1 << 40)),
        "Memory for the entries of all stores that are kept in memory: of tables and of nodes of pipelines with the store `memory`. A table or a pipeline that would take more waits and says so.";
    http_max_connections: u32 = 256, "pelton.http.max.connections", "count", Some((1, 1_000_000)),
        "Open connections of the HTTP port; one more waits. Scrapers, probes and commands need a handful.";
    http_max_idle_ms: i64 = 2 * MINUTE_MS, "pelton.http.max.idle.ms", "ms", Some((1, i64::MAX as i128)),
        "An HTTP connection on which no byte moves for so long is closed. A request may take a compilation or a plugin's deadline; the command line waits two minutes.";
    http_body_max_bytes: u32 = MIB as u32, "pelton.http.body.max.bytes", "bytes", Some((KIB as i128, 1 << 30)),
        "Largest body of an HTTP request that pushes no plugin (`pelton.plugin.max.bytes` bounds plugins).";
    http_reads_need_token: bool = false, "pelton.http.reads.need.token", "bool", None,
        "Whether reading over HTTP needs the token as changes do: names, offsets, metrics. `/healthz` and `/readyz` never need it. A scraper then sends \
         `Authorization: Bearer <token>`, and so does the command line.";
    max_groups: u32 = 100_000, "pelton.max.groups", "count", Some((1, 100_000_000)),
        "Groups kept in memory; joining one more is refused.";
}

fn check_range(number: Option<i128>, range: Option<(i128, i128)>) -> Result<(), String> {
    match (number, range) {
        (Some(n), Some((low, high))) if n < low || n > high => {
            Err(format!("write a number from {low} to {high}"))
        }
        _ => Ok(()),
    }
}

impl Config {
    /// What one batch may unpack to when it is checked.
    pub(crate) fn decompress_limit(&self) -> DecompressLimit {
        DecompressLimit { max_bytes: self.decompression_max_bytes as usize }
    }

    /// Bytes of memory that requests may take.
    pub(crate) fn request_memory_bytes(&self) -> u64 {
        /// Part of the memory.
        const PART: u64 = 4;
        match self.queued_max_request_bytes {
            0 => (memory::available() / PART).max(self.socket_request_max_bytes.into()),
            bytes => bytes,
        }
    }

    /// The directory of secrets.
    pub fn secrets_path(&self) -> PathBuf {
        self.data_dir.join(&self.secrets_dir)
    }

    /// The directory of the stores of tables.
    pub fn state_path(&self) -> PathBuf {
        self.data_dir.join(&self.state_dir)
    }

    /// Bytes of memory that all plugin instances may take.
    pub fn plugin_memory_bytes(&self) -> u64 {
        /// Part of the memory.
        const PART: u64 = 2;
        match self.plugin_memory_max_bytes {
            0 => memory::available() / PART,
            bytes => bytes,
        }
    }

    /// Every documented setting of the broker itself, in the order of the documentation. The settings that topics
    /// take from the broker are in [`topic_config::settings`], under their `broker_key`.
    pub fn keys() -> impl Iterator<Item = &'static Key> {
        KEYS.iter()
    }

    /// A configuration from defaults and pairs of key and text; a later pair wins.
    ///
    /// # Errors
    /// The first pair that is refused, or two settings that do not fit together.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        for (key, value) in pairs {
            config.set(key.as_ref(), value.as_ref())?;
        }
        config.check()?;
        Ok(config)
    }

    /// Sets one key from text. Call [`Config::check`] after the last one.
    ///
    /// # Errors
    /// An unknown key (with the nearest known one), or a value outside of its kind or range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let bad = |fix: String| ConfigError::BadValue { key: key.to_owned(), value: value.to_owned(), fix };
        if let Some(known) = KEYS.iter().find(|k| k.name == key) {
            return (known.set)(self, value).map_err(bad);
        }
        if let Some(setting) = topic_config::by_broker_key(key) {
            TopicConfig::check_value(setting, value).map_err(bad)?;
            self.topic_defaults.insert(setting.name.to_owned(), value.to_owned());
            return Ok(());
        }
        let names = KEYS.iter().map(|k| k.name).chain(topic_config::broker_keys());
        Err(ConfigError::UnknownKey { key: key.to_owned(), nearest: nearest(key, names).map(str::to_owned) })
    }

    /// The value of a key as text; `None` for a key that does not exist.
    pub fn get(&self, key: &str) -> Option<String> {
        if let Some(known) = KEYS.iter().find(|k| k.name == key) {
            return Some((known.get)(self));
        }
        let setting = topic_config::by_broker_key(key)?;
        Some(self.topic_defaults.get(setting.name).cloned().unwrap_or_else(|| setting.default.to_owned()))
    }

    /// Checks settings against each other.
    ///
    /// # Errors
    /// The first pair of settings that do not fit together, with the cure.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.listen.is_wildcard() && self.advertise.is_none() {
            return Err(ConfigError::Conflict {
                key: "listen",
                value: self.listen.to_string(),
                why: "while `advertise` is not set, since clients would be told to connect to that address",
                fix: "set `advertise` to the HOST:PORT under which clients reach this machine",
            });
        }
        if let Some(told) = self.advertise.as_ref().filter(|a| a.is_wildcard() || a.port == 0) {
            return Err(ConfigError::Conflict {
                key: "advertise",
                value: told.to_string(),
                why: "since no client can connect to it",
                fix: "write the HOST:PORT under which clients reach this machine",
            });
        }
        if self.queued_max_request_bytes != 0
            && self.queued_max_request_bytes < u64::from(self.socket_request_max_bytes)
        {
            return Err(ConfigError::Conflict {
                key: "queued.max.request.bytes",
                value: self.queued_max_request_bytes.to_string(),
                why: "below `socket.request.max.bytes`, since the largest request could then never be read",
                fix: "raise it, or write 0 for a quarter of the memory",
            });
        }
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            return Err(ConfigError::Conflict {
                key: "group.min.session.timeout.ms",
                value: self.group_min_session_timeout_ms.to_string(),
                why: "above `group.max.session.timeout.ms`",
                fix: "lower it, or raise the maximum",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], expect: Result<(), &str>) {
        let got = Config::from_pairs(pairs.iter().copied()).map(|_| ()).map_err(|e| e.to_string());
        match (&got, expect) {
            (Ok(()), Ok(())) => {}
            (Err(text), Err(part)) if text.contains(part) => {}
            _ => panic!("{pairs:?}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn refusals_name_key_value_and_fix() {
        check(&[], Ok(()));
        check(&[("num.partitions", "12")], Ok(()));
        check(
            &[("num.partitions", "0")],
            Err("`num.partitions` cannot be `0`: write a number from 1 to 10000"),
        );
        check(&[("num.partitions", "many")], Err("write a whole number"));
        check(&[("num.partition", "3")], Err("no setting `num.partition`; did you mean `num.partitions`?"));
        check(&[("listen", "0.0.0.0:9092")], Err("set `advertise` to the HOST:PORT"));
        check(&[("listen", "0.0.0.0:9092"), ("advertise", "broker:9092")], Ok(()));
        check(&[("listen", "[::]:9092"), ("advertise", "0.0.0.0:9092")], Err("no client can connect to it"));
        check(&[("listen", "9092")], Err("write HOST:PORT"));
        check(&[("queued.max.request.bytes", "1024")], Err("raise it"));
        check(&[("log.retention.ms", "60000")], Ok(()));
        check(&[("log.retention.ms", "-2")], Err("`log.retention.ms` cannot be `-2`"));
        check(&[("log.cleanup.policy", "shred")], Err("`log.cleanup.policy` cannot be `shred`"));
    }

    #[test]
    fn every_default_is_a_value_that_its_own_key_accepts() {
        let mut config = Config::default();
        for key in Config::keys() {
            config.set(key.name, &key.default()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(config.get(key.name), Some(key.default()), "{}", key.name);
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn topic_defaults_are_set_under_the_broker_key() {
        let config = Config::from_pairs([("log.segment.bytes", "1048576")]).unwrap();
        assert_eq!(config.get("log.segment.bytes").as_deref(), Some("1048576"));
        assert_eq!(config.topic_defaults.get("segment.bytes").map(String::as_str), Some("1048576"));
    }
}
