//! What a built-in node is, once it is known what it reads: streams, tables, or a global table.

use super::graph::{Kind, OperatorNode, Reads};
use super::{Target, Topology, TopologyError};
use crate::manifest::operator::{AggregateWork, JoinWork, Work};
use crate::operator::aggregate::AggregateSpec;
use crate::operator::{Field, JoinKind};

impl Topology {
    /// What is joined by a field gets it as its key first, where what it meets is by key. All nodes are resolved.
    pub(super) fn key_joins(&mut self) {
        for operator in 0..self.operators.len() {
            let node = &self.operators[operator];
            if !matches!(node.kind, Kind::JoinStreams { .. } | Kind::JoinTable { .. }) {
                continue;
            }
            let Work::Join(join) = &node.work else { continue };
            let Some(by) = join.by.clone().filter(|by| *by != Field::Key) else { continue };
            // A record without the field matches nothing, and a left join emits it so.
            let keeps_null = join.kind == JoinKind::Left && join.window.is_none();
            let (kind, input) = (Kind::SelectKey { by, keeps_null }, Target::Operator(operator, 0));
            let before = OperatorNode::before(&node.id, node.on_error.clone(), node.dead_letter, kind, input);
            self.put_before(input, before);
        }
    }

    /// What an operator is, given what it reads. All that it reads is resolved.
    pub(super) fn resolve(&mut self, operator: usize) -> Result<(), TopologyError> {
        let node = &self.operators[operator];
        let refuse = |reason: String| TopologyError::Operator { node: node.id.clone(), reason };
        let left = self.reads(operator, 0);
        // It is what a source is, and no node of the manifest.
        if node.kind == Kind::Table {
            return Ok(());
        }
        let kind = match node.work.clone() {
            Work::Merge => Kind::Merge,
            Work::Filter(condition) => Kind::Filter { of_table: left.is_table, condition },
            Work::Select(selection) => Kind::Select { of_table: left.is_table, selection },
            Work::Branch(_) | Work::FlatMap(_) if left.is_table => {
                let reason = "reads a table, whose rows replace each other, and makes a stream: read its topic as a [[source]], or \
                              use `filter` or `select`, which give a table";
                return Err(refuse(reason.to_owned()));
            }
            Work::Branch(branches) => {
                Kind::Branch(branches.into_iter().map(|(_, condition)| condition).collect())
            }
            Work::FlatMap(path) => Kind::FlatMap(path),
            Work::Deduplicate(work) => Kind::Deduplicate(work),
            Work::Aggregate(work) => aggregate(work, left.is_table).map_err(refuse)?,
            Work::Join(work) => match self.global(&work.with) {
                Some(table) => join_global(work, table, left).map_err(refuse)?,
                None => join(work, left, self.reads(operator, 1)).map_err(refuse)?,
            },
        };
        self.operators[operator].kind = kind;
        Ok(())
    }
}

fn aggregate(work: AggregateWork, of_table: bool) -> Result<Kind, String> {
    let AggregateWork { group_by: by, window, parts, form } = work;
    let spec = AggregateSpec { parts, form, of_table };
    spec.check().map_err(|error| format!("aggregates a table: {error}"))?;
    match (of_table, window) {
        (false, window) => Ok(Kind::Aggregate { by, spec, window }),
        (true, None) => Ok(Kind::AggregateTable { by: by.unwrap_or(Field::Key), spec }),
        (true, Some(_)) => {
            Err("has windows, but reads a table, whose rows replace each other; leave `window` out"
                .to_owned())
        }
    }
}

fn join(work: JoinWork, left: Reads, right: Reads) -> Result<Kind, String> {
    let JoinWork { with, by, kind, window, grace_ms, result } = work;
    let no_window = || match window {
        None => Ok(()),
        Some(_) => Err(format!(
            "joins the table `{with}`: `within`, `before` and `after` are for two streams; leave them out"
        )),
    };
    match (left.is_table, right.is_table) {
        (false, false) => match window {
            Some(window) => Ok(Kind::JoinStreams { kind, window, result }),
            None => Err(format!(
                "joins two streams, so it must say which records match: add within = \"10m\" to `join` (or read `{with}` as \
                 a [[table]])"
            )),
        },
        (false, true) => {
            no_window()?;
            if kind == JoinKind::Outer {
                return Err(format!(
                    "joins a stream with the table `{with}`, which is \"inner\" or \"left\""
                ));
            }
            if grace_ms.is_some() && right.history_ms.is_none() {
                return Err(format!(
                    "waits for the table `{with}` with `grace`, but the table has no history: give it one, as history = \"1d\", or \
                     leave `grace` out"
                ));
            }
            let (is_left, history_ms) = (kind == JoinKind::Left, right.history_ms);
            Ok(Kind::JoinTable { is_left, history_ms, wait_ms: grace_ms, result })
        }
        (true, true) => {
            no_window()?;
            if grace_ms.is_some() {
                return Err("joins two tables, which wait for nothing; leave `grace` out".to_owned());
            }
            match by.filter(|by| *by != Field::Key) {
                None => Ok(Kind::JoinTables { kind, result }),
                Some(by) if kind == JoinKind::Outer => Err(format!(
                    "joins tables by `{by}`, a field of the left one, which is \"inner\" or \"left\": a right row without left ones \
                     has no key in the result"
                )),
                Some(by) => Ok(Kind::ForeignLeft { by, is_left: kind == JoinKind::Left, result }),
            }
        }
        (true, false) => Err(format!("joins a table with the stream `{with}`: swap `from` and `join.with`")),
    }
}

fn join_global(work: JoinWork, table: usize, left: Reads) -> Result<Kind, String> {
    let JoinWork { with, by, kind, window, grace_ms, result } = work;
    if left.is_table {
        return Err(format!(
            "joins a table with the global table `{with}`, whose changes trigger nothing: read the left side as a [[source]], or \
             leave the scope of `{with}` out"
        ));
    }
    if window.is_some() || grace_ms.is_some() {
        return Err(format!(
            "joins the global table `{with}` as it is when a record comes: leave `within`, `before`, `after` and `grace` out"
        ));
    }
    if kind == JoinKind::Outer {
        return Err(format!("joins a stream with the global table `{with}`, which is \"inner\" or \"left\""));
    }
    Ok(Kind::JoinGlobal { table, by: by.unwrap_or(Field::Key), is_left: kind == JoinKind::Left, result })
}
