use std::collections::BTreeSet;

use bytes::Bytes;
use pelton_streams::manifest::operator::GlobalOf;
use pelton_streams::{Manifest, PluginFactory};

use super::super::outputs::Wanted;
use super::super::{ALL_MEMORY_MAX, Ending, ReplayRange, ReplaySpec, RunReport, run};
use super::*;
use crate::globals::{
    GlobalCopy, GlobalError, GlobalProgress, GlobalRefused, Globals, KeepingCopies, NoGlobals,
};
use crate::io::ReplayPartition;
use crate::slow::SlowFactory;

const PASS_ON: &str =
    "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[sink]]\nfrom = \"s\"\ntopic = \"out\"\n";
const COUNT: &str = "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[node]]\nid = \"n\"\nfrom = \"s\"\ngroup_by = \"raw\"\n\
    aggregate = \"count\"\n[[sink]]\nfrom = \"n\"\ntopic = \"out\"\n";

/// Records at these offsets, of which retention has taken those before `start`.
struct Stored {
    offsets: Vec<i64>,
    start: i64,
}

impl ReplayPartition for Stored {
    fn resolve(&self, _: Start) -> Result<i64, IoError> {
        Ok(self.offsets.last().map_or(0, |last| last + 1))
    }

    fn fill(&self, offset: i64, end: i64, records: &mut Columns) -> Result<Filled, IoError> {
        if offset < self.start {
            return Ok(Filled { next_offset: self.start, end_offset: end, deleted_unread: true });
        }
        let mut next_offset = offset;
        for at in self.offsets.iter().copied().filter(|at| (offset..end).contains(at)) {
            let options = BatchOptions { base_offset: at, ..BatchOptions::default() };
            let mut builder = BatchBuilder::new(options);
            builder.append(5, Some(b"k"), Some(b"v"), &[]).unwrap();
            let batch = builder.build().unwrap().into_bytes();
            let view = BatchView::check(&batch).unwrap();
            let select = Select { from_offset: at, headers: true };
            records.append(&view, select, DecompressLimit::STORED).unwrap();
            next_offset = at + 1;
        }
        let next_offset = if next_offset == offset { end } else { next_offset };
        Ok(Filled { next_offset, end_offset: end, deleted_unread: false })
    }
}

fn spec(manifest: &str, stored: Stored, to: i64, globals: Arc<dyn Globals>) -> ReplaySpec {
    let manifest = Manifest::parse(manifest).unwrap();
    let topology = Topology::link_over(&manifest, &BTreeMap::new(), &|_| Some(1)).unwrap();
    let range = ReplayRange { topic: "in".to_owned(), partition: 0, from: 0, to };
    let stored: Box<dyn ReplayPartition> = Box::new(stored);
    let factory: Arc<dyn PluginFactory> = SlowFactory::new();
    ReplaySpec {
        partitions: topology.outputs.iter().map(|output| output.repartition.unwrap_or(1)).collect(),
        topology: Arc::new(topology),
        commit: manifest.commit,
        factory,
        globals,
        ranges: Arc::new(BTreeMap::from([("in".to_owned(), vec![(range, stored)])])),
        memory: MemoryBudget::new(ALL_MEMORY_MAX),
    }
}

fn passing_on(offsets: &[i64], start: i64, to: i64) -> ReplaySpec {
    spec(PASS_ON, Stored { offsets: offsets.to_vec(), start }, to, Arc::new(NoGlobals))
}

/// Long enough for everything here.
fn ending() -> Ending {
    Ending { asked: Arc::default(), at: Instant::now() + Duration::from_secs(600) }
}

fn report(spec: &ReplaySpec, ending: &Ending) -> RunReport {
    run(spec, ending, Wanted::None).report
}

#[test]
fn offsets_without_a_record_count_nothing() {
    let far = 3 * RECORDS_MAX.cast_signed();
    let report = report(&passing_on(&[0, 7, far], 0, far + 1), &ending());
    assert_eq!((report.failure, report.records_in, report.deleted_unread), (None, 3, 0));
    assert_eq!(report.outputs["out"].records, 3);
}

#[test]
fn what_retention_took_is_counted_and_once() {
    let report = report(&passing_on(&[4, 5], 4, 6), &ending());
    assert_eq!((report.failure, report.records_in, report.deleted_unread), (None, 2, 4));
    // All of the range.
    let report = self::report(&passing_on(&[], 9, 6), &ending());
    assert_eq!((report.failure, report.records_in, report.deleted_unread), (None, 0, 6));
    let spec = passing_on(&[4, 5], 4, 6);
    let io = io(&spec, Mode::Ranges);
    let input = Input { source: 0, partition: 0 };
    for _ in 0..2 {
        io.fill(input, 0, &mut Columns::new()).unwrap();
    }
    assert_eq!(io.tally.deleted_unread(), 4, "a task that waits reads again");
}

fn io(spec: &ReplaySpec, mode: Mode) -> ReplayIo {
    struct Nobody;
    impl Taker for Nobody {
        fn take(&mut self, _: &str, _: i32, _: &RecordIn<'_>) -> Result<(), String> {
            Ok(())
        }
    }
    ReplayIo::new(spec, mode, Arc::default(), Arc::default(), Box::new(Nobody))
}

#[test]
fn so_many_records_are_read_and_no_more() {
    let spec = passing_on(&[0, 1], 0, 2);
    let input = Input { source: 0, partition: 0 };
    let mut io = io(&spec, Mode::Ranges);
    io.read.lock().records = RECORDS_MAX - 2;
    io.fill(input, 0, &mut Columns::new()).unwrap();
    io.fill(input, 0, &mut Columns::new()).unwrap();
    io.read.lock().records = RECORDS_MAX - 1;
    io.read.lock().next.clear();
    let refused = io.fill(input, 0, &mut Columns::new()).unwrap_err().to_string();
    assert!(refused.contains("more than 1000000 records"), "{refused}");
    io.mode = Mode::Live;
    io.read.lock().next.clear();
    io.fill(input, 0, &mut Columns::new()).unwrap();
}

