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
        "64:ff9b:1::203.0.113.9",
        "64:ff9b:1:fffe::203.0.113.9",
        "64:ff9b:1:2:0:3:203.0.113.9",
        "64:ff9b:1:cb00:71:900::",
        "2001::34ff:8ef6",
        "2001:0:4136:e378:8000:63bf:34ff:8ef6",
    ] {
        assert_eq!(shown(ip, 32, 64), "203.0.113.9", "{ip}");
    }
}

#[test]
fn neighbours_of_the_embedding_prefixes_are_plain_ipv6() {
    for ip in [
        "::203.0.113.9",
        "64:ff9b:2::203.0.113.9",
        "64:ff9b:1:0:100::203.0.113.9",
        "64:ff9b:0:0:0:1:cb00:7109",
        "2003:cb00:7109::1",
        "2001:1::34ff:8ef6",
        "2001:db8::5efe:203.0.113.9",
        "2001:db8::200:5efe:203.0.113.9",
    ] {
        assert!(shown(ip, 32, 128).contains(':'), "{ip}");
    }
}

/// The table of RFC 6052, 2.4.
#[test]
fn an_operator_s_translation_is_undone_as_rfc_6052_shows() {
    for (prefix, inside) in [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ] {
        let own = TranslationPrefix::new(prefix.parse().unwrap()).unwrap();
        assert_eq!(
            own.ipv4_in(inside.parse().unwrap()),
            Some(Ipv4Addr::new(192, 0, 2, 33)),
            "{prefix}"
        );
        assert_eq!(own.ipv4_in("2001:db9::1".parse().unwrap()), None);
    }
    for none in [
        "::/0",
        "2001:db8::/33",
        "2001:db8::/80",
        "2001:db8::/128",
        "2001:db8:0:0:100::/96",
    ] {
        assert_eq!(TranslationPrefix::new(none.parse().unwrap()), None, "{none}");
    }
}

#[test]
fn of_two_translators_the_longer_prefix_counts_and_an_ipv4_address_is_left_alone() {
    let own =
        ["2001:db8::/32", "2001:db8:1::/96"].map(|prefix| TranslationPrefix::new(prefix.parse().unwrap()).unwrap());
    let own = TranslationPrefixes::new(own.to_vec());
    for (ip, undone) in [
        ("2001:db8:1::203.0.113.9", "203.0.113.9"),
        ("2001:db8:cb00:7109::", "203.0.113.9"),
        ("2001:db8:cb00:7109:100::", "2001:db8:cb00:7109:100::"),
        ("2001:db9::1", "2001:db9::1"),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(own.undone(ip.parse().unwrap()), ip_of(undone), "{ip}");
    }
}

fn ip_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_key_that_is_cut_again_stays_of_its_family() {
    let most = Prefixes { v4: 24, v6: 20 };
    for (ip, v6, expected) in [
        ("192.0.2.77", 64, "192.0.2.0/24"),
        ("2001:db8::1", 64, "2001::/20"),
        ("2001:db8::1", 16, "2001::/16"),
    ] {
        let key = ClientKey::of(ip_of(ip), Prefixes { v4: 32, v6 });
        assert_eq!(key.cut(most).to_string(), expected);
    }
    assert_eq!(ClientKey::UNIX.cut(most), ClientKey::UNIX);
}

#[test]
fn keys_of_different_lengths_differ() {
    let ip = "10.0.0.0".parse().unwrap();
    let [wide, narrow] = [8, 32].map(|v4| ClientKey::of(ip, Prefixes { v4, v6: 64 }));
    assert_ne!(wide, narrow);
    assert_eq!(std::mem::size_of::<ClientKey>(), 18);
}

/// Octet by octet, as in the figure of RFC 6052, 2.2.
fn naive(prefix: Ipv6Addr, len: u8, v4: [u8; 4], rest: [u8; 16]) -> Ipv6Addr {
    let places = match len {
        32 => [4, 5, 6, 7],
        40 => [5, 6, 7, 9],
        48 => [6, 7, 9, 10],
        56 => [7, 9, 10, 11],
        64 => [9, 10, 11, 12],
        _ => [12, 13, 14, 15],
    };
    let mut octets = rest;
    octets[..usize::from(len / 8)].copy_from_slice(&prefix.octets()[..usize::from(len / 8)]);
    octets[8] = 0;
    for (place, octet) in places.into_iter().zip(v4) {
        octets[place] = octet;
    }
    octets.into()
}

proptest! {
    #[test]
    fn what_a_translator_made_is_undone(
        prefix in any::<u128>(), len in prop::sample::select(TranslationPrefix::LENGTHS.to_vec()),
        v4 in any::<[u8; 4]>(), rest in any::<[u8; 16]>(), reserved in 1_u8..,
    ) {
        let prefix = Ipv6Addr::from_bits(prefix & !RESERVED & mask128(len));
        let own = TranslationPrefix::new(Ipv6Net::new(prefix, len).unwrap()).unwrap();
        let made = naive(prefix, len, v4, rest);
        prop_assert_eq!(own.ipv4_in(made), Some(v4.into()));
        prop_assert_eq!(TranslationPrefixes::new(vec![own]).undone(made.into()), IpAddr::from(v4));
        let broken = Ipv6Addr::from_bits(made.to_bits() | u128::from(reserved) << 56);
        prop_assert_eq!(own.ipv4_in(broken), None);
        let elsewhere = Ipv6Addr::from_bits(made.to_bits() ^ 1 << 127);
        prop_assert_eq!(own.ipv4_in(elsewhere), None);
    }

    #[test]
    fn two_addresses_share_a_key_exactly_if_they_share_the_prefix(a: u32, b: u32, c: u128, d: u128, v4 in 0u8..=32, v6 in 0u8..=128, keep in 0u8..=128) {
        let prefixes = Prefixes { v4, v6 };
        let b = a & mask32(keep.min(32)) | b & !mask32(keep.min(32));
        let [a, b] = [a, b].map(Ipv4Addr::from_bits);
        let same = IpNet::new(a.into(), v4).unwrap().contains(&IpAddr::from(b));
        prop_assert_eq!(ClientKey::of(a.into(), prefixes) == ClientKey::of(b.into(), prefixes), same);

        // No prefix that embeds IPv4 is in 3000::/4.
        let [c, d] = [c, c & mask128(keep) | d & !mask128(keep)].map(|bits| Ipv6Addr::from_bits(bits >> 4 | 3 << 124));
        let same = IpNet::new(c.into(), v6).unwrap().contains(&IpAddr::from(d));
        prop_assert_eq!(ClientKey::of(c.into(), prefixes) == ClientKey::of(d.into(), prefixes), same);
    }
}
