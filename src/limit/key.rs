//! The client key: what per-client limits count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many leading bits of an address make its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// Of an IPv4 address, 0 to 32; more counts as 32.
    pub v4: u8,
    /// Of an IPv6 address, 0 to 128; more counts as 128.
    pub v6: u8,
}

impl Default for Prefixes {
    /// /32 and /64: one household owns a whole IPv6 /64.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// An address cut to a prefix, which it carries: keys of different lengths are different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(Repr);

// Bytes instead of `Ipv6Addr` or `u128` and a length beside them: 18 bytes without padding, because millions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Unix,
    V4 { network: [u8; 4], len: u8 },
    V6 { network: [u8; 16], len: u8 },
}

impl ClientKey {
    /// Every Unix peer without an address is this one client.
    pub const UNIX: Self = Self(Repr::Unix);

    /// The key of an address.
    ///
    /// An IPv4-mapped address (RFC 4291, 2.5.5.2) counts as IPv4. So do NAT64 (`64:ff9b::/96`, RFC 6052) and 6to4
    /// (`2002::/16`, RFC 3056), by the IPv4 address inside: otherwise one IPv4 client would have several keys.
    pub fn of(ip: IpAddr, prefixes: Prefixes) -> Self {
        let v4 = match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => v4_inside(v6),
        };
        match (v4, ip) {
            (Some(v4), _) | (None, IpAddr::V4(v4)) => {
                let len = prefixes.v4.min(32);
                Self(Repr::V4 {
                    network: (v4.to_bits() & mask32(len)).to_be_bytes(),
                    len,
                })
            }
            (None, IpAddr::V6(v6)) => {
                let len = prefixes.v6.min(128);
                Self(Repr::V6 {
                    network: (v6.to_bits() & mask128(len)).to_be_bytes(),
                    len,
                })
            }
        }
    }

    /// The first address of the key's network and the prefix length; `None` for [`ClientKey::UNIX`].
    pub fn network(&self) -> Option<(IpAddr, u8)> {
        match self.0 {
            Repr::Unix => None,
            Repr::V4 { network, len } => Some((network.into(), len)),
            Repr::V6 { network, len } => Some((network.into(), len)),
        }
    }
}

/// `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/64`, `2001:db8::1`, `unix`: a whole address has no suffix.
impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network() {
            None => f.pad("unix"),
            Some((ip @ IpAddr::V4(_), 32) | (ip @ IpAddr::V6(_), 128)) => ip.fmt(f),
            Some((ip, len)) if f.width().is_some() => f.pad(&format!("{ip}/{len}")),
            Some((ip, len)) => write!(f, "{ip}/{len}"),
        }
    }
}

fn v4_inside(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    match v6.segments() {
        [0x2002, high, low, ..] | [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

fn mask32(len: u8) -> u32 {
    // A shift by the whole width is an overflow: that is the mask of /0.
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

fn mask128(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;

    fn shown(ip: &str, v4: u8, v6: u8) -> String {
        ClientKey::of(ip.parse().unwrap(), Prefixes { v4, v6 }).to_string()
    }

    #[test]
    fn an_address_is_cut_to_its_prefix_and_shown_with_it() {
        for (ip, v4, v6, expected) in [
            ("192.0.2.77", 32, 64, "192.0.2.77"),
            ("192.0.2.77", 24, 64, "192.0.2.0/24"),
            ("192.0.2.77", 0, 64, "0.0.0.0/0"),
            ("192.0.2.77", 99, 64, "192.0.2.77"),
            ("2001:db8:1:2:3:4:5:6", 32, 64, "2001:db8:1:2::/64"),
            ("2001:db8:1:2:3:4:5:6", 32, 56, "2001:db8:1::/56"),
            ("2001:db8::1", 32, 128, "2001:db8::1"),
            ("2001:db8::1", 32, 255, "2001:db8::1"),
            ("2001:db8::1", 32, 0, "::/0"),
        ] {
            assert_eq!(shown(ip, v4, v6), expected, "{ip} at /{v4} /{v6}");
        }
        assert_eq!(ClientKey::UNIX.to_string(), "unix");
        assert_eq!(
            format!(
                "{:>16}|",
                ClientKey::of("10.1.1.1".parse().unwrap(), Prefixes { v4: 8, v6: 64 })
            ),
            "      10.0.0.0/8|"
        );
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_the_same_client() {
        for ip in [
            "::ffff:203.0.113.9",
            "64:ff9b::203.0.113.9",
            "2002:cb00:7109::1",
            "2002:cb00:7109:5:6:7:8:9",
        ] {
            assert_eq!(shown(ip, 32, 64), "203.0.113.9", "{ip}");
        }
    }

    #[test]
    fn neighbours_of_the_embedding_prefixes_are_plain_ipv6() {
        for ip in [
            "::203.0.113.9",
            "64:ff9b:1::203.0.113.9",
            "64:ff9b:0:0:0:1:cb00:7109",
            "2003:cb00:7109::1",
        ] {
            assert!(shown(ip, 32, 128).contains(':'), "{ip}");
        }
    }

    #[test]
    fn keys_of_different_lengths_differ() {
        let ip = "10.0.0.0".parse().unwrap();
        let [wide, narrow] = [8, 32].map(|v4| ClientKey::of(ip, Prefixes { v4, v6: 64 }));
        assert_ne!(wide, narrow);
        assert_eq!(std::mem::size_of::<ClientKey>(), 18);
    }

    proptest! {
        #[test]
        fn two_addresses_share_a_key_exactly_if_they_share_the_prefix(a: u32, b: u32, c: u128, d: u128, v4 in 0u8..=32, v6 in 0u8..=128, keep in 0u8..=128) {
            let prefixes = Prefixes { v4, v6 };
            let b = a & mask32(keep.min(32)) | b & !mask32(keep.min(32));
            let [a, b] = [a, b].map(Ipv4Addr::from_bits);
            let same = IpNet::new(a.into(), v4).unwrap().contains(&IpAddr::from(b));
            prop_assert_eq!(ClientKey::of(a.into(), prefixes) == ClientKey::of(b.into(), prefixes), same);

            // In 3000::/4 nothing is embedded.
            let [c, d] = [c, c & mask128(keep) | d & !mask128(keep)].map(|bits| Ipv6Addr::from_bits(bits >> 4 | 3 << 124));
            let same = IpNet::new(c.into(), v6).unwrap().contains(&IpAddr::from(d));
            prop_assert_eq!(ClientKey::of(c.into(), prefixes) == ClientKey::of(d.into(), prefixes), same);
        }
    }
}
