//! Duplicates in a request are answered once: a name takes a few bytes and its answer kilobytes, so a request of one
//! megabyte could otherwise ask for gigabytes.

use std::collections::HashSet;
use std::hash::Hash;

/// The first item of each key, in order.
pub(in crate::api) fn each_once<T, K: Eq + Hash>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::with_capacity(items.len());
    items.into_iter().filter(|item| seen.insert(key(item))).collect()
}

#[cfg(test)]
mod tests {
    use super::each_once;

    #[test]
    fn the_first_of_each_stays_in_its_place() {
        let items = vec![("b", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5)];
        assert_eq!(each_once(items, |(name, _)| *name), [("b", 1), ("a", 2), ("c", 4)]);
    }
}
