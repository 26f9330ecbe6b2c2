//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("`max.connections` ({0}) are open")]
    Total(u32),
    #[error("`max.connections.per.ip` ({0}) are open from this address")]
    PerAddress(u32),
}

/// Counts open connections. Loopback addresses count towards the total alone: many clients of one machine are normal.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    total_max: u32,
    per_address_max: u32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: u32,
    /// Connections accepted since the start.
    taken: u64,
    // Only addresses with an open connection have an entry, so the map is bounded by `total_max`.
    by_address: HashMap<IpAddr, u32>,
}

impl ConnectionLimits {
    pub(crate) fn new(total_max: u32, per_address_max: u32) -> Arc<Self> {
        Arc::new(ConnectionLimits { total_max, per_address_max, open: Mutex::default() })
    }

    /// Counts one more connection until the returned guard is dropped.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Refused> {
        let counted = (!is_loopback(address)).then_some(address);
        let mut open = self.open.lock();
        if open.total >= self.total_max {
            return Err(Refused::Total(self.total_max));
        }
        if let Some(address) = counted {
            let from_here = open.by_address.entry(address).or_insert(0);
            if *from_here >= self.per_address_max {
                return Err(Refused::PerAddress(self.per_address_max));
            }
            *from_here += 1;
        }
        open.total += 1;
        open.taken += 1;
        Ok(Admitted { limits: Arc::clone(self), counted, number: open.taken })
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u32 {
        self.open.lock().total
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Admitted {
    limits: Arc<ConnectionLimits>,
    counted: Option<IpAddr>,
    number: u64,
}

impl Admitted {
    /// Higher than the number of every connection accepted before.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        let Some(address) = self.counted else { return };
        if let Some(from_here) = open.by_address.get_mut(&address) {
            *from_here -= 1;
            if *from_here == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_apart_and_loopback_is_not() {
        let limits = ConnectionLimits::new(4, 2);
        let far: IpAddr = "192.0.2.1".parse().unwrap();
        let near: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let first = limits.admit(far).unwrap();
        let second = limits.admit(far).unwrap();
        assert_eq!(limits.admit(far).unwrap_err(), Refused::PerAddress(2));
        drop(first);
        assert!(limits.admit(far).unwrap().number() > second.number());
        let _again = limits.admit(far).unwrap();
        let _local = (limits.admit(near).unwrap(), limits.admit(near).unwrap());
        assert_eq!(limits.admit("192.0.2.2".parse().unwrap()).unwrap_err(), Refused::Total(4));
        assert_eq!(limits.open(), 4);
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_left() {
        let limits = ConnectionLimits::new(4, 2);
        drop(limits.admit("192.0.2.1".parse().unwrap()).unwrap());
        assert_eq!(limits.open(), 0);
        assert!(limits.open.lock().by_address.is_empty());
    }
}
