//! The one request that all clients send, and the parts of its answer that are needed.

/// An upgrade like a browser's.
pub fn upgrade(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\n\
         Host: chat.example.org\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: */*\r\n\
         Accept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Origin: https://chat.example.org\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\
         Connection: keep-alive, Upgrade\r\n\
         Cookie: session=2f1c9a7be0b34d0c8a41d7a9c1f05e77\r\n\
         Upgrade: websocket\r\n\r\n"
    )
    .into_bytes()
}

/// The length of the head, including the blank line, if the head is complete.
pub fn head_size(bytes: &[u8]) -> Option<usize> {
    Some(bytes.windows(4).position(|at| at == b"\r\n\r\n")? + 4)
}

/// The status in a head.
pub fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// The value of a header.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(each, _)| each.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// All requests have this key, so that the backend needs no SHA-1. The key and its answer are from RFC 6455, 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
