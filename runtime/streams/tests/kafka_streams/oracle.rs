//! Kafka Streams: a program of Java that is given cases and answers them (`tests/streams_oracle`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use serde::Deserialize;

use crate::case::Case;
use crate::task::Output;

/// Where `tests/streams_oracle/setup.sh` has installed it: a class path.
const CLASS_PATH: &str = "PELTON_STREAMS_ORACLE";

/// What Kafka Streams says of a case.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// What came out for each input.
    Outputs(Vec<Vec<Output>>),
    Failed {
        error: String,
    },
}

/// A running program.
pub(crate) struct Oracle {
    child: Child,
    answers: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

impl Oracle {
    /// Starts it and asks it all these cases. The answers come in their order.
    pub(crate) fn ask(cases: &Arc<Vec<Case>>) -> Oracle {
        let class_path = std::env::var(CLASS_PATH)
            .unwrap_or_else(|_| panic!("{CLASS_PATH} is not set: run `./run test kafka_streams`"));
        let directory = tempfile::tempdir().expect("a directory");
        let mut java = Command::new("java");
        java.args([
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            &class_path,
            "StreamsOracle",
        ])
        .arg(directory.path());
        let mut child = java.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`java` starts");
        let (mut questions, answers) =
            (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        let cases = Arc::clone(cases);
        // It answers while it is asked: one of the two pipes would be full otherwise.
        std::thread::spawn(move || {
            for case in &*cases {
                let line = serde_json::to_string(case).expect("a case is JSON");
                if writeln!(questions, "{line}").is_err() {
                    // It is gone. Who reads its answers says so.
                    return;
                }
            }
        });
        Oracle { child, answers: BufReader::new(answers), _directory: directory }
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it is read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("Kafka Streams answers {line:?}: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
