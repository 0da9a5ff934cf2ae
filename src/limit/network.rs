//! Sets of networks, and maps in which the most specific network decides.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// A set of networks. An IPv4-mapped address or network counts as IPv4, and `::/0` contains no IPv4 address.
#[derive(Clone, Debug, Default)]
pub struct NetworkSet(NetworkMap<()>);

impl NetworkSet {
    /// Whether one of the networks contains this address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.longest(ip).is_some()
    }

    /// Whether the set has no networks. Then it contains no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The networks, each once, without host bits: IPv4 first, then by address and length.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().map(|(network, ())| network)
    }
}

impl FromIterator<IpNet> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut map = NetworkMap::default();
        for network in networks {
            // A network that is listed twice counts once.
            let _: Result<(), ()> = map.insert(network, ());
        }
        Self(map)
    }
}

impl PartialEq for NetworkSet {
    /// Compares the networks, and not the addresses that they cover.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for NetworkSet {}

/// Networks with a value each. The longest prefix that contains an address decides.
#[derive(Clone)]
pub struct NetworkMap<T> {
    /// All networks in order, as long as there are fewer than [`FEW`]; empty after that.
    few: Vec<(IpNet, T)>,
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> NetworkMap<T> {
    /// Adds a network, its host bits ignored.
    ///
    /// # Errors
    /// An equal network exists already and keeps its value. The new value is returned.
    pub fn insert(&mut self, network: IpNet, value: T) -> Result<(), T> {
        let network = canonical(network);
        if !self.v4.is_empty() || !self.v6.is_empty() {
            return self.insert_in_trie(network, value);
        }
        match self.few.binary_search_by_key(&network, |(known, _)| *known) {
            Ok(_) => return Err(value),
            Err(place) => self.few.insert(place, (network, value)),
        }
        if self.few.len() >= FEW {
            for (network, value) in std::mem::take(&mut self.few) {
                self.insert_in_trie(network, value)?;
            }
        }
        Ok(())
    }

    /// The value of the most specific network that contains this address.
    pub fn longest(&self, ip: IpAddr) -> Option<&T> {
        let ip = ip.to_canonical();
        if !self.few.is_empty() {
            let having = self.few.iter().filter(|(network, _)| network.contains(&ip));
            return having
                .max_by_key(|(network, _)| network.prefix_len())
                .map(|(_, value)| value);
        }
        match ip {
            IpAddr::V4(v4) => self.v4.get_lpm(&v4.into()).map(|(_, value)| value),
            IpAddr::V6(v6) => self.v6.get_lpm(&v6.into()).map(|(_, value)| value),
        }
    }

    /// Whether it has no networks.
    pub fn is_empty(&self) -> bool {
        self.few.is_empty() && self.v4.is_empty() && self.v6.is_empty()
    }

    /// The networks with their values: IPv4 first, then by address and length.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &T)> {
        let few = self.few.iter().map(|(network, value)| (*network, value));
        let v4 = self.v4.iter().map(|(network, value)| (IpNet::V4(network), value));
        let v6 = self.v6.iter().map(|(network, value)| (IpNet::V6(network), value));
        few.chain(v4).chain(v6)
    }

