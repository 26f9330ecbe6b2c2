//! The cases: two instances of a program, the broker, and kills of all of them.

use crate::input::{INPUT, Input, PARTITIONS};
use crate::judge;
use crate::program::Program;
use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::exactly_once::reader::read_each;
use pelton_tests::load::create_topic;
use pelton_tests::records::committed;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the loops write.
const OUTPUT: &str = "output";
/// Changes of the count.
const COUNTS: (&str, u32) = ("counts", 3);
/// Every second record of the input.
const EVENS: (&str, u32) = ("evens", 4);
/// Classes of the count; the application has them too.
const CLASSES: u64 = 7;
/// Group of a loop, and the application's id.
const GROUP: &str = "outsiders";
/// Every so many faults is a kill of the broker.
const BROKER_EVERY: u32 = 3;
/// Every so many is a restart of a program as by an operator.
const RESTART_EVERY: u32 = 4;
/// Longest wait for progress. A killed member's partitions are free after its session's 3 s, its transaction after 10 s.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether a program is at work; its work takes longer.
const LOOK: Duration = Duration::from_micros(200);
/// How far into its work a program is killed, at most.
const INTO_WORK_MS: u64 = 15;

/// One case's place.
pub(crate) struct Lab {
    pub(crate) binary: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) faults: u32,
    pub(crate) seed: u64,
}

/// A run: the broker, its clients, and what was done to them.
struct Run {
    start: Start,
    broker: Option<Broker>,
    programs: Vec<Program>,
    rng: StdRng,
    done: u64,
    program_kills: u32,
    broker_kills: u32,
    restarts: u32,
}

impl Lab {
    fn run(
        &self,
        topics: &[(&str, u32)],
        command: impl Fn(&str, u32) -> Vec<String>,
    ) -> Result<(Run, Input)> {
        judge::try_out()?;
        let mut start = Start::new(&self.binary, &self.dir.join("data"), &self.dir.join("broker.log"))
            .set("group.min.session.timeout.ms", 1000);
        let broker = start.start()?;
        for (topic, partitions) in topics.iter().chain(&[(INPUT, PARTITIONS)]) {
            create_topic(&broker.address, topic, *partitions, &[])?;
        }
        let input = Input::start(&broker.address)?;
        let program =
            |n| Program::start(command(&broker.address, n), &self.dir.join(format!("program-{n}.log")));
        let programs = (0..2).map(program).collect::<Result<_>>()?;
        let rng = StdRng::seed_from_u64(self.seed);
        let broker = Some(broker);
        let run =
            Run { start, broker, programs, rng, done: 0, program_kills: 0, broker_kills: 0, restarts: 0 };
        Ok((run, input))
    }

    pub(crate) fn java(&self, class: &str) -> Vec<String> {
        let libs = format!("{0}/java/classes:{0}/java/libs/*", self.cache.display());
        let flags = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &libs, class];
        flags.map(str::to_owned).to_vec()
    }
}

impl Run {
    fn bootstrap(&self) -> &str {
        &self.start.listen
    }

    /// The committed offsets of the input.
    fn committed(&self) -> Result<Vec<i64>> {
        committed(self.bootstrap(), GROUP, INPUT, PARTITIONS)
    }

