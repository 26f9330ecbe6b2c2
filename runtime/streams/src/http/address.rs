//! Which addresses are of the public internet: all others are reached only if they are named.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that begin alike, as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// What is not of the public internet though it may look so: IANA's special-purpose addresses, and what has an address of
/// IPv4 inside, which would go around what is said of that.
const SPECIAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    // Azure's metadata and platform services, by a public address.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// The unicast addresses that are given out.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Those of them that are special: of protocols (Teredo, ORCHID, benchmarks), documentation, 6to4.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The shortest prefix that a grant may name: a manifest says where it wants to go, not "anywhere".
const MIN_PREFIX_V4: u8 = 8;
/// That of unique local addresses.
const MIN_PREFIX_V6: u8 = 7;

/// Whether an address is of the public internet. One of IPv4 in IPv6 is what it is in IPv4.
pub fn is_public(address: IpAddr) -> bool {
    let is_in = |(base, prefix): (IpAddr, u8), address| Network { base, prefix }.contains(address);
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !SPECIAL_V4.iter().any(|(base, prefix)| is_in((IpAddr::V4(*base), *prefix), v4.into()))
        }
        IpAddr::V6(v6) => {
            is_in((IpAddr::V6(GLOBAL_V6.0), GLOBAL_V6.1), v6.into())
                && !SPECIAL_V6.iter().any(|(base, prefix)| is_in((IpAddr::V6(*base), *prefix), v6.into()))
        }
    }
}

/// Whether nothing can ever be sent there, whatever is granted: it is no address of one host.
pub fn is_no_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    }
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or an address alone.
    ///
    /// # Errors
    /// What is wrong, as a text that follows the key.
    pub fn parse(text: &str) -> Result<Network, String> {
        let wrong = || format!("is `{text}`, but must be an address, or a network as \"10.0.0.0/8\"");
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let (bits, least) = if base.is_ipv4() { (32, MIN_PREFIX_V4) } else { (128, MIN_PREFIX_V6) };
        let prefix = prefix.unwrap_or(bits);
        if !(least..=bits).contains(&prefix) {
            return Err(format!("is `{text}`, but its prefix must be {least} to {bits}"));
        }
        let network = Network { base, prefix };
        if network.bits(base) & !network.mask() != 0 {
            return Err(format!("is `{text}`, which has bits behind its prefix"));
        }
        Ok(network)
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same_kind = self.base.is_ipv4() == address.is_ipv4();
        same_kind && (self.bits(address) ^ self.bits(self.base)) & self.mask() == 0
    }

    /// The address as a number whose first bit is the first of 128.
    fn bits(&self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internet_is_public() {
        let public =
            ["1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.0", "2606:4700::1111", "2a00:1450::1"];
        let public_too =
            ["::ffff:1.1.1.1", "100.63.255.255", "100.128.0.0", "223.255.255.255", "168.63.129.17"];
        for text in public.iter().chain(&public_too) {
            assert!(is_public(text.parse().expect("is an address")), "{text}");
        }
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "100::1",
            "4000::1",
        ];
        for text in special {
            assert!(!is_public(text.parse().expect("is an address")), "{text}");
        }
    }

    #[test]
    fn networks_say_where() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).expect("is a network").contains(address.parse().expect("is an address"))
        };
        assert!(contains("10.0.0.0/8", "10.255.255.255") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("192.168.7.1", "192.168.7.1") && !contains("192.168.7.1", "192.168.7.2"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        assert!(!contains("10.0.0.0/8", "fd00::1") && contains("::1", "::1"));
        for (text, expect) in [
            ("0.0.0.0/0", "is `0.0.0.0/0`, but its prefix must be 8 to 32"),
            ("10.0.0.1/8", "is `10.0.0.1/8`, which has bits behind its prefix"),
            ("10.0.0.0/33", "is `10.0.0.0/33`, but its prefix must be 8 to 32"),
            ("::/0", "is `::/0`, but its prefix must be 7 to 128"),
            ("ten", "is `ten`, but must be an address, or a network as \"10.0.0.0/8\""),
        ] {
            assert_eq!(Network::parse(text), Err(expect.to_owned()));
        }
    }
}
