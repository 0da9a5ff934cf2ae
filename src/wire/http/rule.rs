//! The rules of a request head and of an upgrade, each with the text that the client gets.

/// The rule that a bad request breaks. Its text is the body of the 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A CR without LF or an LF without CR (RFC 9112, section 2.2).
    #[error("Bad request: bare CR or LF")]
    BareLineBreak,
    /// `Name : value` (RFC 9112, section 5.1).
    #[error("Bad request: blank before a colon")]
    BlankBeforeColon,
    /// A body announced on an upgrade, or any `Transfer-Encoding`.
    #[error("Bad request: an upgrade has no body")]
    Body,
    /// A line that begins with a blank: obs-fold (RFC 9112, section 5.2).
    #[error("Bad request: folded header line")]
    FoldedHeader,
    /// A header line without a colon, or whose name is not a token.
    #[error("Bad request: malformed header name")]
    HeaderName,
    /// NUL, DEL or another control byte in a value. HTAB is allowed.
    #[error("Bad request: control byte in a header value")]
    HeaderValue,
    /// A Host, or the authority of an absolute-form target, that is not `name`, `IPv4` or `[IPv6]` with an optional
    /// port (RFC 3986, section 3.2; user information is not allowed, RFC 9110, section 4.2.4).
    #[error("Bad request: malformed Host")]
    Host,
    /// A `Sec-WebSocket-Key` that is not 22 base64 characters and `==`.
    #[error("Bad request: malformed Sec-WebSocket-Key")]
    Key,
    /// More than one Host line (RFC 9112, section 3.2).
    #[error("Bad request: two Host headers")]
    ManyHosts,
    /// More than one `Sec-WebSocket-Key` (RFC 6455, section 11.3.1).
    #[error("Bad request: two Sec-WebSocket-Key headers")]
    ManyKeys,
    /// More than one Origin, so it is unclear which to check.
    #[error("Bad request: two Origin headers")]
    ManyOrigins,
    /// No Host in HTTP/1.1 (RFC 9112, section 3.2).
    #[error("Bad request: no Host header")]
    NoHost,
    /// No `Sec-WebSocket-Key`.
    #[error("Bad request: no Sec-WebSocket-Key")]
    NoKey,
    /// `Upgrade` lists websocket and something else, which the server might switch to instead.
    #[error("Bad request: Upgrade lists another protocol")]
    OtherProtocol,
    /// Not `method SP target SP version`.
    #[error("Bad request: malformed request line")]
    RequestLine,
    /// A byte below 0x21, 0x7F or `#` in the target.
    #[error("Bad request: forbidden byte in the request target")]
    TargetByte,
    /// Neither origin-form nor absolute-form (RFC 9112, section 3.2).
    #[error("Bad request: the request target is neither a path nor a URL")]
    TargetForm,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("Bad request: HTTP version not supported")]
    Version,
}
