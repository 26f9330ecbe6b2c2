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
    let all = |limit| {
        let (mut found, mut from) = (Vec::new(), starts.0);
        loop {
            let range = from..=starts.1;
            let page = view::windows(&*view, 0, (spec, closing), key.as_bytes(), range, limit).unwrap();
            assert!(page.windows.len() <= limit);
            found.extend(page.windows);
            match page.next {
                Some(next) => from = next,
                None => return found,
            }
        }
    };
    let found = all(1_000);
    for limit in 1..=found.len() + 1 {
        assert_eq!(all(limit), found, "pages of {limit}");
    }
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

/// Who asks for a key is not answered from a million places at once.
#[test]
fn a_long_time_is_looked_through_in_parts() {
    let spec = WindowSpec::Hopping { size_ms: 1, advance_ms: 1 };
    let closing =
        Closing { grace_ms: 0, emit: Emit::OnUpdate, late: Late::Drop, retention_ms: 1_000_000_000 };
    let make = || -> Box<dyn Operator> { Box::new(TimeWindows::new(0, (1, 1), closing, concat(), false)) };
    let mut rig = Rig::new(&make, &[true]);
    let last = 2 * view::LOOKED_AT_MAX as i64;
    rig.run(&rows(&["a=p@5", &format!("a=q@{last}")])).unwrap();
    rig.commit(true);
    let reader = rig.reader();
    let view = reader.view().unwrap();
    let find = |from| view::windows(&*view, 0, (&spec, &closing), b"a", from..=i64::MAX, 10).unwrap();
    let first = find(0);
    assert_eq!((first.windows.len(), first.next), (1, Some(view::LOOKED_AT_MAX as i64)));
    let second = find(view::LOOKED_AT_MAX as i64);
    assert_eq!((second.windows.len(), second.next), (0, Some(last)));
    let third = find(last);
    assert_eq!((third.windows[0].window.start, third.next), (last, None));
    for from in [last + 1, i64::MAX] {
        assert_eq!(find(from), view::WindowsFound::default(), "{from}");
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
