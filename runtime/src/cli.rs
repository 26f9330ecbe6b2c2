//! The command line. `pelton --help` is the reference; these names stay.

mod pipeline;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub(crate) use pipeline::{Limits, Pipeline};

/// A Kafka-protocol broker that runs your code beside the data.
#[derive(Debug, Parser)]
#[command(name = "pelton", version, about, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Data goes to stdout, everything else to stderr.
Exit codes: 0 done, 1 failed, 2 wrong command line, manifest or configuration, 3 no broker answered, \
4 the broker's disk failed.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker
    Serve(Serve),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(Topic),
    /// Write lines of stdin to a topic, a record a line
    Produce(Produce),
    /// Print the records of a topic
    Consume(Consume),
    /// List and describe consumer groups and their lag, reset their offsets
    #[command(subcommand)]
    Group(Group),
    /// Create, build, inspect and push plugins
    #[command(subcommand)]
    Plugin(Plugin),
    /// Validate a pipeline, push its plugins and run it
    Deploy(Deploy),
    /// List, describe, pause, resume and delete pipelines
    #[command(subcommand)]
    Pipeline(Pipeline),
    /// Run a pipeline over a range of the log again, with another plugin or manifest, and compare; nothing is written
    Replay(Replay),
    /// Make compacted topics into tables; ask and follow them
    #[command(subcommand)]
    Table(Table),
    /// Read segment files, without a broker
    #[command(subcommand)]
    Log(Log),
    /// Check a configuration, print every key
    #[command(subcommand)]
    Config(Config),
}

/// Where the broker listens for Kafka clients.
#[derive(Args, Clone, Debug)]
pub(crate) struct Kafka {
    /// Address of the broker, HOST:PORT
    #[arg(long, env = "PELTON_BOOTSTRAP_SERVER", default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    pub(crate) bootstrap_server: String,
}

