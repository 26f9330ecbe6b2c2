//! Places records by the digit that their value is. Other values tell it how to go wrong.

use pelton_sdk::bindings::Batch;
use pelton_sdk::{Partitioner, Record};

#[derive(Default)]
struct Astray;

impl Partitioner for Astray {
    fn partition(&mut self, record: Record<'_>, partitions: u32) -> u32 {
        match record.value().unwrap_or_default() {
            [digit @ b'0'..=b'9'] => u32::from(digit - b'0'),
            b"beyond" => partitions,
            b"far" => u32::MAX,
            b"trap" => panic!("told to trap"),
            b"loop" => loop {
                std::hint::black_box(partitions);
            },
            _ => 0,
        }
    }

    fn batch(&mut self, batch: &Batch, partitions: u32) -> Vec<u32> {
        let mut placed = Vec::new();
        for record in Record::all(batch) {
            match record.value().unwrap_or_default() {
                b"none" => {}
                b"twice" => placed.extend([0, 0]),
                b"many" => placed.resize(1 << 20, 0),
                _ => placed.push(self.partition(record, partitions)),
            }
        }
        placed
    }
}

pelton_sdk::export_partitioner!(Astray);
