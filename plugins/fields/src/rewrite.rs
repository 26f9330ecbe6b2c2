//! Changes members of a JSON value and leaves the rest as it is written.

use std::fmt;

use crate::field::{Path, Step};
use crate::json::{Json, quote};

/// Appends what a member becomes; the error says for people why it becomes nothing.
type Replacing = Box<dyn Fn(Json<'_>, &mut Vec<u8>) -> Result<(), String>>;

/// What is done with a member.
pub enum Action {
    /// It goes.
    Drop,
    /// It gets another name, in the object that it is in.
    Rename(String),
    /// It gets another value.
    Replace(Replacing),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Drop => f.write_str("Drop"),
            Action::Rename(name) => write!(f, "Rename({name})"),
            Action::Replace(_) => f.write_str("Replace"),
        }
    }
}

/// What is done with which members.
#[derive(Debug, Default)]
pub struct Rewrite {
    action: Option<Action>,
    members: Vec<(String, Rewrite)>,
    /// Of the items of a list.
    each: Option<Box<Rewrite>>,
}

impl Rewrite {
    /// Adds a member.
    ///
    /// # Errors
    /// It does not go with what was added before, as a text that follows the name of the setting.
    pub fn add(&mut self, path: &Path, action: Action) -> Result<(), String> {
        let mut node = self;
        for step in &path.0 {
            if matches!(node.action, Some(Action::Drop | Action::Replace(_))) {
                return Err(format!("has `{path}`, which is within a member that is named as well"));
            }
            node = node
                .child(step)
                .ok_or_else(|| format!("has `{path}`, and items of that list by place as well"))?;
        }
        if node.action.is_some() {
            return Err(format!("has `{path}`, which is named twice"));
        }
        if !matches!(action, Action::Rename(_)) && !node.is_leaf() {
            return Err(format!("has `{path}`, of which members are named as well"));
        }
        node.action = Some(action);
        Ok(())
    }

    /// The node behind a step; none where a star and a place would mean the same item.
    fn child(&mut self, step: &Step) -> Option<&mut Rewrite> {
        let is_place = |name: &str| name.parse::<usize>().is_ok();
        match step {
            Step::Each if self.members.iter().any(|(name, _)| is_place(name)) => None,
            Step::Each => Some(&mut **self.each.get_or_insert_default()),
            Step::Name(name) if self.each.is_some() && is_place(name) => None,
            Step::Name(name) => {
                let known = self.members.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    self.members.push((name.clone(), Rewrite::default()));
                    self.members.len() - 1
                });
                Some(&mut self.members[known].1)
            }
        }
    }

    fn is_leaf(&self) -> bool {
        self.members.is_empty() && self.each.is_none()
    }

    /// Appends the value with its changes, and says whether there was one.
    ///
    /// # Errors
    /// A change cannot be made; for people.
    pub fn write(&self, json: Json<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
        // As deep as the paths are, and those have 32 steps at the most.
        if !self.is_leaf() {
            if let Some(members) = json.members() {
                return self.write_object(&members, out);
            }
            if let Some(items) = json.items() {
                return self.write_list(&items, out);
            }
        }
        out.extend_from_slice(json.text().as_bytes());
        Ok(false)
    }

    fn write_object(&self, members: &[(Json<'_>, Json<'_>)], out: &mut Vec<u8>) -> Result<bool, String> {
        let nodes: Vec<Option<&(String, Rewrite)>> =
            members.iter().map(|(name, _)| self.named(*name)).collect();
        let mut changed = false;
        let mut mark = b'{';
        for ((name, value), node) in members.iter().zip(&nodes) {
            let action = node.and_then(|(_, node)| node.action.as_ref());
            changed |= action.is_some();
            if matches!(action, Some(Action::Drop)) {
                continue;
            }
            out.push(std::mem::replace(&mut mark, b','));
            match action {
                Some(Action::Rename(new)) => {
                    self.check_free(new, members, &nodes)?;
                    quote(new, out);
                }
                _ => out.extend_from_slice(name.text().as_bytes()),
            }
            out.push(b':');
            changed |= write_member(*node, *value, out)?;
        }
        if mark == b'{' {
            out.push(mark);
        }
        out.push(b'}');
        Ok(changed)
    }

    fn write_list(&self, items: &[Json<'_>], out: &mut Vec<u8>) -> Result<bool, String> {
        let mut changed = false;
        let mut mark = b'[';
        for (place, item) in items.iter().enumerate() {
            let node = match &self.each {
                Some(each) => Some(&**each),
                None => self.members.iter().find(|(name, _)| name.parse() == Ok(place)).map(|(_, node)| node),
            };
            match node.and_then(|node| node.action.as_ref()) {
                Some(Action::Drop) => {
                    changed = true;
                    continue;
                }
                Some(Action::Rename(new)) => {
                    return Err(format!(
                        "an item of a list should be named `{new}`, and items have no names"
                    ));
                }
                Some(Action::Replace(_)) => changed = true,
                None => {}
            }
            out.push(std::mem::replace(&mut mark, b','));
            changed |= write_value(node, *item, out)?;
        }
        if mark == b'[' {
            out.push(mark);
        }
        out.push(b']');
        Ok(changed)
    }

    /// The node of a member. One whose name is no text has none.
    fn named(&self, name: Json<'_>) -> Option<&(String, Rewrite)> {
        let name = name.string()?.ok()?;
        self.members.iter().find(|(wanted, _)| *wanted == name)
    }

    /// Fails if another member has, and keeps, a name that one is to get.
    fn check_free(
        &self,
        new: &str,
        members: &[(Json<'_>, Json<'_>)],
        nodes: &[Option<&(String, Rewrite)>],
    ) -> Result<(), String> {
        let keeps = |node: &Option<&(String, Rewrite)>| {
            !node.is_some_and(|(_, node)| matches!(node.action, Some(Action::Drop | Action::Rename(_))))
        };
        let is_named = |name: &Json<'_>| name.string().is_some_and(|name| name.is_ok_and(|name| name == new));
        if members.iter().zip(nodes).any(|((name, _), node)| keeps(node) && is_named(name)) {
            return Err(format!("a member should be named `{new}`, and the object has one of that name"));
        }
        Ok(())
    }
}