/// Where the broker listens for HTTP.
#[derive(Args, Clone, Debug)]
pub(crate) struct Http {
    /// Address of the broker's HTTP port, HOST:PORT
    #[arg(long, env = "PELTON_HTTP_SERVER", default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub(crate) http_server: String,
    /// The broker's data directory, for its `http.token`: a command that changes something needs it
    #[arg(long, env = "PELTON_DATA_DIR", default_value = "pelton-data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The token itself, instead of `<data-dir>/http.token`
    #[arg(long, env = "PELTON_HTTP_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) http_token: Option<String>,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Json {
    /// Print JSON, for a program to read
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Configuration file (TOML); see `pelton config print`
    #[arg(long, env = "PELTON_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of all data [default: pelton-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address for Kafka clients; with port 0 the kernel picks a port [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Address that clients are told to connect to [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Address of the HTTP port; "off" for none [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,
    /// Where the stores of tables are kept [default: state, below the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Any other configuration key; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create a topic
    Create {
        name: String,
        /// How many partitions [default: the broker's num.partitions]
        #[arg(long, short)]
        partitions: Option<i32>,
        /// A topic setting, such as retention.ms=86400000; may be repeated
        #[arg(long = "config", short = 'c', value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// Who places its records, whichever partition clients choose: a rule (murmur2), a plugin that was pushed, or the
        /// directory or file of one, which is pushed first
        #[arg(long, value_name = "RULE|PLUGIN")]
        partitioner: Option<String>,
        /// Succeed if the topic already exists
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        kafka: Kafka,
        #[command(flatten)]
        http: Http,
    },
    /// List topics
    List {
        /// Internal topics too (their names begin with __)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Partitions with their offsets, the settings that differ from the defaults, and what compaction did
    Describe {
        name: String,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        kafka: Kafka,
        #[command(flatten)]
        http: Http,
    },
    /// Change settings or add partitions
    Alter {
        name: String,
        /// Set a topic setting; may be repeated
        #[arg(long = "config", short = 'c', value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// Reset a topic setting to its default; may be repeated
        #[arg(long, value_name = "KEY")]
        reset: Vec<String>,
        /// The new number of partitions, more than before
        #[arg(long, short)]
        partitions: Option<i32>,
        /// Another rule or plugin for a topic that has a partitioner of its own
        #[arg(long, value_name = "RULE|PLUGIN")]
        partitioner: Option<String>,
        #[command(flatten)]
        kafka: Kafka,
        #[command(flatten)]
        http: Http,
    },
    /// Which known partitioner explains where the keys of a topic are, and how many keys are elsewhere
    Partitioning {
        name: String,
        /// Most records of each partition that are read: half of them the oldest, half the newest
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        records: u64,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Delete a topic and its records
    Delete {
        name: String,
        #[command(flatten)]
        kafka: Kafka,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Produce {
    pub(crate) topic: String,
    /// Which partition a record goes to: murmur2, crc32, fnv1a or consistent by its key, or uniform, sticky or
    /// round-robin whatever its key; or a plugin, by its directory or file [default: murmur2]
    #[arg(long, value_name = "RULE|PLUGIN")]
    pub(crate) partitioner: Option<String>,
    /// The plugin's configuration, a table of TOML: '{ regions = "eu,us" }'
    #[arg(long, value_name = "TABLE", requires = "partitioner")]
    pub(crate) partitioner_config: Option<String>,
    /// Text between the key and the value of a line; without it records have no key
    #[arg(long, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// A value that is this text is null: a record that deletes its key, of a table say
    #[arg(long, value_name = "TEXT", requires = "key_separator")]
    pub(crate) null_value: Option<String>,
    /// Any librdkafka option, such as compression.type=zstd; may be repeated
    #[arg(short = 'X', value_name = "OPTION=VALUE")]
    pub(crate) options: Vec<String>,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// The value and a line feed
    Value,
    /// Key, tab, value
    KeyValue,
    /// One JSON object a line, with topic, partition, offset, timestamp, key, value and headers
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

#[derive(Args, Debug)]
pub(crate) struct Consume {
    pub(crate) topic: String,
    /// Join this consumer group and commit what was printed
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Start at the oldest record instead of the next one
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    pub(crate) max_messages: Option<u64>,
    /// Stop at the end of the topic instead of waiting for more
    #[arg(long)]
    pub(crate) exit: bool,
    #[arg(long, value_enum, default_value_t = Format::Value)]
    pub(crate) format: Format,
    #[arg(long, value_enum, default_value_t = Isolation::ReadCommitted)]
    pub(crate) isolation_level: Isolation,
    /// Any librdkafka option; may be repeated
    #[arg(short = 'X', value_name = "OPTION=VALUE")]
    pub(crate) options: Vec<String>,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups and their states
    List {
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Members, committed offsets and lag
    Describe {
        name: String,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Move the committed offsets of a group without members, or of a pipeline that does not run and keeps no state (`pelton.NAME`)
    ResetOffsets {
        name: String,
        #[arg(long)]
        topic: String,
        /// earliest, latest, an offset, +N or -N
        #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
        to: String,
        /// Only this partition
        #[arg(long)]
        partition: Option<i32>,
        #[command(flatten)]
        kafka: Kafka,
    },
    /// Delete a group without members, or that of a pipeline that does not run (`pelton.NAME`)
    Delete {
        name: String,
        #[command(flatten)]
        kafka: Kafka,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Create a plugin in a new directory, with the SDK of its language
    New {
        dir: PathBuf,
        /// What it may do: transform (records in, records out), transform-state (with stores), transform-timer (with
        /// timers and stores), aggregator (one value for each key), or partitioner (which partition a record goes to)
        #[arg(long, default_value = "transform")]
        world: String,
        /// rust, python, js (JavaScript, or TypeScript as plugin.ts), c or go
        #[arg(long, default_value = "rust")]
        lang: String,
    },
    /// Compile a plugin directory to a component; tools of its language are installed when they are first needed
    Build {
        dir: PathBuf,
        /// Where the component goes [default: <dir>/<name>.wasm]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Give a plugin what the fixtures in its tests/ say, without a broker, and compare what comes of it
    Test {
        /// The directory of the plugin, which is built first
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Run the cases whose name has this in it
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Test this component instead of building the directory
        #[arg(long, value_name = "FILE")]
        component: Option<PathBuf>,
        /// Write what came into the fixtures: look at what has changed before you keep it
        #[arg(long)]
        bless: bool,
    },
    /// World, imports, exports, digest and configuration of a component
    Inspect {
        file: PathBuf,
        #[command(flatten)]
        json: Json,
    },
    /// Push a component to the broker without deploying it
    Push {
        /// A component, or a plugin directory to build first
        path: PathBuf,
        /// The signature that minisign has made of the component [default: the file of its name with .minisig behind it, if
        /// there is one]
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        #[command(flatten)]
        http: Http,
    },
    /// List the plugins of the broker
    List {
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
}

/// Exit code 1 if the two differ, as `diff` has it.
#[derive(Args, Debug)]
pub(crate) struct Replay {
    pub(crate) pipeline: String,
    /// Where it begins in each partition: an offset, a time as 2013-01-01T00:00:00Z, or `earliest`
    #[arg(long, default_value = "earliest", value_name = "PLACE")]
    pub(crate) from: String,
    /// Where it ends, which is not part of it: an offset, a time, or `latest`
    #[arg(long, default_value = "latest", value_name = "PLACE")]
    pub(crate) to: String,
    /// Another component for the node with a plugin, or for the one named: a file, or a directory to build; may be repeated
    #[arg(long, value_name = "[NODE=]FILE")]
    pub(crate) plugin: Vec<String>,
    /// Another pipeline.toml than the live one
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
    #[command(flatten)]
    pub(crate) http: Http,
}

#[derive(Args, Debug)]
pub(crate) struct Deploy {
    /// A directory with a pipeline.toml, or the file
    pub(crate) path: PathBuf,
    /// Validate and build, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run it beside the live revision, without writing anything; `pelton pipeline shadow NAME` says where they differ
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) shadow: bool,
    /// Where the shadow begins [default: where the live revision is]: an offset, a time as 2013-01-01T00:00:00Z, or `earliest`
    #[arg(long, value_name = "PLACE", requires = "shadow")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) http: Http,
}

/// Which rows of a table. Keys are in the order of their bytes; `base64:...` writes one that is no text.
#[derive(Args, Clone, Debug)]
pub(crate) struct Rows {
    /// The first key
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<String>,
    /// The end, which is not part of it
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<String>,
    /// Only keys that begin so
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
}

/// Windows by when they begin: a date and time with a zone, or milliseconds since 1970-01-01 UTC.
#[derive(Args, Clone, Debug)]
pub(crate) struct Starts {
    /// Windows that begin then or later
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<i64>,
    /// Windows that begin before
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<i64>,
}

fn time(text: &str) -> Result<i64, String> {
    let known = text.parse().ok().or_else(|| pelton_streams::values::epoch_ms(text));
    known.filter(|ms| *ms >= 0).ok_or_else(|| "a time is written as 2013-01-01T10:00:00Z".to_owned())
}

/// Waiting for one's own writes.
#[derive(Args, Clone, Debug)]
pub(crate) struct AtLeast {
    /// Wait until the table reflects this offset: OFFSET, PARTITION:OFFSET, or TOPIC:PARTITION:OFFSET for a table that a
    /// pipeline makes of several topics
    #[arg(long, value_name = "OFFSET")]
    pub(crate) min_offset: Option<String>,
    /// How long to wait for it, and for a table that is being restored
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub(crate) timeout_ms: u64,
}

/// Tables of compacted topics, and PIPELINE/NODE for what a node of a pipeline keeps.
#[derive(Debug, Subcommand)]
pub(crate) enum Table {
    /// Create a table: the last value of each key of a compacted topic
    Create {
        name: String,
        /// The topic; its cleanup.policy is compact
        #[arg(long)]
        topic: String,
        /// partitioned: a store for each partition; global: one for all of them
        #[arg(long, value_parser = ["partitioned", "global"], default_value = "partitioned")]
        scope: String,
        /// How the topic's producers place keys: where that is known, a key is looked for in one partition.
        /// librdkafka's default is crc32, that of Java's client murmur2
        #[arg(long, value_parser = ["murmur2", "crc32", "fnv1a", "consistent", "unknown"], default_value = "unknown")]
        partitioner: String,
        /// rocksdb: on disk; memory: read from the topic at each start
        #[arg(long, value_parser = ["rocksdb", "memory"], default_value = "rocksdb")]
        store: String,
        /// What its values are shown as
        #[arg(long, value_parser = ["json", "raw"], default_value = "raw")]
        value: String,
        #[command(flatten)]
        http: Http,
    },
    /// List tables and their states
    List {
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Stores, how far each partition was read, and why one does not go on
    Describe {
        name: String,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Print the value of a key
    Get {
        name: String,
        /// The key; `base64:...` writes one that is no text
        key: String,
        #[command(flatten)]
        at_least: AtLeast,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Print the windows of a key, those of a pipeline that are open or kept: start, end and value, with tabs between
    Window {
        /// PIPELINE/NODE, or what the manifest calls it
        name: String,
        /// The key; `base64:...` writes one that is no text
        key: String,
        #[command(flatten)]
        starts: Starts,
        #[command(flatten)]
        at_least: AtLeast,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Print rows in the order of their keys: key, tab, value; with --json one object a line. Of a table with windows: key,
    /// start, end, value
    Scan {
        name: String,
        #[command(flatten)]
        rows: Rows,
        #[command(flatten)]
        starts: Starts,
        /// Stop after so many rows
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Print rows, then every change as it comes; with --json one object a line
    Follow {
        name: String,
        /// Only this key
        #[arg(long, conflicts_with_all = ["from", "to", "prefix"])]
        key: Option<String>,
        #[command(flatten)]
        rows: Rows,
        /// Stop after so many rows and changes
        #[arg(long, value_name = "N")]
        max_events: Option<u64>,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Delete a table; its topic stays
    Delete {
        name: String,
        #[command(flatten)]
        http: Http,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Print the batches of a segment file, or of all segments of a partition directory
    Dump {
        path: PathBuf,
        /// The records too, not only their batches
        #[arg(long)]
        records: bool,
    },
    /// Check every batch; exit code 1 if one is bad
    Verify { path: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a configuration; an error names the key and what to change
    Check {
        #[arg(long, env = "PELTON_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print every key with its default, unit and meaning, and the values that are set
    Print {
        #[arg(long, env = "PELTON_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
}
