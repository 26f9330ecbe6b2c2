//! Following what a pipeline keeps: its rows from one view of each task, and the changes of them as its changelog has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::operator::scan::Wanted;
use pelton_streams::state::{StateError, StateView};
use pelton_streams::state_tables::StateRow;
use pelton_streams::tables::RowRange;
use tokio::sync::watch;

use super::Supervisor;
use super::asking::{Asked, StateAskError};
use crate::readers::{Offsets, StateReaders};

/// Rows that are read at once.
const PAGE_ROWS: usize = 1_000;

/// A table of a pipeline that somebody wants to follow.
pub struct FollowedState {
    asked: Asked,
    partitions: Vec<i32>,
    changelog: String,
    keys: RowRange,
}

/// One task's stores, and those of the tasks before it.
struct View<'v> {
    partition: i32,
    view: &'v dyn StateView,
    inputs: &'v Offsets,
    before: Option<&'v View<'v>>,
}

impl Supervisor {
    /// A table, to be followed. Blocking.
    ///
    /// # Errors
    /// There is none, or it cannot be read now, or not followed at all.
    pub fn state_follow(&self, name: &str, keys: RowRange) -> Result<FollowedState, StateAskError> {
        let asked = self.asked(name)?;
        if !asked.table.can_be_followed() {
            return Err(StateAskError::NotFollowed(name.to_owned()));
        }
        let partitions = self.partitions_asked(&asked, None);
        // One that cannot be read is refused here, with the reason.
        for partition in &partitions {
            asked.read(*partition, &mut Offsets::new(), |_| Ok(()))?;
        }
        let graph = asked.topology.sub_topologies[asked.table.sub_topology].graph.as_ref();
        let changelog = graph.map(|graph| graph.stores[asked.table.index].changelog);
        let changelog = changelog.map(|output| asked.topology.outputs[output].topic.clone());
        Ok(FollowedState { asked, partitions, changelog: changelog.unwrap_or_default(), keys })
    }
}

impl FollowedState {
    /// The topic that has the changes.
    pub fn changelog(&self) -> &str {
        &self.changelog
    }

    /// Moves when stores are about to be closed: [`FollowedState::rows`] holds that up.
    pub fn closing(&self) -> watch::Receiver<u64> {
        self.asked.board.readers().closing()
    }

    /// Shows all rows, as they are in one view of each task, until one of the two says that it is enough. `begin` is told first
    /// which last offsets of the inputs they reflect, and the next offset of each partition of the changelog. Blocking.
    ///
    /// # Errors
    /// The stores cannot be read.
    pub fn rows(
        &self,
        begin: &mut dyn FnMut(Offsets, BTreeMap<u32, i64>) -> bool,
        row: &mut dyn FnMut(StateRow) -> bool,
    ) -> Result<(), StateAskError> {
        let readers = Arc::clone(self.asked.board.readers());
        let shown =
            self.with_views(&readers, &self.partitions, None, &mut |last| self.show(last, begin, row));
        shown.map_err(|(partition, error)| match error {
            None => self.asked.not_open(partition),
            Some(error) => StateAskError::Store { table: self.asked.name.clone(), error },
        })
    }

    /// Opens a view of each task, in their order, so that two who do that never wait for each other.
    fn with_views(
        &self,
        readers: &StateReaders,
        partitions: &[i32],
        before: Option<&View<'_>>,
        show: &mut dyn FnMut(&View<'_>) -> Result<(), StateError>,
    ) -> Result<(), (i32, Option<StateError>)> {
        let Some((partition, rest)) = partitions.split_first() else {
            let shown = before.map_or(Ok(()), show);
            return shown.map_err(|error| (0, Some(error)));
        };
        let partition = *partition;
        let read = readers.read_for_long(self.asked.task(partition), |view, inputs| {
            let view = View { partition, view, inputs, before };
            Ok(self.with_views(readers, rest, Some(&view), show))
        });
        match read {
            None => Err((partition, None)),
            Some(Err(error)) => Err((partition, Some(error))),
            Some(Ok(shown)) => shown,
        }
    }

    fn show(
        &self,
        last: &View<'_>,
        begin: &mut dyn FnMut(Offsets, BTreeMap<u32, i64>) -> bool,
        row: &mut dyn FnMut(StateRow) -> bool,
    ) -> Result<(), StateError> {
        let table = &self.asked.table;
        let views: Vec<&View<'_>> = std::iter::successors(Some(last), |view| view.before).collect();
        let (mut offsets, mut next) = (Offsets::new(), BTreeMap::new());
        for View { partition, view, inputs, .. } in &views {
            for (topic, partitions) in *inputs {
                let last = partitions.iter().map(|(partition, next)| (*partition, next - 1));
                offsets.entry(topic.clone()).or_default().extend(last);
            }
            next.insert(partition.unsigned_abs(), view.position()[table.index].offset);
        }
        if !begin(offsets, next) {
            return Ok(());
        }
        let mut wanted = Wanted { keys: self.keys.clone(), ..Wanted::default() };
        loop {
            let part = |view: &&View<'_>| table.part(view.view, &wanted, PAGE_ROWS, views.len());
            let parts = views.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            let page = table.page(parts, PAGE_ROWS)?;
            for one in page.rows {
                if !row(one) {
                    return Ok(());
                }
            }
            match page.next {
                Some(behind) => wanted.behind = Some(behind),
                None => return Ok(()),
            }
        }
    }

    /// What a change in the changelog says of a row that is wanted; none if it says nothing.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn change(&self, key: &[u8], value: Option<&[u8]>) -> Result<Option<StateRow>, StateError> {
        let row = self.asked.table.change(key, value)?;
        Ok(row.filter(|row| self.keys.contains(&row.key)))
    }
}
