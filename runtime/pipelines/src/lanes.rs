//! The lanes of a pipeline: threads that its tasks are spread over.
//!
//! A lane is a driver with a thread, a transaction and plugins of its own. Which lane runs a task follows from the task and the
//! number of lanes alone, so lanes need not agree on anything: as long as a pipeline runs, a task stays where it is, a
//! partition that is added has its lane already, and no task is run by two of them. Tasks of one number of several
//! sub-topologies are of neighbouring lanes, so that parts of a pipeline with one partition each are spread as well.
//!
//! What holds between them:
//!
//! * Each lane is a producer of its own. Lane 0 has the name of the pipeline's group as its transactional id, and lane *n* has
//!   `#n` behind it; no pipeline can be called like that. So a lane ends its own transaction alone, and one that fails aborts
//!   what it has done and nothing else.
//! * A task may have been of another lane before: its pipeline had another number of lanes, or the server crashed between the
//!   two. What that lane left open, or is about to commit, must be decided before anybody reads where the task is. So all
//!   ids that a pipeline can have are fenced when it starts, before the first lane begins. A lane that begins again while
//!   others run fences its own.
//! * A topic between two parts of the pipeline is read by a lane as any other topic: what is committed of it. What is read is
//!   deleted by the lane whose task reads it.
//! * A changelog partition is written by the lane of its task alone.
//! * A lane that fails for a passing reason begins again alone, after a while of its own. One that fails for good stops all of
//!   them, at a commit each.

use pelton_commitlog::mutant::Mutant;
use pelton_streams::manifest::MAX_THREADS;
use pelton_streams::task::TaskId;

/// One of the lanes of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// From 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Lane {
    /// The lane of a pipeline with one thread.
    pub const ONLY: Lane = Lane { number: 0, of: 1 };

    /// The lanes of a pipeline with so many threads.
    pub fn all(threads: u32) -> impl Iterator<Item = Lane> {
        let of = threads.clamp(1, MAX_THREADS);
        (0..of).map(move |number| Lane { number, of })
    }

    /// Whether a task is its own.
    pub fn has(self, task: TaskId) -> bool {
        let of = u64::from(self.of.max(1));
        let number = (task.sub_topology as u64).wrapping_add(u64::from(task.partition.unsigned_abs())) % of;
        let borrows = Mutant::LanesOverlap.is_on() && number + 1 == u64::from(self.number);
        number == u64::from(self.number) || borrows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_of_one_lane_and_lanes_have_about_as_many() {
        for threads in [1, 2, 3, 7] {
            let mut counts = vec![0; threads as usize];
            for sub_topology in 0..3 {
                for partition in 0..12 {
                    let task = TaskId { sub_topology, partition };
                    let has: Vec<Lane> = Lane::all(threads).filter(|lane| lane.has(task)).collect();
                    let [lane] = has[..] else { panic!("{task:?} is of {has:?}") };
                    counts[lane.number as usize] += 1;
                }
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 3, "{counts:?}");
        }
    }

    #[test]
    fn parts_of_one_partition_are_spread() {
        let lane = |sub_topology| Lane::all(2).find(|lane| lane.has(TaskId { sub_topology, partition: 0 }));
        assert_ne!(lane(0), lane(1));
    }
}
