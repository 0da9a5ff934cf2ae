//! Addresses and ports in text.

use std::str::FromStr;

/// Reads an address of one family. std refuses zone ids, and leading zeros in IPv4.
pub(super) fn address<A: FromStr>(text: &[u8]) -> Option<A> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a port from 0 to 65535: only digits, without leading zeros.
pub(super) fn decimal_port(digits: &[u8]) -> Option<u16> {
    let leading_zero = digits.len() > 1 && digits.starts_with(b"0");
    if leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
