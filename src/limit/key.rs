//! The client key, by which per-client limits count: an address cut to a prefix. By default that is a whole IPv4
//! address or an IPv6 /64.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// How many leading bits of an address make its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// For IPv4, 0 to 32; more counts as 32.
    pub v4: u8,
    /// For IPv6, 0 to 128; more counts as 128.
    pub v6: u8,
}

impl Default for Prefixes {
    /// /32 and /64, since one household has a whole IPv6 /64.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// An address cut to a prefix. The prefix length is part of the key: keys of different lengths are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(Repr);

// Bytes take 18 without padding, unlike `Ipv6Addr` or `u128` with a length beside it. Millions of keys may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Unix,
    V4 { network: [u8; 4], len: u8 },
    V6 { network: [u8; 16], len: u8 },
}

impl Repr {
    fn v4(bits: u32, len: u8) -> Self {
        Self::V4 {
            network: (bits & mask32(len)).to_be_bytes(),
            len,
        }
    }

    fn v6(bits: u128, len: u8) -> Self {
        Self::V6 {
            network: (bits & mask128(len)).to_be_bytes(),
            len,
        }
    }
}

impl ClientKey {
    /// The one client that all Unix peers without an address are.
    pub const UNIX: Self = Self(Repr::Unix);

    /// The key of an address.
    ///
    /// An IPv4-mapped address (RFC 4291, 2.5.5.2) counts as IPv4. Addresses of NAT64 (`64:ff9b::/96`, RFC 6052, and
    /// `64:ff9b:1::/48`, RFC 8215), 6to4 (`2002::/16`, RFC 3056) and Teredo (`2001::/32`, RFC 4380) count as the IPv4
    /// address inside them. Otherwise one IPv4 client would have several keys, or all clients behind a translator would
    /// share one. ISATAP addresses count as IPv6, because the owner of a /64 can choose the IPv4 address in them.
    pub fn of(ip: IpAddr, prefixes: Prefixes) -> Self {
        let v4 = match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => v4_inside(v6),
        };
        match (v4, ip) {
            (Some(v4), _) | (None, IpAddr::V4(v4)) => Self(Repr::v4(v4.to_bits(), prefixes.v4.min(32))),
            (None, IpAddr::V6(v6)) => Self(Repr::v6(v6.to_bits(), prefixes.v6.min(128))),
        }
    }

    /// This key, cut to at most this many bits.
    #[must_use]
    pub fn cut(self, most: Prefixes) -> Self {
        match self.0 {
            Repr::Unix => self,
            Repr::V4 { network, len } => Self(Repr::v4(u32::from_be_bytes(network), len.min(most.v4))),
            Repr::V6 { network, len } => Self(Repr::v6(u128::from_be_bytes(network), len.min(most.v6))),
        }
    }

    /// The family (4, 6, or 0 for [`ClientKey::UNIX`]), the network in network order and padded with zeros, and the
    /// prefix length. A client is hashed by these bytes, so they must be the same in every build.
    pub fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        match self.0 {
            Repr::Unix => {}
            Repr::V4 { network, len } => {
                bytes[0] = 4;
                bytes[1..5].copy_from_slice(&network);
                bytes[17] = len;
            }
            Repr::V6 { network, len } => {
                bytes[0] = 6;
                bytes[1..17].copy_from_slice(&network);
                bytes[17] = len;
            }
        }
        bytes
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

/// `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/64`, `2001:db8::1` or `unix`. A whole address has no suffix.
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
        // Teredo writes its client's IPv4 address with every bit inverted.
        [0x2001, 0, _, _, _, _, high, low] => Some(Ipv4Addr::from_bits(!(u32::from(high) << 16 | u32::from(low)))),
        // A pool for local use. Operators use a /96 of it, or all of it; in the second case every bit after the IPv4
        // address is 0.
        [0x64, 0xff9b, 1, ..] => {
            let whole = v6.to_bits().trailing_zeros() >= 40;
            let prefix = if whole {
                LOCAL_POOL
            } else {
                TranslationPrefix {
                    network: v6.to_bits() & mask128(96),
                    len: 96,
                }
            };
            prefix.ipv4_in(v6)
        }
        _ => None,
    }
}

/// A network of IPv6 addresses in which a translator embeds IPv4 addresses (RFC 6052, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationPrefix {
    network: u128,
    len: u8,
}

impl TranslationPrefix {
    /// The prefix lengths that RFC 6052 allows.
    pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

    /// `None` for any other length, and for a /96 with bits 64 to 71 set, which RFC 6052 requires to be 0.
    pub fn new(network: Ipv6Net) -> Option<Self> {
        let prefix = Self {
            network: network.network().to_bits(),
            len: network.prefix_len(),
        };
        let fits = Self::LENGTHS.contains(&prefix.len) && prefix.network & RESERVED == 0;
        fits.then_some(prefix)
    }

    /// The IPv4 address inside an address of this network. The bits after it are ignored.
    pub fn ipv4_in(&self, v6: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = v6.to_bits();
        if bits & mask128(self.len) != self.network || bits & RESERVED != 0 {
            return None;
        }
        let behind = if self.len == 96 {
            bits
        } else {
            // Bits 64 to 71 are in the middle of the IPv4 address, or right before it.
            let joined = bits >> 64 << 56 | bits & !(u128::MAX << 56);
            joined >> (88 - self.len)
        };
        let [.., a, b, c, d] = behind.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    }
}

/// The networks of an operator's own translators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TranslationPrefixes(Box<[TranslationPrefix]>);

impl TranslationPrefixes {
    /// Makes the set. If several networks contain an address, the longest prefix counts.
    pub fn new(mut prefixes: Vec<TranslationPrefix>) -> Self {
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len));
        Self(prefixes.into())
    }

    /// The IPv4 address that a translator embedded in this address; otherwise the address itself.
    pub fn undone(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => self
                .0
                .iter()
                .find_map(|prefix| prefix.ipv4_in(v6))
                .map_or(ip, IpAddr::V4),
        }
    }
}

/// RFC 8215.
const LOCAL_POOL: TranslationPrefix = TranslationPrefix {
    network: 0x64_ff9b_0001 << 80,
    len: 48,
};

/// Bits 64 to 71, counted from the left.
const RESERVED: u128 = 0xff << 56;

fn mask32(len: u8) -> u32 {
    // A shift by the whole width overflows. It gives the mask of /0.
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

fn mask128(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
