//! Plugins that keep something: what they have written is there if and only if what they emitted is.

use super::graph::{Lab, check, linked};
use super::*;
use crate::node_state::{ColumnIn, NodeState, Refused};

/// Counts the records of each key in the store `seen`, and emits the counts. It reads its orders from the values: `trap` and
/// `reject` fail the call when everything is written, `stray` uses a store that the node does not have, `all` emits the store,
/// `clear` empties it, `much` writes more than a call may.
pub(super) struct Keeper;

impl Plugin for Keeper {
    fn process(&mut self, _: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        unreachable!("it is called with its stores")
    }

    fn process_with(
        &mut self,
        batch: &BatchIn<'_>,
        mut state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        let answer = keep(batch, &mut state);
        (answer.map_err(|Trap(error)| error), state)
    }
}

struct Trap(PluginError);

impl From<Refused> for Trap {
    fn from(refused: Refused) -> Trap {
        Trap(PluginError::Trapped { trap: refused.0, said: None })
    }
}

fn one<'a>(field: &'a [u8], length: &'a [u32; 1]) -> ColumnIn<'a> {
    ColumnIn { data: field, fields: crate::batch::SlicesIn { offsets: &[0], lengths: length } }
}

fn keep(batch: &BatchIn<'_>, state: &mut NodeState) -> Result<BatchOut, Trap> {
    let (mut out, mut values, mut rejected) = (BatchOut::default(), Vec::new(), Vec::new());
    for (i, record) in (0..).zip(batch.records()) {
        let key = record.key.unwrap_or_default();
        let key_length = [key.len() as u32];
        let before = state.get("seen", one(key, &key_length))?;
        let before =
            before.get(0).map_or(0, |text| std::str::from_utf8(text).unwrap().parse::<u32>().unwrap());
        let n = (before + 1).to_string();
        state.put("seen", one(key, &key_length), one(n.as_bytes(), &[n.len() as u32]))?;
        values.push(match record.value.unwrap_or_default() {
            b"trap" => return Err(Refused("told to".to_owned()).into()),
            b"reject" => {
                rejected.push(Rejection { index: i, reason: "told to".to_owned() });
                continue;
            }
            b"stray" => {
                state.get("sene", one(key, &key_length))?;
                continue;
            }
            b"much" => {
                let much = vec![0; 2000];
                state.put("seen", one(key, &key_length), one(&much, &[2000]))?;
                continue;
            }
            b"clear" => {
                assert!(!state.delete_range("seen", (&[], None), 100)?);
                "cleared".to_owned()
            }
            b"all" => {
                let found = state.range("seen", (&[], None), false, 100)?;
                let text = |i| {
                    String::from_utf8([found.keys.get(i).unwrap(), found.values.get(i).unwrap()].concat())
                        .unwrap()
                };
                (0..found.keys.len()).map(text).collect::<Vec<_>>().join(" ")
            }
            b"big" => format!("big{n}"),
            _ => n,
        });
        out.source.push(i);
    }
    if !rejected.is_empty() {
        return Err(Trap(PluginError::Reject(rejected)));
    }
    let values: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
    let (offsets, lengths) = slices(&values, batch.data.len());
    out.data = values.concat();
    out.values = Some(SlicesOut { offsets, lengths });
    Ok(out)
}

fn manifest(on_error: &str) -> String {
    format!(
        "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='p'\nstores={{seen={{}}}}\n\
         limits={{state='2 KiB'}}\non_error={on_error}\n[[sink]]\nfrom='n'\ntopic='out'\n"
    )
}

#[test]
fn what_a_call_writes_counts_if_its_output_does() {
    let rows = ["a=x@1", "b=x@2", "a=trap@3", "a=x@4", "b=reject@5", "a=big@6", "b=x@7", "a=all@8", "a=x@9"];
    let expect = ["out: a=1@1", "out: b=1@2", "out: a=2@4", "out: b=2@7", "out: a=a3 b2@8", "out: a=4@9"];
    let notices = check(&manifest("{policy='skip'}"), &[("in", &rows)], &expect);
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(notices[0].ends_with("offset 2: the plugin trapped: told to"), "{notices:?}");
}

#[test]
fn entries_that_are_deleted_are_gone() {
    let rows = ["a=x@1", "b=x@2", "c=clear@3", "b=x@4", "b=all@5"];
    let expect = ["out: a=1@1", "out: b=1@2", "out: c=cleared@3", "out: b=1@4", "out: b=b2@5"];
    check(&manifest("{policy='fail'}"), &[("in", &rows)], &expect);
}

#[test]
fn what_a_call_may_not_do_traps_it() {
    let fails = |row: &str, expect: &str| {
        let rows = ["a=x@1", row];
        let inputs = [("in", &rows[..])];
        let mut lab = Lab::new(&linked(&manifest("{policy='fail'}")), &inputs);
        let failure = lab.run(None).unwrap_err();
        assert_eq!(
            failure,
            format!("node `n` failed at topic in, partition 0, offset 1: the plugin trapped: {expect}")
        );
        lab.commit(true);
        assert_eq!((lab.topics.taken.len(), lab.changelogs[0].len()), (1, 1));
    };
    fails(
        "a=stray@2",
        "it uses the store `sene`, which its node is not given (it has `seen`): add it to `stores` in pipeline.toml",
    );
    fails("b=much@2", "it writes more than 2048 bytes to its stores in one call (limits.state)");
}

/// A plugin with state before, behind and beside operators: each has what the records that reach it make.
#[test]
fn plugins_with_state_and_operators_follow_each_other() {
    let manifest = "[[source]]\nid='in'\ntopic='in'\n\
        [[node]]\nid='n'\nfrom='in'\nplugin='p'\nkeeps_key=true\nstores={seen={}}\n\
        [[node]]\nid='c'\nfrom='n'\naggregate='max:raw'\n\
        [[node]]\nid='m'\nfrom='c'\nplugin='p'\nstores={seen={}}\n\
        [[sink]]\nfrom='n'\ntopic='numbers'\n[[sink]]\nfrom='m'\ntopic='out'\n";
    let rows = ["a=x@1", "b=x@2", "a=x@3"];
    let expect =
        ["numbers: a=1@1", "numbers: b=1@2", "numbers: a=2@3", "out: a=1@1", "out: b=1@2", "out: a=2@3"];
    check(manifest, &[("in", &rows)], &expect);
}
