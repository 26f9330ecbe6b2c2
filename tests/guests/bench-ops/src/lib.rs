//! The operations that the benches of a transform call measure, and a panic to see what becomes of its text.

use pelton_sdk::{Config, Failure, Out, Record, Transform};

#[derive(Default)]
enum Operation {
    #[default]
    Identity,
    Filter,
    Edit,
    Panic,
}

#[derive(Default)]
struct BenchOps {
    operation: Operation,
}

impl Transform for BenchOps {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.operation = match config.get("operation") {
            Some("identity") => Operation::Identity,
            Some("filter") => Operation::Filter,
            Some("edit") => Operation::Edit,
            Some("panic") => Operation::Panic,
            other => return Err(format!("operation is {other:?}")),
        };
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        match self.operation {
            Operation::Identity => {
                out.keep(record);
            }
            Operation::Filter => {
                if record.value().is_some_and(|value| value.len() > 7 && value[7] & 1 == 0) {
                    out.keep(record);
                }
            }
            Operation::Edit => {
                out.edit(record, |value| {
                    if let Some(at) = value.windows(8).position(|window| window == b"\"name\":\"") {
                        let name = value[at + 8..].iter_mut().take_while(|byte| **byte != b'"');
                        name.for_each(|byte| byte.make_ascii_uppercase());
                    }
                });
            }
            Operation::Panic => assert_ne!(record.value(), Some(&b"bad"[..]), "a bad record"),
        }
        Ok(())
    }
}

pelton_sdk::export_transform!(BenchOps);
