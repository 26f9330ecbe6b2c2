//! What a log of deployments says, whatever is left of it.

use super::*;

fn replay(state: &mut Deployments, records: &[DeploymentRecord]) {
    for (offset, (key, value)) in (0..).zip(records) {
        state.apply(offset, key.as_bytes(), value.as_deref()).unwrap();
    }
}

/// Reads a component out of records that are a log from offset 0 on.
fn assemble(stored: &StoredComponent, log: &[DeploymentRecord]) -> Result<Vec<u8>, BadRecord> {
    stored.assemble(|range, each| {
        for (offset, (_, value)) in (0..).zip(log).filter(|(offset, _)| range.contains(offset)) {
            each(offset, value.as_deref().unwrap());
        }
        Ok(())
    })
}

fn revision(manifest: &str) -> Revision {
    Revision {
        manifest: manifest.to_owned(),
        plugins: BTreeMap::new(),
        deployed_at_ms: 1,
        rolled_back_to: None,
    }
}

fn table(topic: &str) -> TableDefinition {
    let json = format!(
        r#"{{"topic":"{topic}","scope":"global","partitioner":"unknown","store":"memory","value":"raw","partitions":1,"created_at_ms":1}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn plugin(component: &Bytes) -> PluginRecord {
    PluginRecord {
        bytes: component.len() as u64,
        chunks: chunks(component.len()),
        pushed_at_ms: 5,
        name: Some("shout".to_owned()),
        version: None,
        world: "transform".to_owned(),
        signature: None,
        trial: false,
        deployed: false,
    }
}

#[test]
fn a_component_comes_back_out_of_its_chunks() {
    for bytes in [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        let component: Bytes = (0..bytes).map(|i| (i % 251) as u8).collect();
        let digest = Digest::new([7; 32]);
        let mut state = Deployments::default();
        let records = state.push(&digest, &plugin(&component), &component);
        for (offset, (key, value)) in (0..).zip(&records) {
            assert_eq!(state.component(&digest.hex()), None, "not before the last record");
            state.apply(offset, key.as_bytes(), value.as_deref()).unwrap();
        }
        let stored = state.component(&digest.hex()).unwrap();
        assert_eq!(assemble(&stored, &records).as_deref(), Ok(&component[..]));
        let mut damaged = records.clone();
        damaged[0].1 = Some(Bytes::from_static(b"less"));
        assert!(assemble(&stored, &damaged).unwrap_err().to_string().contains(&digest.hex()), "{bytes}");
        assert_eq!(state.newest("shout"), Some(digest.hex().as_str()));
        assert_eq!(state.push(&digest, &plugin(&component), &component), [], "known already");
    }
}

#[test]
fn a_name_means_what_was_pushed_last_under_it() {
    let mut state = Deployments::default();
    let [first, second] = [1, 2].map(|byte| (Digest::new([byte; 32]), Bytes::from(vec![byte])));
    let mut offset = 0;
    let mut push = |state: &mut Deployments, (digest, component): &(Digest, Bytes), at_ms: i64| {
        let record = PluginRecord { pushed_at_ms: at_ms, ..plugin(component) };
        let records = state.push(digest, &record, component);
        for (key, value) in &records {
            state.apply(offset, key.as_bytes(), value.as_deref()).unwrap();
            offset += 1;
        }
        assert_eq!(state.newest("shout"), Some(digest.hex().as_str()));
        assert!(state.component(&digest.hex()).is_some());
        records.len()
    };
    assert_eq!(push(&mut state, &first, 5), 2, "a chunk and a record");
    // A clock that stands still, or goes back, changes nothing of the order.
    assert_eq!(push(&mut state, &second, 5), 2);
    assert_eq!(push(&mut state, &first, 3), 1, "the bytes are there");
    assert_eq!(push(&mut state, &first, 9), 0, "its name means it already");
    assert_eq!(push(&mut state, &second, 9), 1);
    let stored = state.component(&first.0.hex()).unwrap();
    assert_eq!(stored.chunks, [0], "where the bytes are has not changed");
    // That a revision named it once is still known.
    let plugins = BTreeMap::from([("n".to_owned(), first.0.to_string())]);
    let (_, records) = state.deploy("p", &Revision { plugins, ..revision("m") });
    for (key, value) in &records {
        state.apply(100, key.as_bytes(), value.as_deref()).unwrap();
    }
    assert_eq!(push(&mut state, &first, 9), 1);
    assert!(state.plugins()[&first.0.hex()].deployed);
}

#[test]
fn a_damaged_component_is_not_given_out() {
    let component = Bytes::from(vec![1; CHUNK_BYTES + 1]);
    let digest = Digest::new([7; 32]);
    let mut state = Deployments::default();
    let mut records = state.push(&digest, &plugin(&component), &component);
    records.remove(1);
    replay(&mut state, &records);
    assert_eq!(state.component(&digest.hex()), None);
}

#[test]
fn the_last_ten_revisions_are_kept() {
    let mut state = Deployments::default();
    for number in 1..=25 {
        let (given, records) = state.deploy("p", &revision(&number.to_string()));
        assert_eq!(given, number);
        replay(&mut state, &records);
        assert_eq!(state.pipeline("p").unwrap().live, Some(Live { revision: number, paused: false }));
        assert!(state.pipeline("p").unwrap().revisions.len() <= KEPT_REVISIONS);
    }
    let kept: Vec<u64> = state.pipeline("p").unwrap().revisions.keys().copied().collect();
    assert_eq!(kept, (16..=25).collect::<Vec<_>>());
    assert_eq!(state.live().map(|(_, _, revision)| revision.manifest.as_str()).collect::<Vec<_>>(), ["25"]);
}

#[test]
fn pause_resume_and_delete_survive_a_replay_of_every_prefix() {
    let mut state = Deployments::default();
    let (_, records) = state.deploy("p", &revision("a"));
    replay(&mut state, &records);
    let pause = state.set_paused("p", true).unwrap();
    replay(&mut state, &pause);
    assert!(state.pipeline("p").unwrap().live.unwrap().paused);
    let delete = state.delete("p").unwrap();
    replay(&mut state, &delete[..1]);
    assert_eq!(state.live().count(), 0, "nothing runs after the first record of a delete");
    replay(&mut state, &delete[1..]);
    assert_eq!(state, Deployments::default());
    assert_eq!(state.set_paused("p", true), None);
    assert_eq!(state.delete("p"), None);
}

#[test]
fn a_record_that_cannot_be_read_names_its_key() {
    let check = |key: &[u8], value: &[u8]| {
        let error = Deployments::default().apply(0, key, Some(value)).unwrap_err().to_string();
        assert!(error.contains(&*String::from_utf8_lossy(key)), "{error}");
    };
    check(b"pipeline/p", b"{");
    check(b"pipeline/p/x", b"{}");
    check(b"plugin/d", b"[]");
    check(b"plugin/d/-1", b"");
    check(b"table/t", br#"{"topic":"t"}"#);
    assert_eq!(Deployments::default().apply(0, b"future/thing", Some(b"?")), Ok(()));
}

/// What a replay of a log says, which begins at `start`.
fn replay_log(log: &[DeploymentRecord], start: i64) -> Result<Deployments, BadRecord> {
    let mut replay = Replay::default();
    let kept = (0..).zip(log).filter(|(offset, _)| *offset >= start);
    kept.for_each(|(offset, (key, value))| replay.take(offset, key.as_bytes(), value.as_deref()));
    replay.finish()
}

#[test]
fn a_replay_passes_over_nothing_that_still_counts() {
    let bad = |key: &str| (key.to_owned(), Some(Bytes::from_static(b"{")));
    let (_, good) = Deployments::default().deploy("p", &revision("a"));
    let mended: Vec<_> = [bad("pipeline/p/1"), bad("pipeline/p")].into_iter().chain(good.clone()).collect();
    assert_eq!(replay_log(&mended, 0).unwrap().live().count(), 1, "a later record took their place");
    let deleted = [bad("plugin/d"), ("plugin/d".to_owned(), None)];
    assert_eq!(replay_log(&deleted, 0), Ok(Deployments::default()));
    for (log, key) in [
        (vec![good[0].clone(), good[1].clone(), bad("pipeline/p")], "pipeline/p"),
        (vec![bad("plugin/d"), good[0].clone(), good[1].clone()], "plugin/d"),
        // Its revision is not there.
        (vec![good[1].clone()], "pipeline/p"),
    ] {
        let error = replay_log(&log, 0).unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.to_string().contains("restore"), "says what to do: {error}");
    }
}

/// A log with its state, as the supervisor keeps them.
#[derive(Default)]
struct Log {
    records: Vec<DeploymentRecord>,
    state: Deployments,
}

impl Log {
    fn append(&mut self, records: Vec<DeploymentRecord>) {
        for (key, value) in records {
            let offset = self.records.len() as i64;
            self.state.apply(offset, key.as_bytes(), value.as_deref()).unwrap();
            self.records.push((key, value));
        }
    }

    /// A component of this number is pushed under a name, later than those of lower numbers.
    fn push(&mut self, number: u8, name: &str) -> Digest {
        self.push_as(number, name, false, CHUNK_BYTES + 1)
    }

    fn push_as(&mut self, number: u8, name: &str, trial: bool, bytes: usize) -> Digest {
        let component = Bytes::from(vec![number; bytes]);
        let digest = Digest::new([number; 32]);
        let record = PluginRecord {
            name: Some(name.to_owned()),
            pushed_at_ms: number.into(),
            trial,
            ..plugin(&component)
        };
        self.append(self.state.push(&digest, &record, &component));
        digest
    }

    fn deploy(&mut self, pipeline: &str, digest: Digest) {
        let plugins = BTreeMap::from([("n".to_owned(), digest.to_string())]);
        self.append(self.state.deploy(pipeline, &Revision { plugins, ..revision("m") }).1);
    }

    fn unused(&self) -> Vec<Digest> {
        self.state.unused(|_| false)
    }

    fn component(&self, digest: &Digest) -> Bytes {
        assemble(&self.state.component(&digest.hex()).unwrap(), &self.records).unwrap().into()
    }

    /// What the supervisor writes.
    fn snapshot(&mut self) {
        let (components, records) = self.state.snapshot().unwrap();
        for stored in components {
            let component = assemble(&stored, &self.records).unwrap().into();
            self.append(self.state.rewrite(&stored, &component));
        }
        self.append(records);
    }
}

#[test]
fn a_component_goes_when_nobody_can_deploy_or_roll_back_to_it() {
    let mut log = Log::default();
    let digests: Vec<Digest> = (1..=12).map(|number| log.push(number, "shout")).collect();
    let spare = log.push(20, "spare");
    assert_eq!(log.unused(), [], "never deployed: somebody may");
    for digest in &digests[..11] {
        log.deploy("p", *digest);
    }
    assert_eq!(log.unused(), [digests[0]], "its revision is not kept any more");
    assert_eq!(log.state.unused(|digest| *digest == digests[0]), [], "a change under way wants it");
    log.deploy("q", digests[0]);
    assert_eq!(log.unused(), [], "another pipeline has it");
    log.deploy("q", spare);
    log.append(log.state.delete("q").unwrap());
    assert_eq!(log.unused(), [digests[0]], "a manifest that says `spare` means the newest");
    let remove = log.state.remove(&digests[0]);
    for kept in 1..=remove.len() {
        let mut crashed = log.records.clone();
        crashed.extend_from_slice(&remove[..kept]);
        assert_eq!(replay_log(&crashed, 0).unwrap().component(&digests[0].hex()), None);
    }
    log.append(remove);
    assert_eq!(log.unused(), []);
    assert_eq!(log.state.component(&digests[0].hex()), None);
    assert!(log.state.chunks.keys().all(|(hex, _)| *hex != digests[0].hex()));
    assert_eq!(log.push(1, "shout"), digests[0], "it can be pushed again");
    assert!(log.state.component(&digests[0].hex()).is_some());
}

#[test]
fn a_snapshot_says_the_same_whenever_a_crash_comes() {
    let mut log = Log::default();
    let digests: Vec<Digest> = (1..=12).map(|number| log.push(number, "shout")).collect();
    digests.iter().for_each(|digest| log.deploy("p", *digest));
    log.append(log.state.set_paused("p", true).unwrap());
    log.deploy("q", digests[11]);
    for (name, definition) in [("t", Some(table("a"))), ("u", Some(table("b"))), ("u", None)] {
        log.append(vec![table_record(name, definition.as_ref())]);
    }
    let stores = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "count".to_owned())).collect();
    log.append(log.state.keep_stores("gone", stores(&["n"])).into_iter().collect());
    log.append(log.state.keep_stores("gone", stores(&["m"])).into_iter().collect());
    assert_eq!(log.state.keep_stores("gone", stores(&["n"])), None, "that is known");
    let offsets = |offset| Offsets::from([("t".to_owned(), BTreeMap::from([(0, offset)]))]);
    log.append(log.state.leave_stores("gone", |store| store == "n", &offsets(7)).into_iter().collect());
    assert_eq!(log.state.leave_stores("gone", |store| store == "n", &offsets(9)), None, "it is away since 7");
    let topics = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    log.append(log.state.keep_between("gone", topics(&["b"]).iter()).into_iter().collect());
    log.append(log.state.keep_between("gone", topics(&["a"]).iter()).into_iter().collect());
    assert_eq!(log.state.keep_between("gone", topics(&["b"]).iter()), None, "that is known");
    for gone in log.unused() {
        log.append(log.state.remove(&gone));
    }
    let said = |state: &Deployments| {
        let live: Vec<_> = state.live().map(|(name, live, _)| (name.to_owned(), live)).collect();
        let (tables, unused) = (state.tables.clone(), state.unused(|_| false));
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["t"]);
        assert_eq!(state.stores("gone"), Some(&stores(&["m", "n"])));
        let away = Away { revision: 0, offsets: offsets(7) };
        assert_eq!(state.away("gone"), Some(&BTreeMap::from([("m".to_owned(), away)])));
        assert_eq!(state.between("gone"), Some(&topics(&["a", "b"])));
        assert_eq!(state.owner_of_changelog("__pelton_gone-n-changelog", "other"), Some("gone"));
        assert_eq!(state.owner_of_changelog("__pelton_gone-n-changelog", "gone"), None);
        (state.plugins.clone(), state.pipelines.clone(), tables, live, state.bytes(), unused)
    };
    let (before, start) = (said(&log.state), log.records.len());
    log.snapshot();
    for end in start..=log.records.len() {
        assert_eq!(said(&replay_log(&log.records[..end], 0).unwrap()), before, "after {end} records");
    }
    let alone = replay_log(&log.records, start as i64).unwrap();
    assert_eq!(said(&alone), before, "nothing before it is needed");
    let bytes: usize = log.records[start..].iter().filter_map(|(_, value)| Some(value.as_ref()?.len())).sum();
    assert!((bytes as u64) < alone.bytes() && alone.bytes() < bytes as u64 + 40 * RECORD_BYTES);
    for (number, digest) in (3..).zip(&digests[2..]) {
        assert_eq!(log.component(digest), vec![number; CHUNK_BYTES + 1]);
    }
    log.append(vec![("future/thing".to_owned(), Some(Bytes::new()))]);
    assert!(log.state.snapshot().is_none(), "nobody here could write it anew");
}