    fn insert_in_trie(&mut self, network: IpNet, value: T) -> Result<(), T> {
        match network {
            IpNet::V4(v4) if self.v4.contains_key(&v4) => Err(value),
            IpNet::V6(v6) if self.v6.contains_key(&v6) => Err(value),
            IpNet::V4(v4) => {
                self.v4.insert(v4, value);
                Ok(())
            }
            IpNet::V6(v6) => {
                self.v6.insert(v6, value);
                Ok(())
            }
        }
    }
}

impl<T> Default for NetworkMap<T> {
    fn default() -> Self {
        Self {
            few: Vec::new(),
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for NetworkMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The network without host bits; `::ffff:10.0.0.0/104` becomes `10.0.0.0/8`.
fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    let (IpAddr::V4(v4), Some(len)) = (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) else {
        return network;
    };
    if matches!(network, IpNet::V4(_)) {
        return network;
    }
    Ipv4Net::new(v4, len).map_or(network, IpNet::V4)
}

/// From this many networks on, a trie is faster than searching all of them.
const FEW: usize = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(networks: &[&str]) -> NetworkSet {
        networks
            .iter()
            .map(|network| network.parse::<IpNet>().unwrap())
            .collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv4_mapped_address_or_network_counts_as_ipv4() {
        let few = ["10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32"];
        let filler = [
            "198.18.0.0/24",
            "198.18.1.0/24",
            "198.18.2.0/24",
            "198.18.3.0/24",
            "198.18.4.0/24",
        ];
        for set in [set(&few), set(&[&few[..], &filler].concat())] {
            for (address, expected) in [
                ("10.1.2.3", true),
                ("::ffff:10.1.2.3", true),
                ("192.0.2.9", true),
                ("::ffff:192.0.2.9", true),
                ("2001:db8:ffff::1", true),
                ("11.0.0.1", false),
                ("2001:db9::1", false),
                ("64:ff9b::10.1.2.3", false),
            ] {
                assert_eq!(set.contains(ip(address)), expected, "{address}");
            }
        }
    }

    #[test]
    fn the_whole_of_ipv6_has_no_ipv4_address() {
        assert!(set(&["::/0"]).contains(ip("2001:db8::1")));
        assert!(!set(&["::/0"]).contains(ip("192.0.2.1")));
        assert!(!set(&["::/0"]).contains(ip("::ffff:192.0.2.1")));
        assert!(set(&["::ffff:0:0/96"]).contains(ip("192.0.2.1")));
    }

    #[test]
    fn an_empty_set_contains_no_address() {
        assert!(NetworkSet::default().is_empty());
        assert!(!NetworkSet::default().contains(ip("127.0.0.1")));
        assert!(!set(&["10.0.0.0/8"]).is_empty());
    }

    #[test]
    fn networks_are_listed_once_and_in_order_without_host_bits() {
        let listed: Vec<String> = set(&["fd00::1/8", "10.9.9.9/8", "10.0.0.0/8", "9.0.0.0/8"])
            .iter()
            .map(|network| network.to_string())
            .collect();
        assert_eq!(listed, ["9.0.0.0/8", "10.0.0.0/8", "fd00::/8"]);
        assert_eq!(set(&["10.0.0.0/8", "9.0.0.0/8"]), set(&["9.0.0.0/8", "10.1.0.0/8"]));
        assert_ne!(set(&["10.0.0.0/8"]), set(&["10.0.0.0/9"]));
    }

    #[test]
    fn an_equal_network_is_refused_and_the_first_keeps_its_place() {
        let mut map = NetworkMap::default();
        for round in 0..20u8 {
            let network = IpNet::new(IpAddr::from([10, round, 0, 1]), 16).unwrap();
            assert_eq!(map.insert(network, round), Ok(()));
            assert_eq!(map.insert(network.trunc(), 99), Err(99));
        }
        assert_eq!(map.longest(ip("10.7.200.1")), Some(&7));
        assert_eq!(map.longest(ip("10.20.0.1")), None);
    }

    /// Networks and addresses from a range so small that they often match.
    fn some_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..64).prop_map(|low| IpAddr::from((0x0a00_0000 | low << 20 | low).to_be_bytes())),
            (0u128..64).prop_map(|low| IpAddr::from((0x2001_0db8 << 96 | low << 60 | low).to_be_bytes())),
            (0u128..64).prop_map(|low| IpAddr::from((0xffff_0a00_0000 | low << 20 | low).to_be_bytes())),
        ]
    }

    fn some_network() -> impl Strategy<Value = IpNet> {
        (some_ip(), 0u8..=128).prop_map(|(ip, len)| {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            IpNet::new(ip, len.min(most)).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_longest_network_is_the_one_a_linear_scan_finds(networks in prop::collection::vec(some_network(), 0..40), ips in prop::collection::vec(some_ip(), 1..20)) {
            let mut map = NetworkMap::default();
            let mut scan: Vec<(IpNet, usize)> = Vec::new();
            for (place, network) in networks.iter().enumerate() {
                let twice = scan.iter().any(|(known, _)| *known == canonical(*network));
                prop_assert_eq!(map.insert(*network, place).is_err(), twice);
                if !twice {
                    scan.push((canonical(*network), place));
                }
            }
            let set: NetworkSet = networks.into_iter().collect();
            for ip in ips {
                let having = scan.iter().filter(|(network, _)| network.contains(&ip.to_canonical()));
                let expected = having.max_by_key(|(network, _)| network.prefix_len()).map(|(_, place)| place);
                prop_assert_eq!(map.longest(ip), expected);
                prop_assert_eq!(set.contains(ip), expected.is_some());
            }
            scan.sort_unstable();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), scan.iter().map(|(network, _)| *network).collect::<Vec<_>>());
        }
    }
}
