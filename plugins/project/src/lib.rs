//! Chooses, drops and renames members of JSON objects.

mod select;

use fields::{Action, Json, Path, Rewrite, choice, named_fields, targets};
use pelton_sdk::{Config, Failure, Out, Record, Transform};
use select::{Missing, Select};

/// The plugin.
#[derive(Default)]
pub struct Project(Option<Kind>);

enum Kind {
    /// A new object of what was named.
    Select(Select),
    /// The same object without, or with other names.
    Rewrite(Rewrite),
}

impl Transform for Project {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let get = |key| config.get(key).unwrap_or_default();
        let is_set = |key| !get(key).trim().is_empty();
        let changes = ["drop", "rename"].into_iter().find(|key| is_set(key));
        let choices = [("skip", Missing::Skip), ("null", Missing::Null), ("reject", Missing::Reject)];
        let missing = choice("missing", config.get("missing"), &choices)?;
        self.0 = Some(match (is_set("select"), changes) {
            (true, None) => Kind::Select(Select::parse(get("select"), missing)?),
            (true, Some(key)) => {
                return Err(format!("select and {key} are both set: what is not selected is dropped anyway"));
            }
            (false, Some(key)) if !matches!(missing, Missing::Skip) => {
                return Err(format!(
                    "missing is for select: {key} changes nothing where a member is not there"
                ));
            }
            (false, Some(_)) => Kind::Rewrite(rewrite(get("drop"), get("rename"))?),
            (false, None) => {
                return Err("none of select, drop and rename is set, so nothing would be done".to_owned());
            }
        });
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let kind = self.0.as_ref().ok_or_else(|| Failure::Fatal("it was not configured".to_owned()))?;
        let Some(value) = record.value() else {
            out.keep(record);
            return Ok(());
        };
        let mut made = Vec::with_capacity(value.len());
        let changed = match kind {
            Kind::Select(select) => select.write(record, &mut made).map(|()| true),
            Kind::Rewrite(rewrite) => Json::parse(value)
                .and_then(|json| check(json))
                .and_then(|json| rewrite.write(json, &mut made)),
        };
        if changed.map_err(Failure::Reject)? {
            out.value(record, made);
        } else {
            out.keep(record);
        }
        Ok(())
    }
}

/// Only objects, and lists of them, have members.
fn check(json: Json<'_>) -> Result<Json<'_>, String> {
    if json.is_composite() {
        return Ok(json);
    }
    Err("the value is JSON, but no object and no list, so it has no members".to_owned())
}

fn rewrite(drop: &str, rename: &str) -> Result<Rewrite, String> {
    let mut rewrite = Rewrite::default();
    for path in targets(drop).map_err(|error| format!("drop {error}"))? {
        let path = path.ok_or("drop has `key`, and only members of the value can be dropped")?;
        rewrite.add(&path, Action::Drop).map_err(|error| format!("drop {error}"))?;
    }
    let renamed = named_fields(rename, Path::parse).map_err(|error| format!("rename {error}"))?;
    for (place, (path, name)) in renamed.iter().enumerate() {
        let name = name.clone().ok_or_else(|| format!("rename has `{path}` without `as` and a name"))?;
        let parent = |path: &Path| path.0[..path.0.len() - 1].to_vec();
        let same = |(other, taken): &&(Path, Option<String>)| {
            parent(other) == parent(path) && taken.as_deref() == Some(&*name)
        };
        if let Some((other, _)) = renamed[..place].iter().find(same) {
            return Err(format!("rename gives `{other}` and `{path}` the same name in the same object"));
        }
        rewrite.add(path, Action::Rename(name)).map_err(|error| format!("rename {error}"))?;
    }
    Ok(rewrite)
}

pelton_sdk::export_transform!(Project);

#[cfg(test)]
mod tests;
