//! Why a client got no tunnel: each reason with its HTTP status and text.

use super::table_macro::reason_table;

/// What is fixed about a reason to reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectRow {
    /// The word: `per_ip`.
    pub word: &'static str,
    /// What happened, for the documentation.
    pub meaning: &'static str,
    /// What an operator can do about it, for the documentation; empty if there is nothing to do.
    pub advice: &'static str,
    /// What the client gets.
    pub answer: RejectAnswer,
    /// Whether `reject_with` may send a close frame or a reset in place of the answer.
    pub may_be_restyled: bool,
    /// Whether it depends on the client key, so that a wrong client address may be the cause.
    pub is_by_client: bool,
}

/// What a client gets instead of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectAnswer {
    /// An HTTP answer with this status and text.
    Text(u16, &'static str),
    /// An HTTP answer with this status. Its text is the rule that was broken, or this text if no rule is known.
    Rule(u16, &'static str),
    /// No answer of wsguard's own. The text says what the client gets, for the documentation.
    None(&'static str),
}

reason_table! {
    /// Why a client got no tunnel.
    pub enum RejectReason of RejectRow {
        PerIp => {
            word: "per_ip",
            meaning: "The client key holds `per_ip` connections.",
            advice: "Is it a proxy's address? Then add it to `trusted_proxies`. A school or an office? Give it a \
                     `[[network]]`. Phones that lose their connection? Set `ping`.",
            answer: RejectAnswer::Text(429, "Too many connections from this IP"),
            may_be_restyled: true,
            is_by_client: true,
        }
        PerIpRate => {
            word: "per_ip_rate",
            meaning: "The client key connects faster than `per_ip_rate`.",
            advice: "Either a client reconnects without waiting, or many people share one address: raise `per_ip_burst`.",
            answer: RejectAnswer::Text(429, "Too many connection attempts from this IP"),
            may_be_restyled: true,
            is_by_client: true,
        }
        ZoneFull => {
            word: "zone_full",
            meaning: "The zone holds `connections`.",
            advice: "See in `top` of `/stats` whether one client holds them, or everybody.",
            answer: RejectAnswer::Text(503, "Server at capacity"),
            ..BY_LIMIT
        }
        ZoneRate => {
            word: "zone_rate",
            meaning: "Clients connect faster than the zone's `rate`: a reconnect storm is being spread out.",
            answer: RejectAnswer::Text(503, "Server at capacity"),
            ..BY_LIMIT
        }
        ProcessFull => {
            word: "process_full",
            meaning: "wsguard holds `max_connections`, or has no descriptors left.",
            advice: "Raise `max_connections`, or `LimitNOFILE` of the service.",
            answer: RejectAnswer::Text(503, "Server at capacity"),
            ..BY_LIMIT
        }
        Draining => {
            word: "draining",
            meaning: "wsguard is stopping.",
            answer: RejectAnswer::Text(503, "Service unavailable"),
            ..BY_LIMIT
        }
        UpstreamDown => {
            word: "upstream_down",
            meaning: "No server of the upstream has an address: its name does not resolve.",
            advice: "Correct the name in `servers`, or the name server.",
            answer: RejectAnswer::Text(503, "Service unavailable"),
            ..BY_LIMIT
        }
        UpstreamRefused => {
            word: "upstream_refused",
            meaning: "No server of the upstream took the connection.",
            advice: "Is the server running, and at this address?",
            answer: RejectAnswer::Text(502, "Bad gateway"),
            ..PLAIN
        }
        UpstreamBadReply => {
            word: "upstream_bad_reply",
            meaning: "The server's reply is not a valid 101: a wrong `Sec-WebSocket-Accept`, a 200, or not HTTP at all.",
            advice: "Is this the address of a WebSocket server?",
            answer: RejectAnswer::Text(502, "Bad gateway"),
            ..PLAIN
        }
        UpstreamTimeout => {
            word: "upstream_timeout",
            meaning: "No server took the connection within `dial`, or none sent a 101 within `upgrade`.",
            advice: "Look at the load of the server, and for a firewall that drops packets.",
            answer: RejectAnswer::Text(504, "Gateway timeout"),
            ..PLAIN
        }
        UpstreamStatus => {
            word: "upstream_status",
            meaning: "The server itself refused with a 3xx, 4xx or 5xx, for example because a login failed. At most 64 KiB of \
                      the body are passed on. The client can tell that a reply was cut, by this or by the server: it is \
                      shorter than its `Content-Length`, or the last chunk is missing.",
            advice: "The status in the log and the server's own log say why.",
            answer: RejectAnswer::None("the server's own answer"),
            ..PLAIN
        }
        Network => {
            word: "network",
            meaning: "The client is outside the route's `allow`.",
            answer: RejectAnswer::Text(403, "Forbidden"),
            ..PLAIN
        }
        Origin => {
            word: "origin",
            meaning: "A browser's page from an origin that is not in `origins`.",
            advice: "If it is your own page under another name: scheme, host and port must all be in `origins`.",
            answer: RejectAnswer::Text(403, "Forbidden"),
            ..PLAIN
        }
        BadRequest => {
            word: "bad_request",
            meaning: "The request is ambiguous or broken: a body on an upgrade, a wrong key, a second Host.",
            advice: "The answer and the log name the rule. If a proxy lost `Connection` or `Upgrade`, the reason is \
                     `not_upgrade`.",
            answer: RejectAnswer::Rule(400, "Bad request"),
            ..PLAIN
        }
        HeadTooLarge => {
            word: "head_too_large",
            meaning: "The request head is larger than `max_head_size`, or has more lines than `max_headers`: mostly cookies or \
                      tokens.",
            advice: "Raise the limit that the answer names.",
            answer: RejectAnswer::Rule(431, "Request head too large"),
            ..PLAIN
        }
        HeadTimeout => {
            word: "head_timeout",
            meaning: "Part of a request head came, but not all of it within `handshake_timeout`. A client that sent nothing is \
                      closed without an answer and without a line in the log.",
            answer: RejectAnswer::Text(408, "Request head not received in time"),
            ..PLAIN
        }
        BadVersion => {
            word: "bad_version",
            meaning: "The client asks for another version of WebSocket, or for none: it is very old, or writes its own requests.",
            answer: RejectAnswer::Text(426, "WebSocket version 13 required"),
            ..PLAIN
        }
        NotUpgrade => {
            word: "not_upgrade",
            meaning: "A request that does not ask for a WebSocket: polling, a health check, or an upgrade to something else \
                      (`h2c`).",
            advice: "For a health check set `health_path`. For clients that do ask for one, make the proxy before wsguard pass \
                     `Upgrade` and `Connection` on.",
            answer: RejectAnswer::Text(426, "WebSocket upgrade required"),
            ..PLAIN
        }
        NoRoute => {
            word: "no_route",
            meaning: "No route matches, or the matching route has `refuse = 404`.",
            advice: "The log says what did not match: host, path or network.",
            answer: RejectAnswer::Text(404, "Not found"),
            ..PLAIN
        }
        PendingFull => {
            word: "pending_full",
            meaning: "`max_pending` connections were unfinished, and this one had waited longest.",
            answer: RejectAnswer::None("no bytes"),
            ..PLAIN
        }
        PendingPerIp => {
            word: "pending_per_ip",
            meaning: "One client key has `max_pending_per_ip` unfinished connections.",
            advice: "If it is a proxy, add it to `trusted_proxies`.",
            answer: RejectAnswer::None("no bytes"),
            ..PLAIN
        }
        ProxyHeader => {
            word: "proxy_header",
            meaning: "A broken PROXY header, none where one is required, or one from a peer that is not in `trusted_proxies`.",
            advice: "Make the proxy send the PROXY protocol, and add it to `trusted_proxies`.",
            answer: RejectAnswer::None("no bytes"),
            ..PLAIN
        }
        ClientGone => {
            word: "client_gone",
            meaning: "The client went away before its answer.",
            answer: RejectAnswer::None("nobody is left to get it"),
            ..PLAIN
        }
        Panic => {
            word: "panic",
            meaning: "A bug in wsguard. It ended this connection and no other.",
            advice: "A log line with the event `panic` says what failed, and where in the source. If it happens again and again, \
                     a client may have found out how to cause it: its key is in the lines with this reason.",
            answer: RejectAnswer::None("no bytes"),
            ..PLAIN
        }
    }
}

impl RejectReason {
    /// The HTTP status of the answer; `None` if the client gets no bytes, or the server's answer.
    pub const fn status(self) -> Option<u16> {
        match self.row().answer {
            RejectAnswer::Text(status, _) | RejectAnswer::Rule(status, _) => Some(status),
            RejectAnswer::None(_) => None,
        }
    }

    /// The text of the answer, if the rule that was broken is not known; empty if there is no answer.
    pub const fn text(self) -> &'static str {
        match self.row().answer {
            RejectAnswer::Text(_, text) | RejectAnswer::Rule(_, text) => text,
            RejectAnswer::None(_) => "",
        }
    }

    /// Whether `reject_with` may send a close frame or a reset in place of the answer.
    pub const fn may_be_restyled(self) -> bool {
        self.row().may_be_restyled
    }

    /// Whether it depends on the client key, so that a wrong client address may be the cause.
    pub const fn is_by_client(self) -> bool {
        self.row().is_by_client
    }
}

impl RejectRow {
    /// What the client gets, as the documentation prints it: `429 Too many connections from this IP`.
    pub fn client_gets(&self) -> String {
        match self.answer {
            RejectAnswer::Text(status, text) => format!("{status} {text}"),
            RejectAnswer::Rule(status, _) => format!("{status}, naming the rule"),
            RejectAnswer::None(what) => what.to_owned(),
        }
    }
}

/// The base of reasons for which the request or the server is at fault. The answer is always HTTP.
const PLAIN: RejectRow = RejectRow {
    word: "",
    meaning: "",
    advice: "",
    answer: RejectAnswer::None(""),
    may_be_restyled: false,
    is_by_client: false,
};

/// The base of reasons for which there is no room now. The client may try again.
const BY_LIMIT: RejectRow = RejectRow {
    may_be_restyled: true,
    ..PLAIN
};
