use super::*;

#[test]
fn a_stop_ends_a_wait_for_the_pace() {
    let stop = Arc::new(Stop::default());
    let (paced, started) = (Arc::clone(&stop), std::sync::mpsc::channel());
    let (begin, begun) = started;
    let waiting = std::thread::spawn(move || {
        let mut pace = Pacer { stop: &paced, bytes_per_second: 1, due: Instant::now() };
        begin.send(()).unwrap();
        // A month's worth.
        pace.spend(2_600_000)
    });
    begun.recv().unwrap();
    stop.set();
    assert!(!waiting.join().unwrap(), "it is told to end");
    let mut unbounded = Pacer { stop: &stop, bytes_per_second: 0, due: Instant::now() };
    assert!(!unbounded.spend(1), "also without a pace");
    let other = Stop::default();
    assert!(Pacer { stop: &other, bytes_per_second: 0, due: Instant::now() }.spend(u64::MAX));
}
