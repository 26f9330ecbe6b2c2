//! Plugins with timers: on stream time they fire before the record that brings it there, whatever the batches; on the clock at ticks.

use super::graph::{Lab, check, check_with, linked};
use super::*;
use crate::node_state::{ColumnOut, NodeState, Refused};
use crate::operator::TimerDomain;

/// A record sets the timer of its key for 10 ms later, and is handed on. It reads its orders from the values: `clock` sets the timer on
/// the machine's clock, `cancel` takes it away, `again` has one that sets itself again, `bad` one whose firing traps, `large` one
/// that emits what no topic takes. A timer emits what it was set by and when it was due.
#[derive(Default)]
pub(super) struct Quiet {
    calls: usize,
}

fn column(field: &[u8]) -> ColumnOut {
    let mut column = ColumnOut::default();
    column.push(Some(field));
    column
}

fn trapped<T>((done, state): (Result<T, Refused>, NodeState)) -> (Result<T, PluginError>, NodeState) {
    (done.map_err(|Refused(trap)| PluginError::Trapped { trap, said: None }), state)
}

impl Plugin for Quiet {
    fn process(&mut self, _: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        unreachable!("it is called with its stores")
    }

    fn process_with(
        &mut self,
        batch: &BatchIn<'_>,
        mut state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        self.calls += 1;
        let mut set = || {
            for record in batch.records() {
                let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
                let name = column(&[key, b":", value].concat());
                let (domain, at) = match value {
                    b"clock" => (TimerDomain::WallClock, state.clock_ms() + 10),
                    _ => (TimerDomain::StreamTime, record.timestamp + 10),
                };
                match value {
                    b"cancel" => {
                        state
                            .cancel_timers(TimerDomain::StreamTime, column(&[key, b":x"].concat()).as_in())?;
                    }
                    _ => state.set_timers(domain, name.as_in(), &[at])?,
                }
            }
            Ok(BatchOut::identity(batch.len()))
        };
        let done = set();
        trapped((done, state))
    }

    fn fire(
        &mut self,
        domain: TimerDomain,
        (names, at): (&ColumnOut, &[i64]),
        mut state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        let mut out = BatchOut { timestamps: Some(Vec::new()), ..BatchOut::default() };
        let (mut keys, mut values) = (SlicesOut::default(), SlicesOut::default());
        let mut fire = || {
            for (i, at) in at.iter().enumerate() {
                let name = names.get(i).unwrap();
                let text = String::from_utf8(name.to_vec()).unwrap();
                let (key, by) = text.split_once(':').unwrap();
                match by {
                    "bad" => return Err(Refused("a bad timer".to_owned())),
                    // For a time that has passed.
                    "again" if *at < 100 => state.set_timers(domain, column(name).as_in(), &[*at + 1])?,
                    _ => {}
                }
                let value = if by == "large" { "big".to_owned() } else { format!("{by} due {at}") };
                for (slices, field) in [(&mut keys, key), (&mut values, &value)] {
                    slices.offsets.push(out.data.len() as u32);
                    slices.lengths.push(field.len() as u32);
                    out.data.extend_from_slice(field.as_bytes());
                }
                out.source.push(NO_SOURCE);
                out.timestamps.get_or_insert_default().push(*at);
            }
            Ok(())
        };
        let fired = fire();
        (out.keys, out.values) = (Some(keys), Some(values));
        trapped((fired.map(|()| out), state))
    }
}

fn manifest(on_error: &str) -> String {
    format!(
        "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='timers'\non_error={on_error}\n\
         [[sink]]\nfrom='n'\ntopic='out'\n"
    )
}

/// Also where a batch spans many timers that its own records set and move.
#[test]
fn they_fire_before_the_record_that_brings_time_there() {
    let rows = ["a=x@0", "b=x@5", "a=x@9", "c=x@15", "a=cancel@18", "b=x@40", "b=x@30", "b=x@60", "b=x@61"];
    let expect = [
        "out: a=x@0",
        "out: b=x@5",
        "out: a=x@9",
        "out: b=x due 15@15",
        "out: c=x@15",
        "out: a=cancel@18",
        "out: c=x due 25@25",
        "out: b=x@40",
        "out: b=x@30",
        "out: b=x due 40@40",
        "out: b=x@60",
        "out: b=x@61",
    ];
    check(&manifest("{policy='fail'}"), &[("in", &rows)], &expect);
}

