//! Topics that come and go.

use super::*;

impl World {
    fn delete_input(&mut self) {
        self.created = None;
        self.input.clear();
        self.ends.clear();
        self.committed.clear();
    }
}

/// A topic that is deleted and created again is read from its beginning, with the driver as it is and by itself.
#[test]
fn a_topic_that_is_created_again_is_read_again() {
    let delete: fn(&mut World) = World::delete_input;
    let create: fn(&mut World) = |world| {
        world.created = Some(2);
        world.produce(0, &["new"]);
    };
    let at_once: fn(&mut World) = |world| {
        world.delete_input();
        world.created = Some(2);
        world.produce(0, &["new"]);
    };
    for (start, events, states) in [
        ("earliest", vec![delete, |_| {}, create], 2),
        ("latest", vec![delete, |_| {}, create], 2),
        ("earliest", vec![at_once], 1),
        ("latest", vec![at_once], 1),
    ] {
        for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
            let world = world(&[(0, &[])]);
            let more: fn(&mut World) = |world| world.produce(0, &["a", "b", "c"]);
            world.lock().at_rest = [&[more][..], &events].concat();
            let (result, board) = run_from(start, guarantee, &world, FAIL);
            result.unwrap();
            assert_eq!(world.lock().values(), ["a", "b", "c", "new"], "{start} {guarantee:?}");
            assert_eq!(world.lock().committed, BTreeMap::from([(0, 1)]), "of the new topic alone");
            let status = board.snapshot();
            assert_eq!((status.state, status.failure, status.tasks.len()), (PipelineState::Running, None, 1));
            let lines: Vec<String> = board.log_since(0).0.into_iter().map(|line| line.line.text).collect();
            let says = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
            assert_eq!((says("was deleted"), says("was created again")), (1, 1), "{lines:?}");
            assert_eq!(says("does not exist") > 0, states == 2, "{lines:?}");
        }
    }
}

/// What was made of records before their topic went away is committed, with the offsets of the others.
#[test]
fn outputs_outlive_the_topic_that_they_come_from() {
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        let world = world(&[(0, &["a"]), (1, &["b"])]);
        // A commit is in flight when the topic goes.
        world.lock().slow_commits = true;
        world.lock().at_rest = vec![World::delete_input, |_| {}];
        let (result, board) = run_from("earliest", guarantee, &world, FAIL);
        result.unwrap();
        let mut values = world.lock().values();
        values.sort();
        assert_eq!(values, ["a", "b"]);
        let status = board.snapshot();
        assert_eq!((status.state, status.tasks.len()), (PipelineState::Retrying, 0));
        let failure = status.failure.unwrap();
        assert_eq!((failure.kind, failure.topic.as_deref()), ("no-topic", Some("in")), "{failure:?}");
    }
}

#[test]
fn a_pipeline_waits_for_its_topics() {
    let world = world(&[]);
    world.lock().no_output = true;
    let (result, _) = run(&world, FAIL);
    let error = result.unwrap_err();
    assert!(error.is_transient() && error.waits_for_topic(), "{error}");
    assert_eq!(error.status(9).kind, "no-topic");
    // A source that is not there is waited for by the driver itself.
    world.lock().no_output = false;
    world.lock().created = None;
    let create: fn(&mut World) = |world| {
        world.created = Some(1);
        world.produce(0, &["a"]);
    };
    world.lock().at_rest = vec![|_| {}, create];
    let (result, board) = run(&world, FAIL);
    result.unwrap();
    assert_eq!(world.lock().values(), ["a"]);
    assert_eq!(board.state(), PipelineState::Running);
}
