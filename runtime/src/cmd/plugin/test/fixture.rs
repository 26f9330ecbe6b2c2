//! A fixture: cases in TOML, each with what a plugin is given and what must come of it. `sdk/TESTING.md` has the format.

use std::collections::BTreeMap;
use std::ops::Range;

use pelton_streams::World;
use pelton_streams::manifest::stores::StoreGrant;
use pelton_streams::node_state::whole::Entry;
use pelton_streams::world::Place;
use serde::Deserialize;
use toml::Spanned;

use super::row::{Cell, Content, Header, Row};

/// Bytes of a fixture: a test of one plugin, which people read.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fixture {
    /// Settings of all cases.
    #[serde(default)]
    pub(super) config: toml::Table,
    /// The stores of a plugin whose plugin.toml names none, as in a pipeline.
    #[serde(default)]
    pub(super) stores: BTreeMap<String, StoreGrant>,
    #[serde(default)]
    pub(super) case: Vec<RawCase>,
}

/// A case as it is written: with steps, or with the keys of its only step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCase {
    name: Spanned<String>,
    #[serde(default)]
    config: toml::Table,
    refused: Option<Spanned<String>>,
    #[serde(default)]
    before: BTreeMap<String, Vec<GivenEntry>>,
    topic: Option<String>,
    #[serde(default)]
    step: Vec<Spanned<Step>>,
    // What follows is that of a step.
    partition: Option<u32>,
    partitions: Option<u32>,
    clock: Option<Spanned<i64>>,
    input: List<Given>,
    output: List<Emitted>,
    placed: List<u32>,
    failures: List<Failed>,
    after: Option<BTreeMap<String, Spanned<Vec<GivenEntry>>>>,
    timers: List<Timer>,
    add: List<Grouped>,
    subtract: List<Grouped>,
    merge: List<Merge>,
    values: List<Content>,
}

/// A list, and where it is in the fixture.
pub(super) type List<T> = Option<Spanned<Vec<T>>>;

/// What is in a list; nothing if it is not there.
pub(super) fn items<T>(list: &List<T>) -> &[T] {
    list.as_ref().map_or(&[], |list| list.get_ref().as_slice())
}

/// A new instance, with stores of its own, and what is done with them.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// Where its name is in the fixture.
    pub(super) named_at: Range<usize>,
    /// Those of the file, and over them its own.
    pub(super) config: toml::Table,
    /// The text with which the plugin refuses its settings.
    pub(super) refused: Option<Spanned<String>>,
    /// What is in the stores of partition 0 at first.
    pub(super) before: BTreeMap<String, Vec<Entry>>,
    pub(super) topic: String,
    pub(super) steps: Vec<Step>,
    /// Where each step begins in the fixture.
    pub(super) steps_at: Vec<Range<usize>>,
    /// The steps are tables of their own.
    pub(super) has_steps: bool,
}

/// One thing that happens: the clock goes on, then a batch comes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// The partition that the batch is of.
    #[serde(default)]
    pub(super) partition: u32,
    /// Those of the topic that a partitioner places records into.
    pub(super) partitions: Option<u32>,
    /// The machine's clock from here on, in milliseconds.
    pub(super) clock: Option<Spanned<i64>>,
    pub(super) input: List<Given>,
    pub(super) output: List<Emitted>,
    pub(super) placed: List<u32>,
    pub(super) failures: List<Failed>,
    /// What these stores have afterwards, whole.
    pub(super) after: Option<BTreeMap<String, Spanned<Vec<GivenEntry>>>>,
    /// Those that are set afterwards, all of them.
    pub(super) timers: List<Timer>,
    pub(super) add: List<Grouped>,
    pub(super) subtract: List<Grouped>,
    pub(super) merge: List<Merge>,
    pub(super) values: List<Content>,
}

/// A record that is given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    pub(super) key: Option<Content>,
    pub(super) value: Option<Content>,
    #[serde(default)]
    pub(super) timestamp: i64,
    #[serde(default)]
    pub(super) headers: Vec<Header>,
    /// None: the next one.
    pub(super) offset: Option<i64>,
}

/// A record that is emitted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Emitted {
    pub(super) key: Option<Content>,
    pub(super) value: Option<Content>,
    #[serde(default)]
    pub(super) timestamp: i64,
    #[serde(default)]
    pub(super) headers: Vec<Header>,
    /// The name of its output; none: the first one.
    pub(super) to: Option<String>,
}

