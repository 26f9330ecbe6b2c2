use bytes::Bytes;

use super::*;

/// A row `key=set:at` sets a timer of that name, `key=clock:at` one on the clock, `key=cancel:` takes it away. What
/// fires is emitted.
struct Commands;

impl TimerFunction for Commands {
    fn row(
        &mut self,
        row: &Row,
        timers: &mut TimerSetter,
        emit: &mut dyn FnMut(usize, Row),
    ) -> Result<(), OperatorError> {
        let name = row.key.clone().unwrap();
        let text = std::str::from_utf8(row.value.as_ref().unwrap()).unwrap().to_owned();
        let (command, at) = text.split_once(':').unwrap();
        match command {
            "set" => timers.set(Timer { domain: TimerDomain::StreamTime, at: at.parse().unwrap(), name }),
            "clock" => timers.set(Timer { domain: TimerDomain::WallClock, at: at.parse().unwrap(), name }),
            _ => timers.cancel(TimerDomain::StreamTime, name),
        }
        emit(0, row.clone());
        Ok(())
    }

    fn fire(
        &mut self,
        timer: &Timer,
        timers: &mut TimerSetter,
        emit: &mut dyn FnMut(usize, Row),
    ) -> Result<(), OperatorError> {
        let value = Bytes::from(format!("fired {}", timer.at));
        emit(
            0,
            Row { key: Some(timer.name.clone()), value: Some(value), timestamp: timer.at, ..Row::default() },
        );
        if timer.name == "again" {
            timers.set(Timer { at: timer.at + 1, ..timer.clone() });
        }
        Ok(())
    }
}

fn node() -> Box<dyn Operator> {
    Box::new(TimerNode::new(0, Box::new(Commands)))
}

#[test]
fn timers_fire_before_the_row_that_brings_their_time() {
    check(
        &node,
        &[true],
        &[
            ("b=set:20@10", &["b=set:20@10"]),
            ("a=set:20@10", &["a=set:20@10"]),
            ("c=set:15@10", &["c=set:15@10"]),
            ("d=set:19@10", &["d=set:19@10"]),
            ("d=cancel:@10", &["d=cancel:@10"]),
            // Moved.
            ("c=set:30@12", &["c=set:30@12"]),
            ("x=set:99@20", &["a=fired 20@20", "b=fired 20@20", "x=set:99@20"]),
            // For a time that has passed: with the next row.
            ("again=set:3@20", &["again=set:3@20"]),
            ("y=cancel:@5", &["again=fired 3@3", "y=cancel:@5"]),
            ("again=cancel:@-1", &["again=fired 4@4", "again=cancel:@-1"]),
            ("y=cancel:@5", &["y=cancel:@5"]),
            ("y=cancel:@500", &["c=fired 30@30", "x=fired 99@99", "y=cancel:@500"]),
        ],
    );
}

#[test]
fn timers_on_the_clock_fire_at_ticks() {
    let mut rig = Rig::new(&node, &[true]);
    rig.give(0, &[testing::row("a=clock:1000@99999"), testing::row("again=clock:900@0")]).unwrap();
    let tick = |rig: &mut Rig<'_>, now| rig.tick(now).unwrap().iter().map(show).collect::<Vec<_>>();
    assert_eq!(tick(&mut rig, 899), [""; 0]);
    rig.restart(0);
    assert_eq!(tick(&mut rig, 1000), ["again=fired 900@900", "a=fired 1000@1000"]);
    assert_eq!(tick(&mut rig, 1000), ["again=fired 901@901"]);
    assert_eq!(tick(&mut rig, 899), [""; 0]);
}
