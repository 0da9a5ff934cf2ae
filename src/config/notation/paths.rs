//! The notation of paths in a configuration: as clients send them.

use super::invalid::Invalid;

/// Checks that a text is the path of a request: it begins with `/`, is printable ASCII without blanks and properly
/// percent-encoded, and has no query or fragment.
pub fn check(text: &str) -> Result<(), Invalid> {
    let why = |what: &str| format!("\"{text}\" {what}");
    if !text.starts_with('/') {
        return Err(Invalid::new(
            why("does not begin with `/`"),
            format!("write \"/{text}\""),
        ));
    }
    if let Some(end) = text.find(['?', '#']) {
        return Err(Invalid::new(
            why("has a query or a fragment"),
            format!("only the path is matched: \"{}\"", &text[..end]),
        ));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new(
            why("has characters that no client sends"),
            format!("percent-encode it, as clients do: \"{}\"", encode(text)),
        ));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if after.len() < 2 || !after.bytes().take(2).all(|b| b.is_ascii_hexdigit()) {
            return Err(Invalid::new(
                why("has a `%` without two hex digits after it"),
                "a percent sign itself is written `%25`",
            ));
        }
        rest = after;
    }
    Ok(())
}

fn encode(text: &str) -> String {
    let encode_byte = |b: u8| {
        if b.is_ascii_graphic() {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    text.bytes().map(encode_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_clients_send_them() {
        for text in ["/", "/ws", "/a/b/", "/caf%C3%A9", "/a;b", "/a,b~c"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "", "ws", "/a?b", "/a#b", "/a b", "/café", "/a%", "/a%4", "/a%zz", "/a\u{7f}", "*",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        let hint = check("/café x").map_err(|invalid| invalid.hint);
        assert_eq!(
            hint,
            Err("percent-encode it, as clients do: \"/caf%C3%A9%20x\"".to_owned())
        );
    }
}