/// Something that cannot be processed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failed {
    /// The offset of the record, or of the first of several.
    pub(super) offset: Option<i64>,
    /// The offset of the last of them, where it is not known which one it is.
    pub(super) last: Option<i64>,
    /// The place of the record in `add` or `subtract`, from 0.
    pub(super) record: Option<i64>,
    /// The name of the timer.
    pub(super) timer: Option<String>,
    /// `reject`, `retry`, `fatal`, `trapped` and the like.
    pub(super) kind: Option<String>,
    /// A part of why.
    #[serde(default)]
    pub(super) reason: String,
    /// The task stops.
    #[serde(default)]
    pub(super) stops: bool,
}

/// An entry of a store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenEntry {
    key: Content,
    start: Option<i64>,
    value: Content,
}

/// A timer that is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timer {
    on: TimerOn,
    name: Content,
    at: i64,
}

/// Whose time a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TimerOn {
    Stream,
    Clock,
}

/// A record for a group of an aggregator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grouped {
    pub(super) group: Content,
    pub(super) value: Option<Content>,
    #[serde(default)]
    pub(super) timestamp: i64,
}

/// A group takes in another one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Merge {
    pub(super) into: Content,
    pub(super) from: Content,
}

impl TimerOn {
    pub(super) fn name(self) -> &'static str {
        match self {
            TimerOn::Stream => "stream",
            TimerOn::Clock => "clock",
        }
    }
}

impl GivenEntry {
    fn entry(&self) -> Entry {
        Entry { key: self.key.bytes().to_vec(), start: self.start, value: self.value.bytes().to_vec() }
    }

    pub(super) fn row(&self) -> Row {
        entry_row(self.key.clone(), self.start, self.value.clone())
    }
}

/// An entry of a store, as it is compared.
pub(super) fn entry_row(key: Content, start: Option<i64>, value: Content) -> Row {
    let row = Row::default().with("key", Some(Cell::Content(key))).with("start", start.map(Cell::Number));
    row.with("value", Some(Cell::Content(value)))
}

impl Timer {
    pub(super) fn row(&self) -> Row {
        timer_row(self.on, self.name.clone(), self.at)
    }
}

/// A timer, as it is compared.
pub(super) fn timer_row(on: TimerOn, name: Content, at: i64) -> Row {
    let row = Row::default().with("on", Some(Cell::Text(on.name().to_owned())));
    row.with("name", Some(Cell::Content(name))).with("at", Some(Cell::Number(at)))
}

impl Emitted {
    /// As it is compared. `first` is the name of the first output, which may be said or not.
    pub(super) fn row(&self, first: &str) -> Row {
        let headers = (!self.headers.is_empty()).then(|| Cell::Headers(self.headers.clone()));
        let to = self.to.clone().filter(|to| to != first);
        Row::default()
            .with("key", self.key.clone().map(Cell::Content))
            .with("value", self.value.clone().map(Cell::Content))
            .with("timestamp", (self.timestamp != 0).then_some(Cell::Number(self.timestamp)))
            .with("headers", headers)
            .with("to", to.map(Cell::Text))
    }
}

impl Failed {
    /// As it is compared: a part of the reason is enough, and the kind may be left out.
    pub(super) fn row(&self) -> Row {
        self.row_of(Cell::Part(self.reason.clone()))
    }

    /// As it came.
    pub(super) fn came(&self) -> Row {
        self.row_of(Cell::Text(self.reason.clone()))
    }

    fn row_of(&self, reason: Cell) -> Row {
        Row::default()
            .with("offset", self.offset.map(Cell::Number))
            .with("last", self.last.map(Cell::Number))
            .with("record", self.record.map(Cell::Number))
            .with("timer", self.timer.clone().map(Cell::Text))
            .with("kind", self.kind.clone().map(Cell::Text))
            .with("reason", Some(reason))
            .with("stops", self.stops.then_some(Cell::Flag(true)))
    }
}

/// A value of a group, as it is compared.
pub(super) fn value_row(value: Content) -> Row {
    Row::default().with("value", Some(Cell::Content(value)))
}

impl Step {
    /// Its keys, each with the worlds that it is for.
    fn used(&self) -> Vec<(&'static str, &'static [Place])> {
        const NODE: &[Place] = &[Place::Node];
        const TOPIC: &[Place] = &[Place::Topic];
        const FOLD: &[Place] = &[Place::Aggregate];
        const RECORDS: &[Place] = &[Place::Node, Place::Topic];
        const ALL: &[Place] = &[Place::Node, Place::Topic, Place::Aggregate];
        let keys = [
            ("input", self.input.is_some(), RECORDS),
            ("partition", self.partition != 0, RECORDS),
            ("output", self.output.is_some(), NODE),
            ("after", self.after.is_some(), NODE),
            ("timers", self.timers.is_some(), NODE),
            ("clock", self.clock.is_some(), NODE),
            ("partitions", self.partitions.is_some(), TOPIC),
            ("placed", self.placed.is_some(), TOPIC),
            ("add", self.add.is_some(), FOLD),
            ("subtract", self.subtract.is_some(), FOLD),
            ("merge", self.merge.is_some(), FOLD),
            ("values", self.values.is_some(), FOLD),
            ("failures", self.failures.is_some(), ALL),
        ];
        keys.into_iter().filter(|(_, is_used, _)| *is_used).map(|(key, _, places)| (key, places)).collect()
    }

