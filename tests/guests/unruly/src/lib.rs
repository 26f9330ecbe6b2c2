//! Does what a record tells it to do, as bad as it may be. Everything else comes out as
//! `<partition>:<offset>:<value><tag>` with the input's partition as key, so that a test sees what became of each record.

use pelton_sdk::bindings;
use pelton_sdk::{Batch, Config, Failure, Out, Output, Record, Transform, log};

/// More than any limit of a test allows.
const TOO_MUCH: usize = 256 << 20;
/// Larger than the answers that the test allows, and smaller than the guest's memory.
const LARGE: usize = 1 << 20;

/// Turns of a loop, for a record that takes some 100 µs.
const SLOW: u32 = 200_000;

/// What a language's runtime asks of the machine, as those of Go and C do.
#[cfg(target_arch = "wasm32")]
mod outside {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> i32;
        fn random_get(bytes: *mut u8, length: usize) -> i32;
    }

    /// The time of day and random bytes.
    pub(crate) fn said() -> String {
        let (mut time, mut bytes) = (0, [0; 4]);
        // SAFETY: both write within what they are given.
        let answers =
            unsafe { (clock_time_get(0, 1, &raw mut time), random_get(bytes.as_mut_ptr(), bytes.len())) };
        format!("{answers:?} {time} {bytes:?}")
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod outside {
    /// No machine.
    pub(crate) fn said() -> String {
        String::new()
    }
}

/// What a record is called, and what becomes of the answer.
type Misdeed = (&'static str, fn(&mut Output, &Batch));

/// Answers that mean nothing.
const ILL_FORMED: [Misdeed; 5] = [
    ("ill-formed", |output, batch| output.source[0] = batch.offsets.len() as u32 + 7),
    ("unequal", |output, _| output.values.iter_mut().for_each(|values| drop(values.lengths.pop()))),
    ("short", |output, _| output.values.iter_mut().for_each(|values| values.offsets.clear())),
    ("beyond", |output, batch| {
        let end = (batch.data.len() + output.data.len()) as u32;
        output.values.iter_mut().for_each(|values| values.offsets[0] = end);
    }),
    // One field begins in what was given, and ends in the answer.
    ("across", |output, batch| {
        let end = batch.data.len() as u32;
        output.values.iter_mut().for_each(|values| values.offsets[0] = end - 1);
    }),
];

/// Calls itself until there is no room for it.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 16]);
    if std::hint::black_box(depth) == 0 { 0 } else { deeper(depth + 1) + here[7] }
}

#[derive(Default)]
struct Unruly {
    tag: String,
}

impl Transform for Unruly {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.tag = config.get("tag").unwrap_or_default().to_owned();
        if self.tag == "refused" { Err("this tag is refused".to_owned()) } else { Ok(()) }
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let value = record.value().unwrap_or_default();
        match value {
            b"trap" => panic!("told to trap"),
            b"loop" => loop {
                std::hint::black_box(());
            },
            b"memory" => {
                // Page by page, so that the limit is met and not an allocator's own bound.
                let mut pages: Vec<Vec<u8>> = Vec::new();
                while pages.len() * (64 << 10) < TOO_MUCH {
                    pages.push(std::hint::black_box(vec![1; 64 << 10]));
                }
            }
            b"large" => {
                out.value(record, vec![b'x'; LARGE]);
            }
            b"recursion" => {
                out.value(record, deeper(1).to_string());
            }
            b"reject" => return Err(Failure::reject("told to reject")),
            b"fatal" => return Err(Failure::Fatal("told to stop".to_owned())),
            _ => {
                let text = String::from_utf8_lossy(value);
                if text.starts_with("slow") {
                    (0..SLOW).for_each(|n| drop(std::hint::black_box(n)));
                }
                if let Some(line) = text.strip_prefix("log ") {
                    log::info(line);
                }
                let text = if text == "luck" { format!("luck {}", outside::said()).into() } else { text };
                let partition = record.partition().to_string();
                let line = format!("{partition}:{}:{text}{}", record.offset(), self.tag);
                out.key_value(record, partition, line);
            }
        }
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<Output, bindings::Failure> {
        let mut out = Out::new(batch);
        let mut told = None;
        for record in Record::all(batch) {
            let misdeed = |misdeed: &&Misdeed| record.value() == Some(misdeed.0.as_bytes());
            told = told.or(ILL_FORMED.iter().find(misdeed));
            self.record(record, &mut out).map_err(|failure| match failure {
                Failure::Reject(reason) => {
                    let index = record.index() as u32;
                    bindings::Failure::Reject(vec![bindings::Rejection { index, reason }])
                }
                Failure::Retry(reason) => bindings::Failure::Retry(reason),
                Failure::Fatal(reason) => bindings::Failure::Fatal(reason),
            })?;
        }
        let mut output = out.finish();
        if let Some((_, misform)) = told {
            misform(&mut output, batch);
        }
        Ok(output)
    }
}

pelton_sdk::export_transform!(Unruly);
