//! The built-in functions at work. The state of a group is that of each function in turn:
//!
//! ```text
//! count, distinct       n(8)
//! sum, avg              n(8) whole(16) floats(1) float(8)*
//! min, max              length(4) value
//! first, last           time(8) length(4) value
//! top                   entries(2) [length(4) value length(4) label]*
//! ```
//!
//! A value is encoded so that it sorts (`scalar`); a length of 0 is no value.

use super::super::field::Extractor;
use super::super::scalar::{self, Scalar, write};
use super::super::{Context, OperatorError};
use super::function::{AggregateSpec, Function, Part, ResultForm};
use super::member::{self, Members};
use super::sum::{ExactSum, Number};
use super::{Aggregator, Group, Item, Way};
use crate::state::StoreIndex;

/// See the module.
pub struct BuiltIn {
    spec: AggregateSpec,
    fields: Extractor,
    /// Of each function, the place of its first field.
    first_field: Vec<usize>,
    /// Where members are; any store if there are none.
    members: StoreIndex,
    scratch: Vec<u8>,
}

/// One function of one group.
struct At<'a> {
    members: Members<'a>,
    of_table: bool,
    part: &'a Part,
}

impl BuiltIn {
    /// The functions of a spec that was checked. `members` is the store for members, where
    /// [`AggregateSpec::has_members`] asks for one: an ordered one.
    pub fn new(spec: AggregateSpec, members: Option<StoreIndex>) -> BuiltIn {
        let mut fields = Vec::new();
        let mut first_field = Vec::new();
        for part in &spec.parts {
            first_field.push(fields.len());
            fields.extend(part.function.fields());
        }
        let fields = Extractor::new(fields);
        BuiltIn { spec, fields, first_field, members: members.unwrap_or_default(), scratch: Vec::new() }
    }

    fn fold(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let found = self.fields.extract(Some(item.origin.unwrap_or(item.key)), item.value);
        let found = found.map_err(|error| OperatorError::row(error.to_string()))?;
        let mut state = group.state.unwrap_or_default();
        for (index, part) in self.spec.parts.iter().enumerate() {
            let members = Members { store: self.members, cell: group.cell, part: index as u8 };
            let at = At { members, of_table: self.spec.of_table, part };
            let fields = &found[self.first_field[index]..];
            let (here, rest) = match group.state {
                None => (None, state),
                Some(_) => {
                    let (here, rest) = split(&part.function, state).ok_or_else(OperatorError::unreadable)?;
                    (Some(here), rest)
                }
            };
            state = rest;
            at.fold(cx, way, here, fields, item, &mut self.scratch, out)?;
        }
        Ok(())
    }
}

impl Aggregator for BuiltIn {
    fn has_members(&self) -> bool {
        self.spec.has_members()
    }

    fn add(
        &mut self,
        cx: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        self.fold(cx, Way::In, group, item, out)
    }

    fn subtract(
        &mut self,
        cx: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        self.fold(cx, Way::Out, group, item, out)
    }

    fn merge(
        &mut self,
        cx: &mut Context<'_>,
        _: &[u8],
        into: Group<'_>,
        from: Group<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let (Some(mut left), Some(mut right)) = (into.state, from.state) else {
            out.extend_from_slice(into.state.or(from.state).unwrap_or_default());
            return Ok(());
        };
        for (index, part) in self.spec.parts.iter().enumerate() {
            let (a, after_a) = split(&part.function, left).ok_or_else(OperatorError::unreadable)?;
            let (b, after_b) = split(&part.function, right).ok_or_else(OperatorError::unreadable)?;
            (left, right) = (after_a, after_b);
            let members = |cell| Members { store: self.members, cell, part: index as u8 };
            merge_part(cx, &part.function, (a, members(into.cell)), (b, members(from.cell)), out)?;
        }
        Ok(())
    }