/// No round goes on for ever: a timer that is set again for a time that has passed fires with the next record.
#[test]
fn one_that_is_set_again_does_not_hold_up_records() {
    let rows = ["a=again@0", "b=x@50", "b=x@51", "b=x@52"];
    let expect = [
        "out: a=again@0",
        "out: a=again due 10@10",
        "out: b=x@50",
        "out: a=again due 11@11",
        "out: b=x@51",
        "out: a=again due 12@12",
        "out: b=x@52",
    ];
    check(&manifest("{policy='fail'}"), &[("in", &rows)], &expect);
}

#[test]
fn operators_behind_them_count_what_they_emit() {
    let manifest = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='timers'\nkeeps_key=true\n\
        [[node]]\nid='c'\nfrom='n'\naggregate='count'\n[[sink]]\nfrom='c'\ntopic='out'\n";
    let rows = ["a=x@0", "b=x@30", "a=x@31", "b=x@50"];
    let expect = [
        "out: a=1@0",
        "out: a=2@10",
        "out: b=1@30",
        "out: a=3@31",
        "out: b=2@40",
        "out: a=4@41",
        "out: b=3@50",
    ];
    check(manifest, &[("in", &rows)], &expect);
}

/// Of those that fire together the one that fails is left out, or stops the pipeline; what a topic does not take is left out.
#[test]
fn one_that_fails_goes_by_the_policy() {
    let rows = ["a=x@0", "b=bad@0", "c=x@0", "d=x@20"];
    let expect = [
        "out: a=x@0",
        "out: b=bad@0",
        "out: c=x@0",
        "out: a=x due 10@10",
        "out: c=x due 10@10",
        "out: d=x@20",
    ];
    let notices = check(&manifest("{policy='skip'}"), &[("in", &rows)], &expect);
    let notice = "Skipped node `n` failed at topic in, partition 0, offset 3: its timer `b:bad` fires: the plugin trapped: a bad timer";
    assert_eq!(notices, [notice]);
    let inputs = [("in", &rows[..])];
    let mut lab = Lab::new(&linked(&manifest("{policy='fail'}")), &inputs);
    let failure = lab.run(None).unwrap_err();
    assert!(
        failure.ends_with("offset 3: its timer `b:bad` fires: the plugin trapped: a bad timer"),
        "{failure}"
    );
    let rows = ["a=x@0", "b=large@1", "d=x@20", "e=x@21"];
    let expect = ["out: a=x@0", "out: b=large@1", "out: d=x@20", "out: e=x@21"];
    let notices = check_with(&[CLOSED_AT_ONCE], &manifest("{policy='skip'}"), &[("in", &rows)], &expect);
    assert_eq!(notices.len(), 1, "{notices:?}");
}

#[test]
fn the_clock_needs_no_records() {
    let rows = ["a=clock@0", "b=bad@0", "c=clock@500"];
    let inputs = [("in", &rows[..])];
    let mut lab = Lab::new(&linked(&manifest("{policy='skip'}")), &inputs);
    lab.tick(100).unwrap();
    lab.run(None).unwrap();
    let emitted = |lab: &mut Lab<'_>| std::mem::take(&mut lab.topics.taken);
    emitted(&mut lab);
    assert_eq!(lab.tick(109), Ok(Vec::new()));
    assert_eq!(emitted(&mut lab), [""; 0]);
    // They are kept: a new task has them.
    lab.commit(true);
    lab.abort();
    lab.tick(110).unwrap();
    assert_eq!(emitted(&mut lab), ["out: a=clock due 110@110", "out: c=clock due 110@110"]);
    assert_eq!(lab.task.next_tick(), Ok(None));
    lab.tick(1_000).unwrap();
    assert_eq!(emitted(&mut lab), [""; 0]);
    // What has fired and was not committed fires again.
    lab.committed.1 = 0;
    lab.abort();
    lab.tick(2_000).unwrap();
    assert_eq!(emitted(&mut lab).len(), 2);
    lab.commit(false);
    lab.abort();
    assert_eq!(lab.task.next_tick(), Ok(None));
}
