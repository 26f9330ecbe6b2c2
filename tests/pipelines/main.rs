//! Pipelines and HTTP over a real broker: what a user does and sees, and what becomes of it when plugins misbehave, the
//! broker is killed, or strangers ask. Each case prints one line; any failure fails the run.
//!
//! `PELTON_PIPELINE_KILLS` (12) kills; `PELTON_SEED` repeats the choice of their moments; arguments pick cases by name.

mod asked;
mod commands;
mod consumers;
mod deployments;
mod fixtures;
mod groups;
mod hooks;
mod http;
mod isolation;
mod joins;
mod kills;
mod lab;
mod languages;
mod life;
mod metrics;
mod outputs;
mod placing;
mod ready;
mod records;
mod refusals;
mod routing;
mod state;
mod watched;

use anyhow::Result;
use lab::Lab;
use pelton_tests::{cases, end, guest, say, settings};
use std::path::Path;
use std::process::ExitCode;

/// Returns what it can tell.
type Case = fn(&Lab) -> Result<String>;

const CASES: [(&str, Case); 49] = [
    ("kills-repeat-no-output-exactly-once", kills::kills_exactly_once),
    ("kills-lose-no-record-at-least-once", kills::kills_at_least_once),
    ("kills-count-no-record-twice", state::counted_once),
    ("kills-leave-what-a-plugin-keeps-beside-its-outputs", state::kept_once),
    ("timers-fire-without-records-and-through-kills", state::timers_fire),
    ("new-plugins-build-and-pass-their-own-tests", commands::new_plugins),
    ("fixtures-say-what-a-plugin-makes-of-what-it-is-given", fixtures::tell),
    ("plugins-in-each-language-emit-the-same", languages::agree),
    ("new-plugins-in-each-language-pass-their-own-tests", languages::new_plugins),
    ("ready-plugins-do-what-they-say-to-real-flights", ready::over_flights),
    ("kills-lose-nothing-on-the-way-to-another-key", state::regrouped_once),
    ("kills-find-what-global-tables-have", joins::global),
    ("kills-lose-nothing-of-tables-joined-by-a-field", joins::foreign),
    ("records-are-filtered-parted-and-made-of-others", joins::native),
    ("stores-come-back-from-a-compacted-changelog", state::restored_from_what_is_left),
    ("what-a-pipeline-keeps-is-asked-for-while-it-runs", asked::while_it_runs),
    ("a-misbehaving-plugin-stops-its-pipeline-alone", isolation::alone),
    ("a-failed-pipeline-goes-on-when-it-is-mended", isolation::mended),
    ("a-refused-output-names-its-record", outputs::fail),
    ("a-refused-output-goes-by-the-policy", outputs::policies),
    ("a-plugin-places-the-records-of-a-topic", placing::by_plugin),
    ("a-topics-partitioner-is-obeyed-by-every-client", routing::obeyed),
    ("pipelines-obey-a-topics-partitioner", routing::by_pipelines),
    ("an-intake-has-room-for-so-much", routing::limits),
    ("a-stop-does-not-wait-for-an-endless-plugin", isolation::endless),
    ("components-are-refused-for-what-they-are", refusals::components),
    ("manifests-are-refused-for-what-they-say", refusals::manifests),
    ("commands-without-a-broker-or-a-token", refusals::strangers),
    ("pipelines-do-what-commands-say", commands::verbs),
    ("a-new-revision-goes-on-where-the-old-one-stopped", commands::revisions),
    ("revisions-are-shown-and-rolled-back-to", life::rolled_back),
    ("swaps-and-rollbacks-under-load-lose-and-repeat-nothing", life::swaps),
    ("dead-letters-go-back-once-through-kills", life::redriven_once),
    ("another-revision-is-tried-beside-the-live-one", life::beside),
    ("a-server-runs-what-its-allow-list-says", life::allowed),
    ("topics-that-go-away", commands::topics_go_away),
    ("a-pipelines-group-is-its-own-while-it-runs", groups::owned),
    ("components-are-not-kept-in-memory", deployments::memory),
    ("webhooks-lose-nothing-and-keep-the-order-of-keys", consumers::by_key),
    ("webhooks-keep-the-order-of-partitions", consumers::by_partition),
    ("consumers-reach-what-is-granted-alone", consumers::grants),
    ("new-consumers-act-on-records", consumers::new_ones),
    ("consumers-are-given-what-a-node-emits", consumers::behind_a_node),
    ("http-answers-only-those-it-should", http::access),
    ("http-reads-need-the-token-if-asked", http::guarded_reads),
    ("records-over-http-are-written-once", records::once),
    ("metrics-and-views-show-everything", http::views),
    ("log-lines-outlive-crashes-revisions-and-pipelines", watched::lines),
    ("limits-are-changed-while-a-pipeline-runs", watched::limits),
];

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let binary = settings::binary()?;
    let home = tempfile::tempdir()?;
    // Apart from other builds, so that nobody waits for a lock.
    let build_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    // The plugin that does what a record tells it to do.
    let component = guest::build(&binary, "unruly", &build_dir, home.path())?;
    cases::run("pipelines", CASES, |name, case| {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir)?;
        let lab =
            Lab { binary: binary.clone(), component: component.clone(), build_dir: build_dir.clone(), dir };
        case(&lab)
            .map(Some)
            .inspect_err(|_| say(format_args!("{}", std::fs::read_to_string(lab.log()).unwrap_or_default())))
    })
}
