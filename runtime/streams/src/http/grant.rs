//! One entry of `allow_http`.

use std::net::IpAddr;

use pelton_wire::mutant::Mutant;
use serde::Deserialize;

use super::address::{Network, is_no_host, is_public};

/// The longest name that the DNS has.
const MAX_NAME_LEN: usize = 253;

/// An entry as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum GrantSpec {
    /// A host, with a port or without.
    Host(String),
    /// A host that has addresses which are not public.
    Addresses {
        /// The host, with a port or without.
        host: String,
        /// The networks that its addresses may be of, besides the public internet.
        addresses: Vec<String>,
    },
}

/// A host that a node may send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    host: Host,
    /// None: that of the scheme.
    port: Option<u16>,
    addresses: Vec<Network>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    /// All names that end with this one and have something before it.
    Below(String),
    Address(IpAddr),
}

/// An entry that is none: what is wrong, as a text that follows the key.
pub type GrantError = String;

impl GrantSpec {
    /// The grant that it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<Grant, GrantError> {
        let (text, addresses) = match self {
            GrantSpec::Host(host) => (host, &[][..]),
            GrantSpec::Addresses { host, addresses } => (host, &addresses[..]),
        };
        let (host, port) = split_port(text)?;
        let host = Host::parse(host).ok_or_else(|| {
            format!(
                "is `{text}`, but must be a host as \"hooks.example.com\", \"hooks.example.com:8443\", \"*.example.com\", \
                 \"127.0.0.1:8080\" or \"[::1]:8080\""
            )
        })?;
        match &host {
            Host::Address(address) if is_no_host(*address) => {
                return Err(format!("is `{text}`, which is no address of one host"));
            }
            Host::Address(_) if !addresses.is_empty() => {
                return Err(format!("has `addresses` beside `{text}`, which is one"));
            }
            _ => {}
        }
        let addresses = addresses.iter().map(|text| Network::parse(text)).collect::<Result<_, _>>()?;
        Ok(Grant { host, port, addresses })
    }
}

/// A host, and the port behind it if there is one.
fn split_port(text: &str) -> Result<(&str, Option<u16>), GrantError> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address without a port.
        Some((_, after)) if after.ends_with(']') => return Ok((text, None)),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => return Ok((text, None)),
        Some((host, port)) => (host, port),
        None => return Ok((text, None)),
    };
    let number = port.parse::<u16>().ok().filter(|port| *port > 0);
    number.map(|port| (host, Some(port))).ok_or_else(|| format!("is `{text}`, whose port is no port"))
}

/// The address that a host is written as, if it is one.
fn as_address(host: &str) -> Option<IpAddr> {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inside.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        if let Some(address) = as_address(text) {
            return Some(Host::Address(address));
        }
        let name = text.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            // A name of one label alone would be all of a country, or all of a network.
            Some(below) if is_name(below) && below.contains('.') => Some(Host::Below(below.to_owned())),
            None if is_name(&name) => Some(Host::Name(name)),
            _ => None,
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        !label.is_empty() && label.len() <= 63 && label.chars().all(word)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    // What ends with a number is an address to some, in one way of writing or another.
    let is_decimal = last.chars().all(|c| c.is_ascii_digit());
    let is_hex = last.strip_prefix("0x").is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
    let is_number = is_decimal || is_hex;
    name.len() <= MAX_NAME_LEN && name.split('.').all(is_label) && !is_number
}

impl Grant {
    /// Whether it is about a host, as a URL has it.
    pub fn names(&self, host: &str) -> bool {
        if let Some(address) = as_address(host) {
            return self.host == Host::Address(address);
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match &self.host {
            Host::Name(name) => *name == host,
            Host::Below(name) => host
                .strip_suffix(name)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Host::Address(_) => false,
        }
    }

    pub(super) fn has_port(&self, is_tls: bool, port: u16) -> bool {
        port == self.port.unwrap_or(if is_tls { 443 } else { 80 })
    }

    /// Whether a connection may be made to this address, which its host has.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if is_no_host(address) {
            return false;
        }
        if Mutant::AddressesUnchecked.is_on() {
            return true;
        }
        let is_named = match &self.host {
            Host::Address(named) => *named == address,
            Host::Name(name) => name == "localhost" && address.is_loopback(),
            Host::Below(_) => false,
        };
        is_named || is_public(address) || self.addresses.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(host: &str, addresses: &[&str]) -> Result<Grant, String> {
        let (host, addresses) = (host.to_owned(), addresses.iter().map(|text| (*text).to_owned()).collect());
        GrantSpec::Addresses { host, addresses }.check()
    }

    #[test]
    fn what_is_not_public_is_reached_by_its_name_alone() {
        let check = |host: &str, addresses: &[&str], address: &str, expect: bool| {
            let grant = grant(host, addresses).expect("is a grant");
            assert_eq!(
                grant.admits(address.parse().expect("is an address")),
                expect,
                "{host} {addresses:?} {address}"
            );
        };
        check("hooks.example.com", &[], "93.184.216.34", true);
        check("hooks.example.com", &[], "127.0.0.1", false);
        check("hooks.example.com", &[], "10.1.2.3", false);
        check("hooks.example.com", &[], "::ffff:10.1.2.3", false);
        check("hooks.internal", &["10.0.0.0/8"], "10.1.2.3", true);
        check("hooks.internal", &["10.0.0.0/8"], "::ffff:10.1.2.3", true);
        check("hooks.internal", &["10.0.0.0/8"], "192.168.0.1", false);
        check("hooks.internal", &["10.0.0.0/8"], "169.254.169.254", false);
        check("*.example.com", &[], "169.254.169.254", false);
        check("localhost", &[], "127.0.0.1", true);
        check("localhost", &[], "::1", true);
        check("localhost", &[], "10.0.0.1", false);
        check("127.0.0.1:8080", &[], "127.0.0.1", true);
        check("127.0.0.1:8080", &[], "127.0.0.2", false);
        check("[::1]", &[], "::1", true);
        check("localhost", &["127.0.0.0/8"], "0.0.0.0", false);
    }

    #[test]
    fn what_is_refused() {
        for host in [
            "",
            "*",
            "*.com",
            "http://x.example",
            "x.example/path",
            "a..b",
            "2130706433",
            "127.1",
            "ex ample",
            "x.0x7f",
            "x.0x",
            "x.127",
        ] {
            assert!(grant(host, &[]).is_err(), "{host}");
        }
        for host in ["hooks.3scale", "4you.example", "x.0xg", "1a"] {
            assert!(grant(host, &[]).is_ok(), "{host} is a name");
        }
        assert_eq!(
            grant("x.example:99999", &[]),
            Err("is `x.example:99999`, whose port is no port".to_owned())
        );
        assert_eq!(grant("0.0.0.0", &[]), Err("is `0.0.0.0`, which is no address of one host".to_owned()));
        assert_eq!(
            grant("10.0.0.1", &["10.0.0.0/8"]),
            Err("has `addresses` beside `10.0.0.1`, which is one".to_owned())
        );
        assert!(grant("x.example", &["0.0.0.0/0"]).is_err());
    }
}
