//! Runs the cases of a test program, each in a directory of its own.

use crate::say;
use anyhow::{Result, ensure};
use std::time::Instant;

/// Runs the cases that arguments of the program pick, all without any. `run` gives what a case can tell, `None` when it could
/// not do its work here (and has said so).
///
/// # Errors
/// A case failed, or none is called like that.
pub fn run<C>(
    program: &str,
    cases: impl IntoIterator<Item = (&'static str, C)>,
    mut run: impl FnMut(&str, C) -> Result<Option<String>>,
) -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (mut ran, mut failed) = (0, 0);
    for (name, case) in cases {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        ran += 1;
        let begin = Instant::now();
        match run(name, case) {
            Ok(Some(detail)) => {
                say(format_args!("ok {name}: {detail} {:.1}s", begin.elapsed().as_secs_f64()));
            }
            Ok(None) => {}
            Err(error) => {
                failed += 1;
                say(format_args!("FAIL {name}: {error:#}"));
            }
        }
    }
    say(format_args!("{program}: {ran} cases, {failed} failed"));
    ensure!(ran > 0, "no case is called like {wanted:?}");
    ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}
