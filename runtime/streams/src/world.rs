//! The worlds of `pelton:plugin`, in one table: what a plugin of each world may call, which functions it exports, and
//! where it may stand in a pipeline.

use std::fmt;

/// An interface that plugins call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// Lines for the pipeline's log.
    Log,
    /// Keyed state of the task.
    State,
    /// Timers of the task.
    Timers,
    /// Requests to hosts that the manifest grants.
    Http,
}

impl Interface {
    /// Its name in `sdk/wit`.
    pub fn name(self) -> &'static str {
        match self {
            Interface::Log => "log",
            Interface::State => "state",
            Interface::Timers => "timers",
            Interface::Http => "http",
        }
    }
}

/// Where a plugin may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A node of a pipeline that hands records on.
    Node,
    /// The end of a pipeline.
    End,
    /// An aggregate over the records of a key.
    Aggregate,
    /// A sink, whose partitions it picks.
    Topic,
    /// An upgrade of a plugin that changes the layout of its state.
    Upgrade,
}

/// A set of capabilities: a plugin can reach only what its world imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Records in, records out.
    Transform,
    /// With timers and state.
    TransformTimer,
    /// With state.
    TransformState,
    /// Says which partition a record belongs to.
    Partitioner,
    /// One value for each key.
    Aggregator,
    /// Takes records and gives none.
    Consumer,
    /// The same, over HTTP.
    ConsumerHttp,
    /// Rewrites stored state.
    Migrator,
}

/// The properties of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldSpec {
    /// Its name in `sdk/wit`.
    pub name: &'static str,
    /// The interfaces that its plugins may call.
    pub imports: &'static [Interface],
    /// The functions that its plugins export.
    pub exports: &'static [&'static str],
    /// Where its plugins may stand.
    pub place: Place,
    /// Whether this version runs its plugins.
    pub is_hosted: bool,
}

impl World {
    /// All worlds. A component that does not name its world is of the first one whose functions it exports.
    pub const ALL: [World; 8] = [
        World::TransformTimer,
        World::Transform,
        World::TransformState,
        World::Partitioner,
        World::Aggregator,
        World::Consumer,
        World::ConsumerHttp,
        World::Migrator,
    ];

    /// The table.
    pub const fn spec(self) -> WorldSpec {
        use Interface::{Http, Log, State, Timers};
        let (name, imports, exports, place): (_, &[Interface], &[&str], _) = match self {
            World::Transform => ("transform", &[Log], &["configure", "process"], Place::Node),
            World::TransformTimer => {
                ("transform-timer", &[Log, State, Timers], &["configure", "process", "fire"], Place::Node)
            }
            World::TransformState => {
                ("transform-state", &[Log, State], &["configure", "process"], Place::Node)
            }
            World::Partitioner => ("partitioner", &[Log], &["configure", "partition"], Place::Topic),
            World::Aggregator => {
                ("aggregator", &[Log], &["configure", "create", "add", "subtract", "merge"], Place::Aggregate)
            }
            World::Consumer => ("consumer", &[Log], &["configure", "consume"], Place::End),
            World::ConsumerHttp => ("consumer-http", &[Log, Http], &["configure", "consume"], Place::End),
            World::Migrator => ("migrator", &[Log], &["configure", "migrate"], Place::Upgrade),
        };
        WorldSpec { name, imports, exports, place, is_hosted: !matches!(self, World::Migrator) }
    }

    /// Its name in `sdk/wit`.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// Whether its plugins need a store.
    pub fn needs_store(self) -> bool {
        self.spec().imports.contains(&Interface::State)
    }

    /// Whether its plugins send requests over HTTP.
    pub fn has_http(self) -> bool {
        self.spec().imports.contains(&Interface::Http)
    }

    /// Whether its plugins set timers.
    pub fn has_timers(self) -> bool {
        self.spec().imports.contains(&Interface::Timers)
    }

    /// The world of a name.
    pub fn named(name: &str) -> Option<World> {
        World::ALL.into_iter().find(|world| world.name() == name)
    }

    /// The world of a component that does not say it, by what it exports besides `configure`.
    pub fn guess(exports: impl Fn(&str) -> bool) -> Option<World> {
        let own = |world: &World| {
            let names = world.spec().exports.iter();
            let mut names = names.filter(|name| **name != "configure").peekable();
            names.peek().is_some() && names.all(|name| exports(name))
        };
        World::ALL.into_iter().find(own)
    }

    /// The names of those that this version runs.
    pub fn hosted() -> String {
        names(|spec| spec.is_hosted)
    }

    /// The names of those that this version runs in a place.
    pub fn hosted_at(place: Place) -> String {
        names(|spec| spec.is_hosted && spec.place == place)
    }
}

fn names(is_named: impl Fn(WorldSpec) -> bool) -> String {
    let named = World::ALL.into_iter().filter(|world| is_named(world.spec()));
    named.map(World::name).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_known_by_what_it_exports() {
        for (exports, expect) in [
            (&["configure", "process"][..], Some(World::Transform)),
            (&["process", "fire"], Some(World::TransformTimer)),
            (&["partition"], Some(World::Partitioner)),
            (&["create", "add", "subtract", "merge"], Some(World::Aggregator)),
            (&["consume"], Some(World::Consumer)),
            (&["migrate"], Some(World::Migrator)),
            (&["configure"], None),
            (&[], None),
        ] {
            assert_eq!(World::guess(|name| exports.contains(&name)), expect, "{exports:?}");
        }
        assert!(World::ALL.into_iter().all(|world| World::named(world.name()) == Some(world)));
        assert_eq!(World::named("transformer"), None);
        let hosted =
            "transform-timer, transform, transform-state, partitioner, aggregator, consumer, consumer-http";
        assert_eq!(World::hosted(), hosted);
        assert_eq!(World::hosted_at(Place::Node), "transform-timer, transform, transform-state");
        let stores: Vec<World> = World::ALL.into_iter().filter(|world| world.needs_store()).collect();
        assert_eq!(stores, [World::TransformTimer, World::TransformState]);
    }
}