    fn copy(&mut self, cx: &mut Context<'_>, from: &[u8], to: &[u8]) -> Result<(), OperatorError> {
        if self.has_members() { member::copy(cx, self.members, from, to) } else { Ok(()) }
    }

    fn forget(&mut self, cx: &mut Context<'_>, cell: &[u8]) -> Result<(), OperatorError> {
        if self.has_members() { member::forget(cx, self.members, cell) } else { Ok(()) }
    }

    fn result(&mut self, _: &[u8], mut state: &[u8], out: &mut Vec<u8>) -> Result<bool, OperatorError> {
        if self.spec.form == ResultForm::Raw {
            out.extend_from_slice(state);
            return Ok(true);
        }
        if self.spec.form == ResultForm::Single {
            let (here, _) =
                split(&self.spec.parts[0].function, state).ok_or_else(OperatorError::unreadable)?;
            return write_single(&self.spec.parts[0].function, here, out)
                .ok_or_else(OperatorError::unreadable);
        }
        let mut separator = b'{';
        for part in &self.spec.parts {
            let (here, rest) = split(&part.function, state).ok_or_else(OperatorError::unreadable)?;
            state = rest;
            out.push(std::mem::replace(&mut separator, b','));
            write(out, &part.name);
            out.push(b':');
            write_part(&part.function, here, out).ok_or_else(OperatorError::unreadable)?;
        }
        out.push(b'}');
        Ok(true)
    }
}

