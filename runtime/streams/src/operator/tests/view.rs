use super::aggregate::Aggregator;
use super::*;
use crate::operator::view;
use crate::state::StateReader;

fn shown(
    reader: &dyn StateReader,
    spec: &WindowSpec,
    closing: &Closing,
    key: &str,
    starts: (i64, i64),
) -> Vec<String> {
    let view = reader.view().unwrap();
    let found = view::windows(&*view, 0, spec, closing, key.as_bytes(), starts.0..=starts.1).unwrap();
    let mut aggregator: Box<dyn Aggregator> = concat();
    let show = |one: &view::FoundWindow| {
        let mut value = Vec::new();
        assert!(aggregator.result(b"", &one.state, &mut value).unwrap());
        format!("[{},{}]={}@{}", one.window.start, one.window.end, value.escape_ascii(), one.timestamp)
    };
    found.iter().map(show).collect::<Vec<_>>()
}

/// Open windows and closed ones for as long as they are kept, however far cleaning has got.
#[test]
fn windows_of_a_key() {
    let specs = [
        WindowSpec::Hopping { size_ms: 10, advance_ms: 10 },
        WindowSpec::Sliding { size_ms: 10 },
        WindowSpec::Session { gap_ms: 4 },
    ];
    let kept = [
        [vec!["[0,10]=p,q@9", "[10,20]=r@10", "[30,40]=s@30"], vec!["[30,40]=s@30"]],
        [vec!["[0,10]=p,q,r@10", "[3,13]=q,r@10", "[10,20]=r@10", "[20,30]=s@30"], vec!["[20,30]=s@30"]],
        [vec!["[2,2]=p@2", "[9,10]=q,r@10", "[30,30]=s@30"], vec!["[30,30]=s@30"]],
    ];
    for (spec, kept) in specs.into_iter().zip(kept) {
        for emit in [Emit::OnUpdate, Emit::OnClose] {
            for cleans in [false, true] {
                let closing = Closing { grace_ms: 0, emit, late: Late::Drop, retention_ms: 100 };
                let make = || -> Box<dyn Operator> {
                    match spec {
                        WindowSpec::Hopping { size_ms, advance_ms } => {
                            Box::new(TimeWindows::new(0, (size_ms, advance_ms), closing, concat(), false))
                        }
                        WindowSpec::Sliding { size_ms } => {
                            Box::new(SlidingWindows::new(0, size_ms, closing, concat(), false))
                        }
                        WindowSpec::Session { gap_ms } => {
                            Box::new(Sessions::new(0, gap_ms, closing, concat(), false))
                        }
                    }
                };
                let mut rig = Rig::new(&make, &[true]);
                let read = |rig: &mut Rig<'_>, key: &str, starts| {
                    while cleans && rig.maintain(1).unwrap() {}
                    rig.commit(true);
                    shown(&*rig.reader(), &spec, &closing, key, starts)
                };
                let all = (0, i64::MAX);
                assert_eq!(read(&mut rig, "a", all), [""; 0]);
                rig.run(&rows(&["a=p@2", "a=q@9", "ab=x@9", "a=r@10", "a=s@30", "b=t@60"])).unwrap();
                assert_eq!(read(&mut rig, "a", all), kept[0], "{spec:?} {emit:?}");
                assert_eq!(read(&mut rig, "a", (15, 30)), kept[1], "{spec:?} {emit:?}");
                rig.run(&rows(&["b=t@125"])).unwrap();
                let still: Vec<_> = kept[0].iter().filter(|text| text.ends_with("@30")).collect();
                let seen = read(&mut rig, "a", all);
                assert_eq!(seen.last().unwrap(), still[0], "{spec:?} {emit:?} {seen:?}");
                rig.run(&rows(&["b=t@999"])).unwrap();
                assert_eq!(read(&mut rig, "a", all), [""; 0], "{spec:?} {emit:?}");
            }
        }
    }
}

#[test]
fn the_value_of_a_key() {
    let make = || -> Box<dyn Operator> { Box::new(Table::new(0, false)) };
    let mut rig = Rig::new(&make, &[false]);
    rig.run(&rows(&["a=x@7"])).unwrap();
    rig.commit(true);
    let reader = rig.reader();
    let view = reader.view().unwrap();
    let expect = view::Found { timestamp: 7, value: bytes::Bytes::from_static(b"x") };
    assert_eq!(view::get(&*view, 0, b"a").unwrap(), Some(expect));
    assert_eq!(view::get(&*view, 0, b"b").unwrap(), None);
}