/// A store that nobody has is away since it went, until somebody has it again or it is forgotten.
#[test]
fn stores_go_and_come_back() {
    let mut log = Log::default();
    let digest = log.push(1, "shout");
    let stores = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "count".to_owned())).collect();
    let offsets = |offset| Offsets::from([("t".to_owned(), BTreeMap::from([(0, offset)]))]);
    let leave = |log: &mut Log, wanted: &[&str], offset| {
        let left = log.state.leave_stores("p", |store| wanted.contains(&store), &offsets(offset));
        log.append(left.into_iter().collect());
    };
    log.append(log.state.keep_stores("p", stores(&["m", "n"])).into_iter().collect());
    log.deploy("p", digest);
    leave(&mut log, &["m", "n"], 3);
    assert_eq!(log.state.away("p"), None);
    leave(&mut log, &["m"], 5);
    log.deploy("p", digest);
    leave(&mut log, &[], 8);
    let away = log.state.away("p").unwrap();
    assert_eq!(away["n"], Away { revision: 1, offsets: offsets(5) });
    assert_eq!(away["m"], Away { revision: 2, offsets: offsets(8) });
    leave(&mut log, &["n"], 9);
    assert_eq!(log.state.away("p").unwrap().keys().collect::<Vec<_>>(), ["m"]);
    log.append(log.state.forget_stores("p"));
    assert_eq!((log.state.away("p"), log.state.stores("p")), (None, None));
}