impl At<'_> {
    fn not_a_number(&self, scalar: &Scalar<'_>) -> OperatorError {
        let mut shown = Vec::new();
        scalar.write_json(&mut shown);
        let shown = String::from_utf8_lossy(&shown).chars().take(100).collect::<String>();
        OperatorError::row(format!("`{}` needs a number, and has {shown}", self.part.function))
    }

    fn too_large(&self) -> OperatorError {
        OperatorError::row(format!("`{}` is beyond what a 64-bit float can say", self.part.function))
    }

    #[expect(clippy::too_many_arguments, reason = "all that a function may look at")]
    fn fold(
        &self,
        cx: &mut Context<'_>,
        way: Way,
        state: Option<&[u8]>,
        fields: &[Scalar<'_>],
        item: Item<'_>,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let state = state.unwrap_or_default();
        match &self.part.function {
            Function::Count => push_count(out, stepped(count_of(state), way)),
            Function::CountOf(_) if fields[0].is_null() => push_count(out, count_of(state)),
            Function::CountOf(_) => push_count(out, stepped(count_of(state), way)),
            Function::Sum(_) | Function::Avg(_) => return self.sum(way, state, &fields[0], out),
            Function::First(_) | Function::Last(_) => {
                self.by_time(state, &fields[0], item.timestamp, scratch, out)
            }
            Function::Min(_) | Function::Max(_) => {
                return self.extreme(cx, way, state, &fields[0], scratch, out);
            }
            Function::Distinct(_) => return self.distinct(cx, way, state, &fields[0], scratch, out),
            Function::Top { n, label, .. } => {
                let label = match (label, item.origin) {
                    (Some(_), _) => fields[1].clone(),
                    (None, Some(origin)) => Scalar::Bytes(origin),
                    (None, None) => Scalar::Null,
                };
                return self.top(cx, way, state, *n, (&fields[0], &label), out);
            }
        }
        Ok(())
    }

    fn sum(
        &self,
        way: Way,
        state: &[u8],
        field: &Scalar<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        if field.is_null() {
            if state.is_empty() {
                push_count(out, 0);
                ExactSum::default().encode(out);
            } else {
                out.extend_from_slice(state);
            }
            return Ok(());
        }
        let number = field.number().ok_or_else(|| self.not_a_number(field))?;
        let mut sum = match state.get(8..) {
            Some(rest) => ExactSum::decode(rest).ok_or_else(OperatorError::unreadable)?.0,
            None => ExactSum::default(),
        };
        sum.add(&number, way == Way::Out).ok_or_else(|| self.too_large())?;
        push_count(out, stepped(count_of(state), way));
        sum.encode(out);
        Ok(())
    }

    /// The value of the earliest or latest record. Only of streams, so nothing leaves.
    fn by_time(
        &self,
        state: &[u8],
        field: &Scalar<'_>,
        timestamp: i64,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let before = state.split_first_chunk::<8>().filter(|(_, value)| value.len() > 4);
        let replaces = match before {
            None => true,
            Some((time, _)) => {
                let time = i64::from_be_bytes(*time);
                let first = matches!(self.part.function, Function::First(_));
                if first { timestamp < time } else { timestamp >= time }
            }
        };
        if field.is_null() || !replaces {
            // As it was; if nothing was, then nothing at no time.
            out.extend_from_slice(if state.is_empty() { &[0; 12] } else { state });
            return;
        }
        out.extend_from_slice(&timestamp.to_be_bytes());
        push_scalar(out, field, scratch);
    }

    fn extreme(
        &self,
        cx: &mut Context<'_>,
        way: Way,
        state: &[u8],
        field: &Scalar<'_>,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = state.get(4..).unwrap_or_default();
        scratch.clear();
        field.encode(scratch);
        let largest = matches!(self.part.function, Function::Max(_));
        let better = before.is_empty() || if largest { &scratch[..] > before } else { &scratch[..] < before };
        if self.of_table && !field.is_null() {
            match way {
                Way::In => {
                    self.members.add(cx, scratch)?;
                }
                // The next one moves up.
                Way::Out if self.members.remove(cx, scratch)? && *scratch == before => {
                    let next = self.members.ends(cx, largest, 1)?.pop().unwrap_or_default();
                    push_bytes(out, &next);
                    return Ok(());
                }
                Way::Out => {}
            }
        }
        let comes = way == Way::In && !field.is_null() && better;
        push_bytes(out, if comes { scratch } else { before });
        Ok(())
    }

    fn distinct(
        &self,
        cx: &mut Context<'_>,
        way: Way,
        state: &[u8],
        field: &Scalar<'_>,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let mut count = count_of(state);
        if !field.is_null() {
            scratch.clear();
            field.encode(scratch);
            let changed = match (way, self.of_table) {
                (Way::In, false) => self.members.note(cx, scratch)?,
                (Way::In, true) => self.members.add(cx, scratch)?,
                (Way::Out, _) => self.members.remove(cx, scratch)?,
            };
            if changed {
                count = stepped(count, way);
            }
        }
        push_count(out, count);
        Ok(())
    }

    fn top(
        &self,
        cx: &mut Context<'_>,
        way: Way,
        state: &[u8],
        n: u16,
        (by, label): (&Scalar<'_>, &Scalar<'_>),
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let mut entries = read_top(state).ok_or_else(OperatorError::unreadable)?;
        if by.is_null() {
            push_top(out, &entries);
            return Ok(());
        }
        let (mut value, mut name) = (Vec::new(), Vec::new());
        by.encode(&mut value);
        label.encode(&mut name);
        let n = usize::from(n);
        if !self.of_table {
            // Behind all that are as large: they came first.
            let place = entries.partition_point(|(other, _)| *other >= &value[..]);
            if place < n {
                entries.insert(place, (&value, &name));
                entries.truncate(n);
            }
            push_top(out, &entries);
            return Ok(());
        }
        // Largest first, and within a value the smallest label.
        let member: Vec<u8> = value.iter().map(|byte| !byte).chain(name.iter().copied()).collect();
        match way {
            Way::In => self.members.add(cx, &member)?,
            Way::Out => self.members.remove(cx, &member)?,
        };
        let full = entries.len() == n;
        let last = entries.last().map(|(value, name)| (std::cmp::Reverse(*value), *name));
        let below = full && last.is_some_and(|last| last < (std::cmp::Reverse(&value[..]), &name[..]));
        if below {
            push_top(out, &entries);
            return Ok(());
        }
        let members = self.members.ends(cx, false, n)?;
        let members = members.iter().map(|member| top_member(member)).collect::<Option<Vec<_>>>();
        let members = members.ok_or_else(OperatorError::unreadable)?;
        let entries: Vec<_> = members.iter().map(|(value, name)| (&value[..], &name[..])).collect();
        push_top(out, &entries);
        Ok(())
    }
}

