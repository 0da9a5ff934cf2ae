//! Request heads.

use std::fmt::Write as _;

use wsguard::wire::http::head::HeadCaps;

/// The defaults of the configuration.
pub const CAPS: HeadCaps = HeadCaps {
    max_size: 16 << 10,
    max_headers: 64,
};

/// An upgrade as a browser sends it: sixteen headers, most of them long.
pub const BROWSER: &[u8] = b"GET /chat/rooms/general?token=4f9d0c3a7be14d0e9a5b&since=1732470000 HTTP/1.1\r\n\
    Host: chat.example.org\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://chat.example.org\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8,en-US;q=0.7\r\n\
    Cookie: session=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U; theme=dark\r\n\
    DNT: 1\r\n\
    Sec-GPC: 1\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n\
    \r\n";

/// An upgrade with this many headers, at least five, like one that came through several proxies.
pub fn with_headers(count: usize) -> Vec<u8> {
    let mut head = String::from(
        "GET /chat HTTP/1.1\r\n\
         Host: chat.example.org\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    );
    for number in 5..count {
        write!(
            head,
            "X-Added-By-Proxy-{number}: some value, and another; q=0.{number}\r\n"
        )
        .expect("a String takes all");
    }
    head.push_str("\r\n");
    head.into_bytes()
}