    /// The end of the last of its keys behind which something can be added; none if it has no such key.
    pub(super) fn end(&self) -> Option<usize> {
        fn end<T>(part: &Option<Spanned<T>>) -> Option<usize> {
            part.as_ref().map(|part| part.span().end)
        }
        let given =
            [end(&self.input), end(&self.add), end(&self.subtract), end(&self.merge), end(&self.clock)];
        let expected =
            [end(&self.output), end(&self.placed), end(&self.failures), end(&self.values), end(&self.timers)];
        let after = self.after.iter().flat_map(BTreeMap::values).map(|entries| entries.span().end);
        given.into_iter().chain(expected).flatten().chain(after).max()
    }

    /// Nothing is said of what must come of it.
    pub(super) fn expects_nothing(&self) -> bool {
        let lists =
            [self.output.is_none(), self.placed.is_none(), self.failures.is_none(), self.values.is_none()];
        lists.into_iter().all(|is_none| is_none) && self.after.is_none() && self.timers.is_none()
    }

    fn check(&self, world: World) -> Result<(), String> {
        let place = world.spec().place;
        if let Some((key, _)) = self.used().into_iter().find(|(_, places)| !places.contains(&place)) {
            return Err(format!("`{key}` is not for plugins of the world `{world}`"));
        }
        let calls = [self.add.is_some(), self.subtract.is_some(), self.merge.is_some()];
        if calls.into_iter().filter(|is_made| *is_made).count() > 1 {
            return Err("`add`, `subtract` and `merge` are one call each: write a step for each".to_owned());
        }
        if i32::try_from(self.partition).is_err() {
            return Err(format!("`partition` is {}, which no topic has", self.partition));
        }
        if place == Place::Topic && !self.partitions.is_some_and(|count| (1..=100_000).contains(&count)) {
            return Err(
                "`partitions` must say how many there are to place records into, from 1 to 100000".to_owned()
            );
        }
        if self.clock.as_ref().is_some_and(|clock| *clock.get_ref() < 0) {
            return Err("`clock` must be milliseconds since 1970-01-01 UTC".to_owned());
        }
        self.check_offsets()
    }

    fn check_offsets(&self) -> Result<(), String> {
        let mut last = -1;
        for offset in items(&self.input).iter().filter_map(|record| record.offset) {
            if offset <= last {
                return Err(format!("offset {offset} comes behind {last}: offsets of a batch rise"));
            }
            last = offset;
        }
        Ok(())
    }
}

impl Fixture {
    /// # Errors
    /// What is wrong, with its line.
    pub(super) fn parse(text: &str) -> Result<Fixture, String> {
        let fixture: Fixture = toml::from_str(text).map_err(|error| error.to_string())?;
        if fixture.case.is_empty() {
            return Err("it has no [[case]]".to_owned());
        }
        Ok(fixture)
    }

    /// The cases, for a plugin of a world.
    ///
    /// # Errors
    /// What makes no sense, and in which case.
    pub(super) fn cases(self, world: World) -> Result<Vec<Case>, String> {
        let shared = self.config;
        let case = |raw: RawCase| {
            let name = raw.name.get_ref().clone();
            raw.check(world, &shared).map_err(|wrong| format!("case `{name}`: {wrong}"))
        };
        self.case.into_iter().map(case).collect()
    }
}