fn write_member(
    node: Option<&(String, Rewrite)>,
    value: Json<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, String> {
    write_value(node.map(|(_, node)| node), value, out)
}

fn write_value(node: Option<&Rewrite>, value: Json<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
    match node {
        Some(Rewrite { action: Some(Action::Replace(replace)), .. }) => replace(value, out).map(|()| true),
        Some(node) => node.write(value, out),
        None => {
            out.extend_from_slice(value.text().as_bytes());
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).expect(text)
    }

    /// `-PATH` drops, `PATH>NAME` renames, `PATH` alone becomes `0`.
    fn rewrite(changes: &str) -> Result<Rewrite, String> {
        let mut rewrite = Rewrite::default();
        for change in changes.split(' ') {
            let added = match (change.strip_prefix('-'), change.split_once('>')) {
                (Some(dropped), _) => rewrite.add(&path(dropped), Action::Drop),
                (None, Some((old, new))) => rewrite.add(&path(old), Action::Rename(new.to_owned())),
                (None, None) => {
                    let zero = |_: Json<'_>, out: &mut Vec<u8>| {
                        out.push(b'0');
                        Ok(())
                    };
                    rewrite.add(&path(change), Action::Replace(Box::new(zero)))
                }
            };
            added?;
        }
        Ok(rewrite)
    }

    fn changed(changes: &str, value: &str) -> Result<(String, bool), String> {
        let mut out = Vec::new();
        let changed = rewrite(changes)?.write(Json::parse(value.as_bytes())?, &mut out)?;
        Ok((String::from_utf8(out).expect("is text"), changed))
    }

    #[test]
    fn members_are_changed_and_the_rest_is_as_it_was() {
        for (changes, value, expect) in [
            ("-json:a", r#"{"a":1, "b" : 1.50 ,"c":{ "x": 1e2 }}"#, r#"{"b":1.50,"c":{ "x": 1e2 }}"#),
            ("-json:a -json:b", r#"{"a":1,"b":2}"#, "{}"),
            ("-json:a", r#"{"\u0061":1,"a":2,"A":3}"#, r#"{"A":3}"#),
            ("-json:c.x", r#"{"c":{"x":1,"y":12345678901234567890}}"#, r#"{"c":{"y":12345678901234567890}}"#),
            ("-json:l.*.x", r#"{"l":[{"x":1,"y":2},3,{"x":4}]}"#, r#"{"l":[{"y":2},3,{}]}"#),
            ("-json:l.0 json:l.2", r#"{"l":[1,2,3]}"#, r#"{"l":[2,0]}"#),
            ("-json:l.*", r#"{"l":[1,2]}"#, r#"{"l":[]}"#),
            ("json:a>b json:b>a", r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#),
            ("json:a>b -json:b", r#"{"a":1,"b":2}"#, r#"{"b":1}"#),
            ("json:a>z\"\n -json:a.x", r#"{"a":{"x":1}}"#, r#"{"z\"\n":{}}"#),
            ("json:a.b", r#"{"a":{"b":[1,{}]}}"#, r#"{"a":{"b":0}}"#),
            ("-json:*.x", r#"[{"x":1},{"y":1}]"#, r#"[{},{"y":1}]"#),
        ] {
            assert_eq!(changed(changes, value), Ok((expect.to_owned(), true)), "{changes}");
        }
        for (changes, value) in [
            ("-json:a", r#"{"b":1}"#),
            ("-json:a.b", "{\"a\":5}"),
            ("-json:a", "7"),
            ("-json:a.*", "{\"a\":{}}"),
        ] {
            assert_eq!(changed(changes, value), Ok((value.to_owned(), false)), "{changes}");
        }
    }

    #[test]
    fn what_does_not_go_together() {
        for (changes, expect) in [
            ("-json:a -json:a", "named twice"),
            ("-json:a json:a>b", "named twice"),
            ("-json:a -json:a.b", "within a member that is named as well"),
            ("-json:a.b -json:a", "of which members are named as well"),
            ("-json:a.*.b -json:a.0", "by place as well"),
            ("-json:a.0 -json:a.*", "by place as well"),
        ] {
            let error = rewrite(changes).expect_err(changes);
            assert!(error.contains(expect), "{changes}: {error}");
        }
        let taken = changed("json:a>b", r#"{"a":1,"b":2}"#);
        assert_eq!(
            taken,
            Err("a member should be named `b`, and the object has one of that name".to_owned())
        );
        assert!(
            changed("json:l.0>b", r#"{"l":[1]}"#).is_err_and(|error| error.contains("items have no names"))
        );
    }
}
