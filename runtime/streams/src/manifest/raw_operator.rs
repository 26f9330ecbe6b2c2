//! Built-in operators as serde reads them, and the rules that serde cannot say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::ManifestError;
use super::operator::{AggregateWork, DeduplicateWork, GlobalOf, GlobalSpec, JoinWork, TableSpec, Work};
use super::raw::{id, invalid, partitioner, table_name, topic, unknown};
use super::raw_native::{self, InOrder};
use super::values::Millis;
use crate::operator::aggregate::{AggregateSpec, Function, Part, ResultForm};
use crate::operator::{Closing, Emit, Field, JoinKind, JoinWindow, JsonJoin, Late, MAX_MS, Side, WindowSpec};

/// What a single value is called where only errors see it.
const SINGLE: &str = "value";
/// What names a plugin in `aggregate`.
const PLUGIN: &str = "plugin";

/// `from`: one name, or a list of them.
pub(super) struct From(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<From, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = From;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the id of a source or node, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<From, E> {
                Ok(From(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<From, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(From(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

/// `aggregate`: one function, or several by name.
pub(super) enum Aggregate {
    Single(String),
    Object(BTreeMap<String, String>),
}

impl<'de> Deserialize<'de> for Aggregate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Aggregate, D::Error> {
        struct Functions;
        impl<'de> Visitor<'de> for Functions {
            type Value = Aggregate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a function, as \"count\", or a table of functions by name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Aggregate, E> {
                Ok(Aggregate::Single(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Aggregate, A::Error> {
                let mut functions = BTreeMap::new();
                while let Some((name, function)) = items.next_entry()? {
                    functions.insert(name, function);
                }
                Ok(Aggregate::Object(functions))
            }
        }
        deserializer.deserialize_any(Functions)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    tumbling: Option<Millis>,
    hopping: Option<Millis>,
    advance: Option<Millis>,
    sliding: Option<Millis>,
    session: Option<Millis>,
    grace: Option<Millis>,
    retention: Option<Millis>,
    emit: Option<String>,
    late: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deduplicate {
    by: Option<String>,
    within: Millis,
    grace: Option<Millis>,
    late: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    with: String,
    kind: Option<String>,
    by: Option<String>,
    within: Option<Millis>,
    before: Option<Millis>,
    after: Option<Millis>,
    grace: Option<Millis>,
    left: Option<String>,
    right: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    id: String,
    topic: Option<String>,
    table: Option<String>,
    scope: Option<String>,
    partitioner: Option<String>,
    history: Option<Millis>,
}

/// A table is one of these.
pub(super) enum CheckedTable {
    Partitioned(TableSpec),
    Global(GlobalSpec),
}

/// The keys of a node that make it a built-in operator.
pub(super) struct RawWork {
    pub(super) group_by: Option<String>,
    pub(super) window: Option<Window>,
    pub(super) aggregate: Option<Aggregate>,
    pub(super) deduplicate: Option<Deduplicate>,
    pub(super) join: Option<Join>,
    pub(super) filter: Option<String>,
    pub(super) branch: Option<InOrder>,
    pub(super) select: Option<InOrder>,
    pub(super) flat_map: Option<String>,
}

impl RawWork {
    /// The keys that say what a node does, each with whether it is there.
    fn kinds(&self) -> impl Iterator<Item = &'static str> + use<> {
        let kinds = [
            ("filter", self.filter.is_some()),
            ("branch", self.branch.is_some()),
            ("select", self.select.is_some()),
            ("flat_map", self.flat_map.is_some()),
            ("aggregate", self.aggregate.is_some()),
            ("deduplicate", self.deduplicate.is_some()),
            ("join", self.join.is_some()),
        ];
        kinds.into_iter().filter(|(_, is_there)| *is_there).map(|(key, _)| key)
    }

    /// The first key that is there.
    pub(super) fn any(&self) -> Option<&'static str> {
        let others = [("group_by", self.group_by.is_some()), ("window", self.window.is_some())];
        let others = others.into_iter().filter(|(_, is_there)| *is_there).map(|(key, _)| key);
        self.kinds().chain(others).next()
    }

    /// What the node does, if it is a built-in operator; `None` if none of its keys is there.
    pub(super) fn check(self, at: &str) -> Result<Option<Work>, ManifestError> {
        let mut kinds = self.kinds();
        if let (Some(first), Some(second)) = (kinds.next(), kinds.next()) {
            let reason =
                format!("cannot stand beside `{first}`: a node does one thing; add another [[node]]");
            return Err(invalid(&format!("{at}.{second}"), reason));
        }
        if self.aggregate.is_none() {
            let alone = [("group_by", self.group_by.is_some()), ("window", self.window.is_some())];
            if let Some((key, _)) = alone.into_iter().find(|(_, is_there)| *is_there) {
                let reason = "needs `aggregate`: say what is made of the records, as aggregate = \"count\"";
                return Err(invalid(&format!("{at}.{key}"), reason.to_owned()));
            }
        }
        if let Some(aggregate) = self.aggregate {
            let group_by = self.group_by.map(|text| field(&format!("{at}.group_by"), &text)).transpose()?;
            let window = self.window.map(|window| window.check(&format!("{at}.window"))).transpose()?;
            let (parts, form) = aggregate.check(&format!("{at}.aggregate"))?;
            return Ok(Some(Work::Aggregate(AggregateWork { group_by, window, parts, form })));
        }
        if let Some(deduplicate) = self.deduplicate {
            return deduplicate.check(&format!("{at}.deduplicate")).map(Work::Deduplicate).map(Some);
        }
        let native = [
            self.filter.map(|text| raw_native::filter(&format!("{at}.filter"), &text)),
            self.branch.map(|branches| raw_native::branch(&format!("{at}.branch"), branches)),
            self.select.map(|members| raw_native::select(&format!("{at}.select"), members)),
            self.flat_map.map(|text| raw_native::flat_map(&format!("{at}.flat_map"), &text)),
        ];
        if let Some(work) = native.into_iter().flatten().next() {
            return work.map(Some);
        }
        self.join.map(|join| join.check(&format!("{at}.join")).map(Work::Join)).transpose()
    }
}

impl Aggregate {
    /// The plugin that it names, if it does.
    pub(super) fn plugin(&self) -> Option<&str> {
        match self {
            Aggregate::Single(_) => None,
            Aggregate::Object(functions) => functions.get(PLUGIN).map(String::as_str),
        }
    }

    fn check(self, at: &str) -> Result<(Vec<Part>, ResultForm), ManifestError> {
        let part = |at: String, name: &str, text: &str| {
            let function = Function::parse(text);
            let function =
                function.map_err(|expect| invalid(&at, format!("is `{text}`, but must be {expect}")))?;
            Ok(Part { name: name.to_owned(), function })
        };
        let (parts, form) = match self {
            Aggregate::Object(functions) if functions.contains_key(PLUGIN) => {
                return match functions.keys().find(|name| *name != PLUGIN) {
                    None => Ok((Vec::new(), ResultForm::Raw)),
                    Some(other) => {
                        let reason = "cannot stand beside `plugin`, whose value is the whole result; add another [[node]]";
                        Err(invalid(&format!("{at}.{other}"), reason.to_owned()))
                    }
                };
            }
            Aggregate::Single(text) => (vec![part(at.to_owned(), SINGLE, &text)?], ResultForm::Single),
            Aggregate::Object(functions) => {
                let parts = functions.iter().map(|(name, text)| part(format!("{at}.{name}"), name, text));
                (parts.collect::<Result<Vec<_>, _>>()?, ResultForm::Object)
            }
        };
        // Whether a table is aggregated shows when the manifest is linked.
        let spec = AggregateSpec { parts, form, of_table: false };
        spec.check().map_err(|error| invalid(at, format!("cannot be computed: {error}")))?;
        Ok((spec.parts, form))
    }
}

impl Window {
    fn check(self, at: &str) -> Result<(WindowSpec, Closing), ManifestError> {
        let kinds = [
            ("tumbling", self.tumbling),
            ("hopping", self.hopping),
            ("sliding", self.sliding),
            ("session", self.session),
        ];
        let mut kinds = kinds.into_iter().filter_map(|(kind, length)| Some((kind, length?)));
        let Some((kind, length)) = kinds.next() else {
            let reason = "has no kind: give it `tumbling`, `hopping` with `advance`, `sliding` or `session`";
            return Err(invalid(at, reason.to_owned()));
        };
        if let Some((second, _)) = kinds.next() {
            return Err(invalid(at, format!("is `{kind}` and `{second}`, and can be one of them")));
        }
        let length = ms(&format!("{at}.{kind}"), length)?;
        let advance = self.advance.map(|advance| ms(&format!("{at}.advance"), advance)).transpose()?;
        let spec = match (kind, advance) {
            ("hopping", Some(advance_ms)) => WindowSpec::Hopping { size_ms: length, advance_ms },
            ("hopping", None) => {
                let reason = "is missing: say how much later the next window begins";
                return Err(invalid(&format!("{at}.advance"), reason.to_owned()));
            }
            (_, Some(_)) => {
                return Err(invalid(&format!("{at}.advance"), format!("is for `hopping`, not for `{kind}`")));
            }
            ("tumbling", None) => WindowSpec::Hopping { size_ms: length, advance_ms: length },
            ("sliding", None) => WindowSpec::Sliding { size_ms: length },
            (_, None) => WindowSpec::Session { gap_ms: length },
        };
        let or_none =
            |key: &str, given: Option<Millis>| given.map_or(Ok(0), |given| ms(&format!("{at}.{key}"), given));
        let emit = match self.emit.as_deref() {
            None | Some("on-update") => Emit::OnUpdate,
            Some("on-close") => Emit::OnClose,
            Some(other) => return Err(unknown(&format!("{at}.emit"), other, &["on-update", "on-close"])),
        };
        let closing = Closing {
            grace_ms: or_none("grace", self.grace)?,
            emit,
            late: late(&format!("{at}.late"), self.late.as_deref())?,
            retention_ms: or_none("retention", self.retention)?,
        };
        spec.check(&closing).map_err(|error| invalid(at, format!("cannot be: {error}")))?;
        Ok((spec, closing))
    }
}

impl Deduplicate {
    fn check(self, at: &str) -> Result<DeduplicateWork, ManifestError> {
        let by = self.by.map(|text| field(&format!("{at}.by"), &text)).transpose()?;
        let within_ms = ms(&format!("{at}.within"), self.within)?;
        if within_ms == 0 {
            return Err(invalid(
                &format!("{at}.within"),
                "is 0, and nothing repeats within no time".to_owned(),
            ));
        }
        let grace_ms = self.grace.map_or(Ok(0), |grace| ms(&format!("{at}.grace"), grace))?;
        let late = late(&format!("{at}.late"), self.late.as_deref())?;
        Ok(DeduplicateWork { by, within_ms, grace_ms, late })
    }
}

impl Join {
    fn check(self, at: &str) -> Result<JoinWork, ManifestError> {
        let kind = match self.kind.as_deref() {
            None | Some("inner") => JoinKind::Inner,
            Some("left") => JoinKind::Left,
            Some("outer") => JoinKind::Outer,
            Some(other) => return Err(unknown(&format!("{at}.kind"), other, &["inner", "left", "outer"])),
        };
        let by = self.by.map(|text| field(&format!("{at}.by"), &text)).transpose()?;
        let length = |key: &str, given: Option<Millis>| {
            given.map(|given| ms(&format!("{at}.{key}"), given)).transpose()
        };
        let (within, before, after) =
            (length("within", self.within)?, length("before", self.before)?, length("after", self.after)?);
        if within.is_some() && (before.is_some() || after.is_some()) {
            let reason = "is `before` and `after` at once: leave those out, or it";
            return Err(invalid(&format!("{at}.within"), reason.to_owned()));
        }
        let grace_ms = length("grace", self.grace)?;
        let has_window = within.or(before).or(after).is_some();
        let window = has_window.then(|| JoinWindow {
            before_ms: within.or(before).unwrap_or(0),
            after_ms: within.or(after).unwrap_or(0),
            grace_ms: grace_ms.unwrap_or(0),
        });
        let side = |given: Option<String>, default: Side| match given.as_deref() {
            None => default,
            Some("*") => Side::Spread,
            Some("") => Side::Omit,
            Some(name) => Side::Member(name.to_owned()),
        };
        let name = self.with.split(':').next().unwrap_or_default().to_owned();
        let (left, right) = (side(self.left, Side::Spread), side(self.right, Side::Member(name)));
        let result = JsonJoin::new(left, right);
        let result = result.map_err(|error| invalid(at, format!("has no good result: {error}")))?;
        Ok(JoinWork { with: self.with, by, kind, window, grace_ms, result })
    }
}

impl Table {
    pub(super) fn check(self, at: &str, ids: &mut BTreeSet<String>) -> Result<CheckedTable, ManifestError> {
        id(&format!("{at}.id"), &self.id, ids)?;
        let is_global = match self.scope.as_deref() {
            None => self.table.is_some(),
            Some("partitioned") => false,
            Some("global") => true,
            Some(other) => return Err(unknown(&format!("{at}.scope"), other, &["partitioned", "global"])),
        };
        let of = match (self.topic, self.table) {
            (Some(name), None) => {
                topic(&format!("{at}.topic"), &name)?;
                GlobalOf::Topic(name)
            }
            (None, Some(name)) if is_global => {
                table_name(&format!("{at}.table"), &name)?;
                GlobalOf::Table(name)
            }
            (None, Some(_)) => {
                let reason = "names a table that stands alone, of which all of its rows are read: say scope = \"global\", or \
                              name its topic with `topic`";
                return Err(invalid(&format!("{at}.table"), reason.to_owned()));
            }
            (Some(_), Some(_)) => {
                let reason = "stands beside `topic`, and a table is one of them: leave one out";
                return Err(invalid(&format!("{at}.table"), reason.to_owned()));
            }
            (None, None) => {
                let reason = "is missing: name a compacted topic, or with `table` one that `pelton table create` has made";
                return Err(invalid(&format!("{at}.topic"), reason.to_owned()));
            }
        };
        let partitioner = partitioner(&format!("{at}.partitioner"), self.partitioner)?;
        let history_ms = self.history.map(|history| ms(&format!("{at}.history"), history)).transpose()?;
        match of {
            GlobalOf::Topic(topic) if !is_global => {
                Ok(CheckedTable::Partitioned(TableSpec { id: self.id, topic, partitioner, history_ms }))
            }
            of => {
                if history_ms.is_some() {
                    let reason =
                        "is for partitioned tables: a global one is joined as it is when a record comes";
                    return Err(invalid(&format!("{at}.history"), reason.to_owned()));
                }
                // How keys are placed says nothing about a copy of all partitions.
                Ok(CheckedTable::Global(GlobalSpec { id: self.id, of }))
            }
        }
    }
}

pub(super) fn field(at: &str, text: &str) -> Result<Field, ManifestError> {
    Field::parse(text).map_err(|expect| invalid(at, format!("is `{text}`, but must be {expect}")))
}

fn ms(at: &str, given: Millis) -> Result<i64, ManifestError> {
    let ms = i64::try_from(given.ms()).ok().filter(|ms| *ms <= MAX_MS);
    ms.ok_or_else(|| invalid(at, format!("is {} ms, but must be at most {MAX_MS} ms", given.ms())))
}

fn late(at: &str, given: Option<&str>) -> Result<Late, ManifestError> {
    match given {
        None | Some("drop") => Ok(Late::Drop),
        Some("emit") => Ok(Late::Emit),
        Some(other) => Err(unknown(at, other, &["drop", "emit"])),
    }
}