    /// Keeps the programs running until `enough` is told, by what is committed, that it is.
    fn until(&mut self, what: &str, mut enough: impl FnMut(&[i64]) -> bool) -> Result<()> {
        let end = Instant::now() + PROGRESS_LIMIT;
        loop {
            self.programs.iter_mut().try_for_each(Program::tend)?;
            let now = self.committed()?;
            if enough(&now) {
                return Ok(());
            }
            let words: Vec<String> = self.programs.iter().map(Program::last_words).collect();
            ensure!(
                Instant::now() < end,
                "waited {PROGRESS_LIMIT:?} in vain until {what}: committed {now:?}; the programs' last words:\n{}",
                words.join("\n")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn faults(&mut self, faults: u32) -> Result<()> {
        for fault in 1..=faults {
            let done = self.done;
            let mut now = done;
            self.until("something more is committed", |offsets| {
                now = offsets.iter().map(|offset| (*offset).max(0) as u64).sum();
                now > done
            })
            .with_context(|| format!("before fault {fault}"))?;
            self.done = now;
            std::thread::sleep(Duration::from_millis(self.rng.random_range(0..400)));
            if fault % BROKER_EVERY == 0 {
                self.kill_broker()?;
            } else if fault % RESTART_EVERY == 0 {
                self.programs[fault as usize / 4 % 2].restart()?;
                self.restarts += 1;
            } else {
                self.kill_program(fault as usize % 2)?;
            }
        }
        Ok(())
    }

    fn kill_broker(&mut self) -> Result<()> {
        self.broker.take().context("there is no broker")?.kill()?;
        self.broker = Some(self.start.start().context("start after a kill")?);
        self.broker_kills += 1;
        Ok(())
    }

    /// Kills a program at work. It may have come to the end of its work before the moment has come: then in its next.
    fn kill_program(&mut self, which: usize) -> Result<()> {
        let end = Instant::now() + PROGRESS_LIMIT;
        let program = &mut self.programs[which];
        loop {
            // One that has no partitions yet, or has come to the end, has nothing to do.
            while !program.busy() {
                ensure!(
                    Instant::now() < end,
                    "program {which} is not at work within {PROGRESS_LIMIT:?}; its last words:\n{}",
                    program.last_words()
                );
                program.tend()?;
                std::thread::sleep(LOOK);
            }
            std::thread::sleep(Duration::from_millis(self.rng.random_range(0..INTO_WORK_MS)));
            if program.kill_at_work()? {
                self.program_kills += 1;
                return Ok(());
            }
        }
    }

    /// Lets the programs come to the end of the input; the last number of each key.
    fn settle(&mut self, input: Input) -> Result<Vec<u64>> {
        let sent = input.sent();
        let numbers = input.stop()?;
        ensure!(numbers.iter().sum::<u64>() >= sent, "the input is not what it was");
        let all: u64 = numbers.iter().sum();
        self.until("everything is committed", |offsets| {
            offsets.iter().map(|offset| (*offset).max(0) as u64).sum::<u64>() == all
        })?;
        Ok(numbers)
    }

    /// Waits until the counts have so many changes; more of them is for the judge.
    fn until_counted(&mut self, all: u64) -> Result<()> {
        let (bootstrap, mut from, mut counted) = (self.bootstrap().to_owned(), vec![0; COUNTS.1 as usize], 0);
        let mut problem = Ok(());
        self.until("everything is counted", |_| {
            problem = read_each(&bootstrap, COUNTS.0, &mut from, |_| {
                counted += 1;
                Ok(())
            });
            problem.is_err() || counted >= all
        })
        .with_context(|| format!("{} has {all} in the end", COUNTS.0))?;
        problem
    }

    fn tell(&self, records: &str) -> Result<String> {
        let Run { program_kills, broker_kills, restarts, programs, .. } = self;
        let ended: u32 = programs.iter().map(|program| program.ended).sum();
        let begun: u64 = programs.iter().map(Program::begun).sum();
        Ok(format!(
            "{program_kills} kills of the program at work, {broker_kills} of the broker, {restarts} restarts, \
             {ended} ends by itself, {begun} times at work, {records}"
        ))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A consume-transform-produce loop: every record of the input is in the output once, in order.
pub(crate) fn copies(lab: &Lab, client: &str) -> Result<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let command = |bootstrap: &str, n: u32| {
        let mut command = match client {
            "java" => lab.java("Loop"),
            "franz-go" => vec![path(&lab.cache.join("franz/franz")), "loop".to_owned()],
            _ => vec![path(&lab.cache.join("python/bin/python")), path(&here.join("loop.py"))],
        };
        command.extend(words(&[bootstrap, INPUT, OUTPUT, GROUP, &format!("loop-{n}")]));
        command
    };
    let (mut run, input) = lab.run(&[(OUTPUT, PARTITIONS)], command)?;
    run.faults(lab.faults)?;
    let numbers = run.settle(input)?;
    let records = judge::check(run.bootstrap(), OUTPUT, PARTITIONS, &judge::inputs(&numbers))?;
    run.tell(&format!("{records} records, each once"))
}

/// A Kafka Streams application: the count of each class goes up by one for each record, every second record is passed on once.
pub(crate) fn counts(lab: &Lab) -> Result<String> {
    let command = |bootstrap: &str, n: u32| {
        let state = path(&lab.dir.join(format!("state-{n}")));
        let mut command = lab.java("Counting");
        command.extend(words(&[bootstrap, INPUT, COUNTS.0, EVENS.0, GROUP, &state]));
        command
    };
    let (mut run, input) = lab.run(&[COUNTS, EVENS], command)?;
    run.faults(lab.faults)?;
    let numbers = run.settle(input)?;
    let evens = judge::check(run.bootstrap(), EVENS.0, EVENS.1, &judge::evens(&numbers))?;
    // What is in the repartition topic has still to be counted.
    run.until_counted(numbers.iter().sum())?;
    let counts = judge::check(run.bootstrap(), COUNTS.0, COUNTS.1, &judge::counts(&numbers, CLASSES))?;
    run.tell(&format!("{evens} records passed on and {counts} counted, each once"))
}
