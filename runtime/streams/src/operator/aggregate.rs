//! Aggregates: what becomes of the records of one key (and window). Built-in functions, or a plugin's.
//!
//! The state of a group is bytes that its operator stores. Functions that cannot be undone from their state alone
//! (the smallest value of a table's group once it is gone, how many distinct values there are) keep their *members*
//! in a store of their own, under the *cell* that the operator names: bytes that no other group of the operator has
//! or begins with.

use super::{Context, OperatorError};

mod builtin;
mod function;
mod member;
mod plugin;
mod sum;

pub use builtin::BuiltIn;
pub use function::{AggregateSpec, Function, MAX_PARTS, MAX_TOP, Part, ResultForm, SpecError};
pub use plugin::{Plan, PluginAggregate};

/// A record that goes into an aggregate or leaves it.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// The key of the group.
    pub key: &'a [u8],
    /// The value of the record.
    pub value: &'a [u8],
    /// Its time.
    pub timestamp: i64,
    /// Its key in the table that was grouped.
    pub origin: Option<&'a [u8]>,
}

/// Whether a record comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is added.
    In,
    /// It was added before, and is taken out.
    Out,
}

/// The state of one group, and the cell of its members.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Where its members are.
    pub cell: &'a [u8],
    /// What was stored; none for a group that is new.
    pub state: Option<&'a [u8]>,
}

/// Folds records into the state of their group. Every method is a function of its arguments and the stores.
pub trait Aggregator: Send {
    /// Whether there are members. Cells may be empty otherwise.
    fn has_members(&self) -> bool {
        false
    }

    /// Whether it wants to know what comes ([`Aggregator::prepare`]).
    fn plans(&self) -> bool {
        false
    }

    /// Gets ready for what it will be asked for next, as far as that is known: a plugin does all of it with a few calls. What it is
    /// asked for then need not be what was planned.
    ///
    /// # Errors
    /// A record cannot be aggregated.
    fn prepare(&mut self, _: &mut Context<'_>, _: Plan) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Appends to `out` the state of `group` with `item` in it.
    ///
    /// # Errors
    /// The record cannot be aggregated, or the store cannot be used.
    fn add(
        &mut self,
        cx: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError>;

    /// Appends to `out` the state of `group` without `item`, which was added before.
    ///
    /// # Errors
    /// As [`Aggregator::add`].
    fn subtract(
        &mut self,
        cx: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError>;

    /// Appends to `out` the state of two groups of one key that have become one. `from` is later, and ends.
    ///
    /// # Errors
    /// As [`Aggregator::add`].
    fn merge(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
        into: Group<'_>,
        from: Group<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError>;

    /// A group begins with the state of another one, which goes on.
    ///
    /// # Errors
    /// The store cannot be used.
    fn copy(&mut self, _: &mut Context<'_>, _from: &[u8], _to: &[u8]) -> Result<(), OperatorError> {
        Ok(())
    }

    /// A group has ended.
    ///
    /// # Errors
    /// The store cannot be used.
    fn forget(&mut self, _: &mut Context<'_>, _cell: &[u8]) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Appends the value that readers get for a state; false if there is none.
    ///
    /// # Errors
    /// The state cannot be read.
    fn result(&mut self, key: &[u8], state: &[u8], out: &mut Vec<u8>) -> Result<bool, OperatorError>;
}

/// An aggregate as functions of one record at a time, in this process: for tests, and for embedders.
pub trait AggregateFunction: Send {
    /// The state of a group that has no records yet.
    ///
    /// # Errors
    /// The group cannot be made.
    fn create(&mut self, key: &[u8]) -> Result<Vec<u8>, OperatorError>;

    /// The state with a record in it.
    ///
    /// # Errors
    /// The record cannot be aggregated.
    fn add(&mut self, state: &[u8], item: Item<'_>) -> Result<Vec<u8>, OperatorError>;

    /// The state without a record that was added before: for tables.
    ///
    /// # Errors
    /// As [`AggregateFunction::add`].
    fn subtract(&mut self, state: &[u8], item: Item<'_>) -> Result<Vec<u8>, OperatorError>;

    /// One state of two: for sessions.
    ///
    /// # Errors
    /// As [`AggregateFunction::add`].
    fn merge(&mut self, key: &[u8], left: &[u8], right: &[u8]) -> Result<Vec<u8>, OperatorError>;
}

/// An [`AggregateFunction`] as an operator uses it.
pub struct FunctionAggregate(pub Box<dyn AggregateFunction>);

impl Aggregator for FunctionAggregate {
    fn add(
        &mut self,
        _: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let state = match group.state {
            Some(state) => self.0.add(state, item)?,
            None => {
                let created = self.0.create(item.key)?;
                self.0.add(&created, item)?
            }
        };
        out.extend_from_slice(&state);
        Ok(())
    }

    fn subtract(
        &mut self,
        _: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        if let Some(state) = group.state {
            out.extend_from_slice(&self.0.subtract(state, item)?);
        }
        Ok(())
    }

    fn merge(
        &mut self,
        _: &mut Context<'_>,
        key: &[u8],
        into: Group<'_>,
        from: Group<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        match (into.state, from.state) {
            (Some(left), Some(right)) => out.extend_from_slice(&self.0.merge(key, left, right)?),
            (one, other) => out.extend_from_slice(one.or(other).unwrap_or_default()),
        }
        Ok(())
    }

    fn result(&mut self, _: &[u8], state: &[u8], out: &mut Vec<u8>) -> Result<bool, OperatorError> {
        out.extend_from_slice(state);
        Ok(true)
    }
}
