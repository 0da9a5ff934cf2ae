//! The headers in which proxies name the client. They are accepted from trusted hops only.

/// Whether this header names the client, so that it is accepted from trusted hops only. These are all names that
/// proxies set and frameworks read: in any case, with `_` for any `-`, and with or without a leading `HTTP_` (CGI and
/// some Java programs write it).
pub fn names_client(name: &[u8]) -> bool {
    if !may_be(&CLIENT_NAMES, name) || !may_end(name) {
        return false;
    }
    let name = match name.split_at_checked(CGI_PREFIX.len()) {
        Some((prefix, rest)) if is_spelt(CGI_PREFIX, prefix) => rest,
        _ => name,
    };
    CLIENT_HEADERS.iter().any(|listed| is_spelt(listed, name))
        || name
            .get(..CLIENT_PREFIX.len())
            .is_some_and(|begin| is_spelt(CLIENT_PREFIX, begin))
}

/// For each first letter (in either case) the lengths that its names have, as a bit set. This quick test rules out
/// nearly every other name.
pub(super) type Lengths = [u64; 32];

/// Whether a listed name has this first letter and this length.
#[inline]
pub(super) fn may_be(lengths: &Lengths, name: &[u8]) -> bool {
    name.first()
        .is_some_and(|first| lengths[letter(*first)] & length_bit(name.len()) != 0)
}

/// The lengths of the names that [`names_client`] knows, and of `others`.
pub(super) const fn lengths_with(others: &[&str]) -> Lengths {
    let mut lengths = lengths_of(others, lengths_of(&CLIENT_HEADERS, [0; 32], true), true);
    // A name with one of the two prefixes may have any length from that of the prefix on.
    lengths[letter(b'x')] |= !(length_bit(CLIENT_PREFIX.len()) - 1);
    lengths[letter(b'h')] |= !(length_bit(CGI_PREFIX.len()) - 1);
    lengths
}

static CLIENT_NAMES: Lengths = lengths_with(&[]);

/// Whether a listed name of this length has this last letter. Names with a prefix may end in any letter.
fn may_end(name: &[u8]) -> bool {
    static ENDS: Lengths = lengths_of(&CLIENT_HEADERS, [0; 32], false);
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return false;
    };
    matches!(first.to_ascii_lowercase(), b'x' | b'h') || ENDS[letter(*last)] & length_bit(name.len()) != 0
}

fn is_spelt(listed: &str, name: &[u8]) -> bool {
    listed.len() == name.len()
        && listed.bytes().zip(name).all(|(listed, byte)| match byte {
            b'_' => listed == b'-',
            byte => byte.to_ascii_lowercase() == listed,
        })
}

/// All lengths from 63 on share one bit.
const fn length_bit(length: usize) -> u64 {
    1 << if length < 63 { length } else { 63 }
}

/// The same for both cases of a letter.
const fn letter(byte: u8) -> usize {
    (byte & 0x1f) as usize
}

/// `lengths`, with the length of each of `names` added: under the first letter of the name if `by_first`, otherwise
/// under its last.
const fn lengths_of(names: &[&str], mut lengths: Lengths, by_first: bool) -> Lengths {
    let mut nth = 0;
    while nth < names.len() {
        let name = names[nth].as_bytes();
        let byte = name[if by_first { 0 } else { name.len() - 1 }];
        lengths[letter(byte)] |= length_bit(name.len());
        nth += 1;
    }
    lengths
}

/// Only proxies set headers with this prefix: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, `-Client-Cert` and more.
const CLIENT_PREFIX: &str = "x-forwarded-";

const CGI_PREFIX: &str = "http-";

/// The other headers in which proxies, balancers and content networks name the client, from their manuals and from the
/// libraries that read them.
pub(super) const CLIENT_HEADERS: [&str; 55] = [
    // RFC 7239, and older names for the same.
    "forwarded",
    "forwarded-for",
    "forwarded-for-ip",
    "x-forwarded",
    "x-forward-for",
    "x-original-forwarded-for",
    "x-original-for",
    "x-original-remote-addr",
    "x-original-client-ip",
    // nginx, Apache, IIS and other reverse proxies.
    "x-real-ip",
    "real-ip",
    "x-nginx-proxy",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cluster-client-ip",
    "x-originating-ip",
    "originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "remote-ip",
    "remote-addr",
    "x-proxyuser-ip",
    "x-coming-from",
    "coming-from",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-ms-forwarded-client-ip",
    "x-envoy-external-address",
    "x-envoy-internal",
    // Content networks and hosting providers.
    "true-client-ip",
    "x-true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cloudfront-viewer-address",
    "fastly-client-ip",
    "fly-client-ip",
    "do-connecting-ip",
    "ddg-connecting-ip",
    "eo-client-ip",
    "eo-connecting-ip",
    "incap-client-ip",
    "x-sucuri-clientip",
    "x-qrator-ip-source",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    "x-appengine-remote-addr",
    "appengine-user-ip",
    "x-nf-client-connection-ip",
    "x-vercel-forwarded-for",
    "x-vercel-proxied-for",
    "ali-cdn-real-ip",
    "cdn-src-ip",
];