#[test]
fn a_run_that_is_stopped_or_late_says_so() {
    let spec = passing_on(&[0, 1], 0, 2);
    let stopped = ending();
    stopped.asked.set();
    let why = report(&spec, &stopped).failure.unwrap();
    assert!(why.contains("it was stopped"), "{why}");
    let late = Ending { at: Instant::now(), ..ending() };
    let why = report(&spec, &late).failure.unwrap();
    assert!(why.contains("which is the most: replay a smaller range"), "{why}");
}

/// Its copies never have what was there.
struct Never;

impl GlobalCopy for Never {
    fn check(&mut self) -> Result<(), GlobalError> {
        Ok(())
    }

    fn progress(&mut self) -> Result<GlobalProgress, GlobalError> {
        Ok(GlobalProgress { topic: "cities".to_owned(), ..GlobalProgress::default() })
    }

    fn wait(&mut self, _: &StopSignal, _: u64) {}

    fn load(&mut self, _: &mut dyn Iterator<Item = &[u8]>) -> Result<(), GlobalError> {
        Ok(())
    }

    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, GlobalError> {
        Ok(None)
    }
}

impl Globals for Never {
    fn check(&self, _: &GlobalOf) -> Result<(), GlobalRefused> {
        Ok(())
    }

    fn keep(&self, _: BTreeSet<String>) -> KeepingCopies<'_> {
        Box::pin(async {})
    }

    fn open(&self, _: &GlobalOf) -> Result<Box<dyn GlobalCopy>, GlobalError> {
        Ok(Box::new(Never))
    }
}

/// It would be waited for without an end.
#[test]
fn a_global_table_that_is_never_there_ends_a_run_by_its_time() {
    let join = "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[table]]\nid = \"c\"\ntopic = \"cities\"\nscope = \"global\"\n\
        [[node]]\nid = \"j\"\nfrom = \"s\"\njoin = { with = \"c\" }\n[[sink]]\nfrom = \"j\"\ntopic = \"out\"\n";
    let spec = spec(join, Stored { offsets: vec![0], start: 0 }, 1, Arc::new(Never));
    let ending = Ending { at: Instant::now() + Duration::from_millis(20), ..ending() };
    let report = report(&spec, &ending);
    assert!(report.failure.unwrap().contains("which is the most: replay a smaller range"));
    assert_eq!(report.records_in, 0);
}

/// What is between two parts goes once it is done: a long replay costs what waits, not all of it.
#[test]
fn what_is_between_two_parts_goes_with_the_commit_behind_it() {
    let spec = spec(COUNT, Stored { offsets: vec![], start: 0 }, 0, Arc::new(NoGlobals));
    let mut io = io(&spec, Mode::Ranges);
    let source = spec.topology.sources.iter().position(|source| source.repartition.is_some()).unwrap();
    let output = spec.topology.outputs.iter().position(|output| output.repartition.is_some()).unwrap();
    let headers = pelton_streams::batch::Headers::default();
    let record = RecordIn { offset: 0, timestamp: 5, key: Some(b"k"), value: Some(b"v"), headers };
    for _ in 0..3 {
        io.append(output, 0, &record).unwrap();
        io.flush().unwrap();
    }
    let whole = io.between_bytes;
    let input = Input { source, partition: 0 };
    drop(io.commit(&[(input, 2)]).unwrap());
    assert_eq!(io.between_bytes, whole / 3);
    let mut rest = Columns::new();
    io.fill(input, 2, &mut rest).unwrap();
    assert_eq!(rest.offsets(), [2], "what is not done stays");
    drop(io.commit(&[(input, 3)]).unwrap());
    assert_eq!(io.between_bytes, 0);
    io.flush().unwrap();
    assert_eq!(spec.memory.used(), 0);
}

/// A side of a shadow that is ahead: what it would read is there when it may.
#[test]
fn who_may_not_read_is_given_nothing() {
    struct Ahead(Arc<AtomicBool>, Arc<Mutex<Vec<(String, i32, i64)>>>);
    impl Taker for Ahead {
        fn take(&mut self, _: &str, _: i32, _: &RecordIn<'_>) -> Result<(), String> {
            Ok(())
        }

        fn may_read(&self) -> bool {
            !self.0.load(Ordering::Relaxed)
        }

        fn has_read(&self, topic: &str, partition: i32, next: i64) {
            self.1.lock().push((topic.to_owned(), partition, next));
        }
    }
    let spec = passing_on(&[0, 1], 0, 2);
    let (ahead, read) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let taker = Box::new(Ahead(Arc::clone(&ahead), Arc::clone(&read)));
    let io = ReplayIo::new(&spec, Mode::Live, Arc::default(), Arc::default(), taker);
    let (input, mut records) = (Input { source: 0, partition: 0 }, Columns::new());
    let nothing = Filled { next_offset: 0, end_offset: 2, deleted_unread: false };
    assert_eq!(io.fill(input, 0, &mut records), Ok(nothing));
    assert!(records.is_empty() && read.lock().is_empty());
    ahead.store(false, Ordering::Relaxed);
    io.fill(input, 0, &mut records).unwrap();
    assert_eq!(records.offsets(), [0, 1]);
    assert_eq!(*read.lock(), [("in".to_owned(), 0, 2)]);
}
