//! Two operators as one: the second is given what the first emits as results.

use super::windows::RESULTS;
use super::{Context, Operator, OperatorError, Row, RowError};

/// See the module.
pub struct Chain {
    first: Box<dyn Operator>,
    second: Box<dyn Operator>,
}

impl Chain {
    /// `first` has one input, emits results alone, and keeps nothing.
    pub fn new(first: Box<dyn Operator>, second: Box<dyn Operator>) -> Chain {
        Chain { first, second }
    }
}

impl Operator for Chain {
    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let mut emitted = Vec::new();
        self.first.process(input, rows, &mut cx.with_output(&mut emitted))?;
        let between = emitted.into_iter().filter(|one| one.output == RESULTS).map(|one| one.row);
        let between: Vec<Row> = between.collect();
        if between.is_empty() {
            return Ok(());
        }
        self.second.prefetch(0, &between, cx)?;
        // The row that it comes from is meant.
        let origin = |index: usize| {
            let sequence = between.get(index).map(|row| row.sequence);
            rows.iter().position(|row| Some(row.sequence) == sequence).unwrap_or(0)
        };
        self.second.process(0, &between, cx).map_err(|error| match error {
            OperatorError::Row(RowError { index, reason }) => {
                OperatorError::Row(RowError { index: origin(index), reason })
            }
            OperatorError::Alone { index } => OperatorError::Alone { index: origin(index) },
            other => other,
        })
    }

    fn is_behind(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        self.second.is_behind(cx)
    }

    fn go_on(&mut self, cx: &mut Context<'_>, leave_out: bool) -> Result<(), OperatorError> {
        self.second.go_on(cx, leave_out)
    }

    fn tick(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.second.tick(cx)
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.second.maintain(cx, budget)
    }

    fn reset(&mut self) {
        self.first.reset();
        self.second.reset();
    }
}