/// The value and the label of a member of `top`.
fn top_member(member: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let turned: Vec<u8> = member.iter().map(|byte| !byte).collect();
    let (_, rest) = scalar::decode(&turned)?;
    let value_len = turned.len() - rest.len();
    Some((turned[..value_len].to_vec(), member[value_len..].to_vec()))
}

fn merge_part(
    cx: &mut Context<'_>,
    function: &Function,
    (a, into): (&[u8], Members<'_>),
    (b, from): (&[u8], Members<'_>),
    out: &mut Vec<u8>,
) -> Result<(), OperatorError> {
    match function {
        Function::Count | Function::CountOf(_) => push_count(out, count_of(a) + count_of(b)),
        Function::Distinct(_) => push_count(out, count_of(a) + into.take(cx, &from)?),
        Function::Sum(_) | Function::Avg(_) => {
            let sum = |state: &[u8]| Some(ExactSum::decode(state.get(8..)?)?.0);
            let mut left = sum(a).ok_or_else(OperatorError::unreadable)?;
            let right = sum(b).ok_or_else(OperatorError::unreadable)?;
            let too_large =
                || OperatorError::row(format!("`{function}` is beyond what a 64-bit float can say"));
            left.merge(&right).ok_or_else(too_large)?;
            push_count(out, count_of(a) + count_of(b));
            left.encode(out);
        }
        Function::Min(_) | Function::Max(_) => {
            let larger = a[4..] > b[4..];
            let a_wins = b.len() == 4 || (a.len() > 4 && larger == matches!(function, Function::Max(_)));
            out.extend_from_slice(if a_wins { a } else { b });
        }
        // Records of two sessions never have the same time.
        Function::First(_) => {
            out.extend_from_slice(if b.len() == 12 || (a.len() > 12 && a[..8] < b[..8]) { a } else { b })
        }
        Function::Last(_) => {
            out.extend_from_slice(if b.len() == 12 || (a.len() > 12 && a[..8] > b[..8]) { a } else { b })
        }
        Function::Top { n, .. } => {
            let mut entries = read_top(a).ok_or_else(OperatorError::unreadable)?;
            for (value, name) in read_top(b).ok_or_else(OperatorError::unreadable)? {
                let place = entries.partition_point(|(other, _)| *other >= value);
                entries.insert(place, (value, name));
            }
            entries.truncate(usize::from(*n));
            push_top(out, &entries);
        }
    }
    Ok(())
}

fn count_of(state: &[u8]) -> u64 {
    state.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn stepped(count: u64, way: Way) -> u64 {
    match way {
        Way::In => count + 1,
        // Below zero only if the aggregate is younger than its table.
        Way::Out => count.saturating_sub(1),
    }
}

fn push_count(out: &mut Vec<u8>, count: u64) {
    out.extend_from_slice(&count.to_be_bytes());
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // A record has less than 2 GiB.
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn push_scalar(out: &mut Vec<u8>, scalar: &Scalar<'_>, scratch: &mut Vec<u8>) {
    scratch.clear();
    scalar.encode(scratch);
    push_bytes(out, scratch);
}

fn read_bytes(state: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = state.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

type TopEntries<'a> = Vec<(&'a [u8], &'a [u8])>;

fn read_top(state: &[u8]) -> Option<TopEntries<'_>> {
    let Some((count, mut rest)) = state.split_first_chunk::<2>() else { return Some(Vec::new()) };
    let mut entries = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (value, after) = read_bytes(rest)?;
        let (name, after) = read_bytes(after)?;
        entries.push((value, name));
        rest = after;
    }
    Some(entries)
}

fn push_top(out: &mut Vec<u8>, entries: &[(&[u8], &[u8])]) {
    // At most MAX_TOP.
    out.extend_from_slice(&(entries.len() as u16).to_be_bytes());
    for (value, name) in entries {
        push_bytes(out, value);
        push_bytes(out, name);
    }
}

/// The state of one function, and those that follow.
fn split<'s>(function: &Function, state: &'s [u8]) -> Option<(&'s [u8], &'s [u8])> {
    let rest = match function {
        Function::Count | Function::CountOf(_) | Function::Distinct(_) => state.get(8..)?,
        Function::Sum(_) | Function::Avg(_) => {
            let floats = usize::from(*state.get(24)?);
            state.get(25 + floats * 8..)?
        }
        Function::Min(_) | Function::Max(_) => read_bytes(state)?.1,
        Function::First(_) | Function::Last(_) => read_bytes(state.get(8..)?)?.1,
        Function::Top { .. } => {
            let (count, mut rest) = state.split_first_chunk::<2>()?;
            for _ in 0..2 * usize::from(u16::from_be_bytes(*count)) {
                rest = read_bytes(rest)?.1;
            }
            rest
        }
    };
    Some((&state[..state.len() - rest.len()], rest))
}

/// Appends the result of a function as JSON.
fn write_part(function: &Function, state: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match function {
        Function::Count | Function::CountOf(_) | Function::Distinct(_) => write(out, &count_of(state)),
        Function::Sum(_) => match ExactSum::decode(state.get(8..)?)?.0.value() {
            Number::Int(int) => write(out, &int),
            Number::Float(float) => write(out, &float),
        },
        Function::Avg(_) => {
            let count = count_of(state);
            let mean = ExactSum::decode(state.get(8..)?)?.0.mean(count);
            write(out, &(count > 0).then_some(mean));
        }
        Function::Min(_) | Function::Max(_) | Function::First(_) | Function::Last(_) => {
            match stored(function, state)? {
                None => write(out, &()),
                Some(value) => scalar::decode(value)?.0.as_scalar().write_json(out),
            }
        }
        Function::Top { .. } => {
            out.push(b'[');
            for (index, (value, name)) in read_top(state)?.into_iter().enumerate() {
                out.extend_from_slice(if index > 0 { b",{\"value\":" } else { b"{\"value\":" });
                scalar::decode(value)?.0.as_scalar().write_json(out);
                if !name.is_empty() {
                    out.extend_from_slice(b",\"label\":");
                    scalar::decode(name)?.0.as_scalar().write_json(out);
                }
                out.push(b'}');
            }
            out.push(b']');
        }
    }
    Some(())
}

/// The value in the state of a function that keeps one.
fn stored<'s>(function: &Function, state: &'s [u8]) -> Option<Option<&'s [u8]>> {
    let at = if matches!(function, Function::First(_) | Function::Last(_)) { 8 } else { 0 };
    let value = read_bytes(state.get(at..)?)?.0;
    Some((!value.is_empty()).then_some(value))
}

/// Appends the result of the only function; false if there is none.
fn write_single(function: &Function, state: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    match function {
        Function::Avg(_) if count_of(state) == 0 => return Some(false),
        Function::Min(_) | Function::Max(_) | Function::First(_) | Function::Last(_) => {
            let Some(value) = stored(function, state)? else { return Some(false) };
            match scalar::decode(value)?.0.as_scalar() {
                Scalar::Text(text) => out.extend_from_slice(text.as_bytes()),
                Scalar::Bytes(bytes) => out.extend_from_slice(bytes),
                other => other.write_json(out),
            }
        }
        _ => write_part(function, state, out)?,
    }
    Some(true)
}