impl RawCase {
    fn check(self, world: World, shared: &toml::Table) -> Result<Case, String> {
        let mut config = shared.clone();
        config.extend(self.config);
        let own = Step {
            partition: self.partition.unwrap_or(0),
            partitions: self.partitions,
            clock: self.clock,
            input: self.input,
            output: self.output,
            placed: self.placed,
            failures: self.failures,
            after: self.after,
            timers: self.timers,
            add: self.add,
            subtract: self.subtract,
            merge: self.merge,
            values: self.values,
        };
        let has_steps = !self.step.is_empty();
        let named_at = self.name.span();
        let steps_at = self.step.iter().map(Spanned::span).collect();
        let mut steps: Vec<Step> = self.step.into_iter().map(Spanned::into_inner).collect();
        // These two hold for all steps.
        let of_a_step = own.used().into_iter().find(|(key, _)| !matches!(*key, "partitions" | "clock"));
        match (has_steps, of_a_step) {
            (true, Some((key, _))) => return Err(format!("it has steps and `{key}`: put it into a step")),
            (true, _) => {
                if let Some(first) = steps.first_mut() {
                    first.clock = first.clock.take().or(own.clock);
                }
                steps.iter_mut().for_each(|step| step.partitions = step.partitions.or(own.partitions));
            }
            (false, _) if self.refused.is_some() => {}
            (false, _) => steps.push(own),
        }
        steps.iter().try_for_each(|step| step.check(world))?;
        if self.refused.is_some() && !steps.is_empty() {
            return Err("its settings are `refused`, so nothing can be given".to_owned());
        }
        if !self.before.is_empty() && !world.needs_store() {
            return Err(format!("`before` is not for plugins of the world `{world}`"));
        }
        let entries = |entries: Vec<GivenEntry>| entries.iter().map(GivenEntry::entry).collect();
        Ok(Case {
            name: self.name.into_inner(),
            named_at,
            config,
            refused: self.refused,
            before: self.before.into_iter().map(|(store, all)| (store, entries(all))).collect(),
            topic: self.topic.unwrap_or_else(|| "test".to_owned()),
            steps,
            steps_at,
            has_steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(text: &str, world: World) -> Result<Vec<Case>, String> {
        Fixture::parse(text)?.cases(world)
    }

    #[test]
    fn a_case_is_a_step_or_has_steps() {
        let text = "config = { a = 1, b = 2 }\n[[case]]\nname = 'one'\nconfig.b = 3\ninput = [{ value = 'x' }]\n\
                    [[case]]\nname = 'two'\nclock = 5\n[[case.step]]\n[[case.step]]\nclock = 9\noutput = []\n";
        let cases = cases(text, World::TransformTimer).expect("is a fixture");
        let [one, two] = &cases[..] else { panic!("two cases") };
        assert_eq!((one.steps.len(), one.has_steps, one.topic.as_str()), (1, false, "test"));
        assert_eq!(one.config["a"], toml::Value::Integer(1));
        assert_eq!(one.config["b"], toml::Value::Integer(3));
        let clocks: Vec<_> =
            two.steps.iter().map(|step| step.clock.as_ref().map(|clock| *clock.get_ref())).collect();
        assert_eq!((clocks, two.has_steps), (vec![Some(5), Some(9)], true));
        assert!(two.steps[0].expects_nothing() && !two.steps[1].expects_nothing());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let fails = |case: &str, world: World, expect: &str| {
            let told = cases(&format!("[[case]]\nname = 'c'\n{case}"), world).expect_err("makes no sense");
            assert!(told.contains(expect), "{told}");
        };
        fails(
            "placed = [1]",
            World::Transform,
            "case `c`: `placed` is not for plugins of the world `transform`",
        );
        fails(
            "add = [{ group = 'a' }]\nmerge = [{ into = 'a', from = 'b' }]",
            World::Aggregator,
            "one call each",
        );
        fails("input = [{ offset = 3 }, { offset = 3 }]", World::Transform, "offset 3 comes behind 3");
        fails("input = [{ value = 'x' }]", World::Partitioner, "`partitions` must say");
        fails("input = [{}]\n[[case.step]]", World::Transform, "it has steps and `input`");
        fails("partitions = 3\nplaced = [1]\n[[case.step]]", World::Partitioner, "it has steps and `placed`");
        fails("refused = 'no'\n[[case.step]]", World::Transform, "nothing can be given");
        fails("before.seen = []", World::Transform, "`before` is not for plugins of the world `transform`");
        fails("inputs = []", World::Transform, "unknown field `inputs`");
        fails("input = [{ value = 5 }]", World::Transform, "must be a text");
        assert!(cases("", World::Transform).expect_err("is empty").contains("no [[case]]"));
    }

    #[test]
    fn the_first_output_need_not_be_named() {
        let text = "[[case]]\nname = 'c'\noutput = [{ to = 'main' }, {}, { to = 'other' }]";
        let cases = cases(text, World::Transform).expect("is a fixture");
        let rows: Vec<Row> = items(&cases[0].steps[0].output).iter().map(|one| one.row("main")).collect();
        assert!(rows[0].is(&rows[1]) && !rows[0].is(&rows[2]));
    }
}
