//! Which names a topic may have.

pub use pelton_wire::topic_name::is_internal;

/// Longest name of a topic, in bytes: with `-<partition>` it must fit the 255 bytes of a file name.
pub const MAX_NAME_BYTES: usize = 249;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("a topic name cannot be empty")]
    Empty,
    /// The name is `.` or `..`.
    #[error("a topic name cannot be `.` or `..`")]
    Dots,
    /// The name is too long.
    #[error("the topic name has {0} bytes, {MAX_NAME_BYTES} are possible")]
    TooLong(usize),
    /// The name has a character that is not possible.
    #[error("the topic name has a character other than ASCII letters, digits, `.`, `_` and `-`")]
    Characters,
    /// The name is kept for pelton's own topics.
    #[error("the topic name `{0}` is kept for the broker's own use")]
    Internal(String),
    /// A topic differs from it only in `.` and `_`.
    #[error("the topic name collides with `{0}`: `.` and `_` count as the same in metric names")]
    Collides(String),
}

/// Checks the name by itself.
pub fn check(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots),
        _ if name.len() > MAX_NAME_BYTES => Err(NameError::TooLong(name.len())),
        _ if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) => {
            Err(NameError::Characters)
        }
        _ => Ok(()),
    }
}

/// The name with `.` as `_`: two topics may not share it.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check =
            |name: &str, expect: Result<(), NameError>| assert_eq!(super::check(name), expect, "{name}");
        check("flights.2013_a-b", Ok(()));
        check("", Err(NameError::Empty));
        check("..", Err(NameError::Dots));
        check("...", Ok(()));
        check(&"x".repeat(249), Ok(()));
        check(&"x".repeat(250), Err(NameError::TooLong(250)));
        check("a/b", Err(NameError::Characters));
        check("a b", Err(NameError::Characters));
        check("flüge", Err(NameError::Characters));
        check("a\0", Err(NameError::Characters));
    }
}
