//! The arguments of `pelton pipeline`.

use super::{Http, Json};
use clap::{Args, Subcommand};
use pelton_streams::values::ByteSize;

#[derive(Debug, Subcommand)]
pub(crate) enum Pipeline {
    /// List pipelines and their states
    List {
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Tasks, offsets, counts, and why a task stopped
    Describe {
        name: String,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Pause a pipeline after its next commit
    Pause {
        name: String,
        #[command(flatten)]
        http: Http,
    },
    /// Resume a pipeline at its committed offsets
    Resume {
        name: String,
        #[command(flatten)]
        http: Http,
    },
    /// Print the last ten revisions: when each was deployed, its plugins, what it changed
    History {
        name: String,
        /// Print the manifest of this one instead
        #[arg(long)]
        revision: Option<u64>,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Take an earlier revision live again, as a new one; it is checked like a deployment and goes on where the live one stops
    Rollback {
        name: String,
        /// Which of `pelton pipeline history` [default: the one before the live one]
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        /// Check it and say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        http: Http,
    },
    /// Put dead letters back where their records were, each of them once
    Redrive {
        name: String,
        /// Which dead-letter topic [default: all that the pipeline's nodes send letters to]
        #[arg(long)]
        topic: Option<String>,
        /// Which partition of it [default: all]
        #[arg(long)]
        partition: Option<i32>,
        /// Pass over the letters before this offset of the partition. What has gone back is not put back again: `pelton group
        /// reset-offsets` of the group pelton.NAME@redrive sets the position back
        #[arg(long, value_name = "OFFSET")]
        from: Option<i64>,
        /// At most so many letters [default: all that are there]
        #[arg(long)]
        limit: Option<u64>,
        /// Put rows of tables back, too: each takes the place of whatever its key has by now
        #[arg(long)]
        tables: bool,
        /// Say what would go back, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// What a revision that runs beside the live one (`pelton deploy --shadow`) has come to, and where the two differ
    Shadow {
        name: String,
        /// End it
        #[arg(long)]
        stop: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Delete a pipeline and its stores on disk; the topics that it reads and writes stay
    Delete {
        name: String,
        /// Delete the topics of its own too (changelogs, and those between its parts), and its offsets. One of its name
        /// then begins anew; otherwise it would go on
        #[arg(long)]
        own_topics: bool,
        #[command(flatten)]
        http: Http,
    },
    /// Show or change what holds for a pipeline over what its manifest says. It belongs to the pipeline: revisions and restarts
    /// keep it. CPU and log lines hold at once, limits of plugins from the next commit on
    Limits {
        name: String,
        #[command(flatten)]
        limits: Limits,
        /// Forget what was said before
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
    /// Print what it and its plugins have said: time, level, node and partition, the record that the call began with, the
    /// first digits of the plugin's digest. Lines outlive restarts, revisions and the pipeline itself
    Logs {
        name: String,
        /// From then on: a date and time with a zone, or milliseconds since 1970-01-01 UTC
        #[arg(long, value_name = "TIME", value_parser = super::time)]
        since: Option<i64>,
        /// How many of the newest lines, without --since
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        lines: u32,
        /// Go on with new lines until it is ended
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        http: Http,
    },
}

/// Limits that an operator says.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// CPU of its drivers, in percent of one core: 50 is half of one
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu_percent: Option<u32>,
    /// Log lines that are kept of a second
    #[arg(long, value_name = "COUNT")]
    pub(crate) log_lines: Option<u32>,
    /// Memory of each instance of a plugin, as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<ByteSize>,
    /// Time of one call
    #[arg(long, value_name = "MS")]
    pub(crate) deadline_ms: Option<u32>,
    /// What one answer may emit, as 16MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) output: Option<ByteSize>,
    /// What one call may write to its stores, as 16MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) state: Option<ByteSize>,
}

fn size(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text).map_err(|expected| format!("must be {expected}"))
}
