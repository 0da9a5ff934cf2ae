#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::wire::Step;
use crate::wire::http::head::{HeadCaps, HeadScan};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Key, first protocol, Origin.
type Asking = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn check(line: &str, headers: &[&str]) -> Result<Asking, NoUpgrade> {
    let bytes = format!("{line}\r\nHost: a\r\n{}\r\n\r\n", headers.join("\r\n"));
    let parsed = HeadScan::default().parse(
        bytes.as_bytes(),
        HeadCaps {
            max_size: 1 << 16,
            max_headers: 64,
        },
    );
    let Ok(Step::Done { value: head, .. }) = parsed else {
        panic!("{parsed:?} for {bytes}")
    };
    let upgrade = check_upgrade(&head)?;
    Ok((
        upgrade.key.to_vec(),
        upgrade.first_protocol.map(<[u8]>::to_vec),
        upgrade.origin.map(<[u8]>::to_vec),
    ))
}

fn get(headers: &[&str]) -> Result<Asking, NoUpgrade> {
    check("GET / HTTP/1.1", headers)
}

/// The headers of a valid upgrade, with `changed` in place of those with the same names. A name without a value removes
/// its header.
fn with(changed: &[&str]) -> Vec<String> {
    let name_of = |line: &str| line.split(':').next().unwrap().to_ascii_lowercase();
    let good = [
        "Connection: Upgrade".to_string(),
        "Upgrade: websocket".to_string(),
        format!("Sec-WebSocket-Key: {KEY}"),
        "Sec-WebSocket-Version: 13".to_string(),
    ];
    let kept = good
        .into_iter()
        .filter(|line| changed.iter().all(|other| name_of(other) != name_of(line)));
    kept.chain(
        changed
            .iter()
            .filter(|line| line.contains(':'))
            .map(ToString::to_string),
    )
    .collect()
}

fn changed(headers: &[&str]) -> Result<Asking, NoUpgrade> {
    let lines = with(headers);
    get(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_accept_of_the_rfc_s_example_is_right() {
    assert_eq!(accept_for(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn an_upgrade_has_key_protocol_and_origin() {
    let upgrade = changed(&[
        "Sec-WebSocket-Protocol: , ,chat ,superchat",
        "Origin: https://example.org",
    ])
    .unwrap();
    assert_eq!(
        upgrade,
        (
            KEY.into(),
            Some(b"chat".to_vec()),
            Some(b"https://example.org".to_vec())
        )
    );
    assert_eq!(changed(&[]).unwrap(), (KEY.into(), None, None));
}

#[test]
fn these_pass() {
    for headers in [
        &["Connection: keep-alive, Upgrade"][..],
        &["Connection: keep-alive", "Connection: ,,UPGRADE,"],
        &["connection:\tupgrade\t,x"],
        &["UPGRADE: WebSocket"],
        &["Upgrade: ,websocket,", "Upgrade: WEBSOCKET"],
        &["Content-Length: 0"],
        &["Origin: null"],
        &["Origin:"],
        &["Sec-WebSocket-Key: ++//AAAAAAAAAAAAAAAAAA=="],
        &["Sec-WebSocket-Protocol: ,", "Sec-WebSocket-Protocol: b"],
    ] {
        assert!(changed(headers).is_ok(), "{headers:?}");
    }
}

#[test]
fn a_request_for_no_websocket_is_answered_that_an_upgrade_is_required() {
    for headers in [
        &["Connection"][..],
        &["Connection: keep-alive"],
        &["Connection: Upgrade2"],
        &["Connection: Up grade"],
        &["Upgrade"],
        &["Upgrade:"],
        &["Upgrade: ,"],
        &["Upgrade: h2c"],
        &["Upgrade: h2c, TLS/1.0", "Upgrade: HTTP/2.0"],
        &["Upgrade: websocket/13"],
        &["Upgrade: web socket"],
        // A client that tries HTTP/2 asks like this.
        &[
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Key",
        ],
        // The same with another mistake.
        &[
            "Connection",
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Key",
            "Transfer-Encoding: chunked",
        ],
    ] {
        assert_eq!(changed(headers), Err(NoUpgrade::NotUpgrade), "{headers:?}");
    }
    let lines = with(&[]);
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    for line in ["POST / HTTP/1.1", "get / HTTP/1.1", "HEAD / HTTP/1.1", "GET / HTTP/1.0"] {
        assert_eq!(check(line, &lines), Err(NoUpgrade::NotUpgrade), "{line}");
    }
}

#[test]
fn another_version_is_reported_before_any_other_mistake() {
    for headers in [
        &["Sec-WebSocket-Version"][..],
        &["Sec-WebSocket-Version: 8"],
        &["Sec-WebSocket-Version: 13, 8"],
        &["Sec-WebSocket-Version: 013"],
        &["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"],
        &[
            "Sec-WebSocket-Version: 7",
            "Sec-WebSocket-Key",
            "Upgrade: h2c, websocket",
        ],
    ] {
        assert_eq!(changed(headers), Err(NoUpgrade::BadVersion), "{headers:?}");
    }
}

#[test]
fn each_broken_rule_is_named() {
    for (headers, rule) in [
        (&["Sec-WebSocket-Key"][..], Rule::NoKey),
        (&["Sec-WebSocket-Key:"], Rule::Key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="], Rule::Key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==="], Rule::Key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEy"], Rule::Key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j-Q=="], Rule::Key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ==="], Rule::Key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x"], Rule::Key),
        (
            &[
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ],
            Rule::ManyKeys,
        ),
        (&["Upgrade: websocket, h2c"], Rule::OtherProtocol),
        (&["Upgrade: websocket", "Upgrade: TLS/1.0"], Rule::OtherProtocol),
        (&["Upgrade: websocket, websocket/13"], Rule::OtherProtocol),
        (&["Content-Length: 1"], Rule::Body),
        (&["Content-Length: 00"], Rule::Body),
        (&["Content-Length: +0"], Rule::Body),
        (&["Content-Length:"], Rule::Body),
        (&["Content-Length: 0, 0"], Rule::Body),
        (&["Content-Length: 0", "content-length: 0"], Rule::Body),
        (&["Transfer-Encoding: chunked"], Rule::Body),
        (&["Transfer-Encoding:"], Rule::Body),
        (&["transfer-encoding: identity", "Content-Length: 0"], Rule::Body),
        (&["Origin: https://a", "Origin: https://a"], Rule::ManyOrigins),
    ] {
        assert_eq!(changed(headers), Err(NoUpgrade::Bad(rule)), "{headers:?}");
    }
}

proptest! {
    #[test]
    fn no_value_makes_it_panic(values in prop::collection::vec("[ -~]{0,30}", 8)) {
        let names = ["Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Origin", "Content-Length"];
        let lines: Vec<_> = names.iter().zip(&values).map(|(name, value)| format!("{name}: {value}")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let _ = get(&lines);
        let _ = changed(&lines[3..]);
    }
}