/// What is pushed for a replay, a shadow or a dry run is known by its digest.
#[test]
fn a_trial_leaves_what_a_name_means_as_it_is() {
    let mut log = Log::default();
    let first = log.push_as(1, "shout", false, 1);
    let tried = log.push_as(2, "shout", true, 1);
    assert_eq!(log.state.newest("shout"), Some(first.hex().as_str()));
    assert!(log.state.component(&tried.hex()).is_some());
    let records = log.records.len();
    log.push_as(2, "shout", true, 1);
    log.push_as(1, "shout", true, 1);
    assert_eq!(log.records.len(), records, "known already");
    assert_eq!(log.state.newest("shout"), Some(first.hex().as_str()));
    log.push_as(2, "shout", false, 1);
    assert_eq!((log.records.len(), log.state.newest("shout")), (records + 1, Some(tried.hex().as_str())));
    log.push_as(2, "shout", true, 1);
    assert_eq!(log.state.newest("shout"), Some(tried.hex().as_str()), "it was pushed to be used");
}

#[test]
fn of_what_was_never_deployed_the_newest_stay() {
    let mut log = Log::default();
    let [most, trials] = [UNDEPLOYED_MAX, TRIALS_MAX].map(|most| u8::try_from(most).unwrap());
    let used: Vec<Digest> = (1..=most + 1).map(|n| log.push_as(n, &format!("p{n}"), false, 1)).collect();
    let tried: Vec<Digest> = (1..=trials + 2).map(|n| log.push_as(most + 1 + n, "t", true, 1)).collect();
    let unused = log.unused();
    assert_eq!(unused, [tried[0], tried[1], used[0]], "the oldest first");
    assert_eq!(log.state.unused(|digest| *digest == tried[0]), [tried[1], used[0]], "a shadow runs it");
    for digest in [tried[0], used[0]] {
        log.deploy("p", digest);
    }
    assert_eq!(log.unused(), [tried[1]], "what was deployed is not one of them");
}
