//! Splits Rust source into tokens, as far as the other checks need it.

/// Words and single signs. Comments, strings and characters are left out. Of a lifetime only the name is kept.
pub fn tokens(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        at += match rest[0] {
            b'/' if rest.starts_with(b"//") => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => block_comment(rest),
            b'"' => quoted(rest),
            b'r' | b'b' | b'c' if let Some(len) = prefixed_string(rest) => len,
            b'\'' => character_or_lifetime(rest),
            byte if is_word(byte) => {
                let len = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                let word = text[at..at + len].trim_start_matches("r#");
                tokens.push(word.to_owned());
                len
            }
            byte if byte.is_ascii_whitespace() => 1,
            byte => {
                tokens.push(char::from(byte).to_string());
                1
            }
        };
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a string from one `"` to the next unescaped one.
fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a string that begins like `b"…"`, `c"…"`, `r"…"`, `br#"…"#` or `b'…'`.
fn prefixed_string(rest: &[u8]) -> Option<usize> {
    let word = rest.iter().position(|byte| !is_word(*byte))?;
    let prefix = &rest[..word];
    let behind = &rest[word..];
    if prefix == b"b" && behind[0] == b'\'' {
        return Some(1 + character_or_lifetime(behind));
    }
    if [&b"b"[..], b"c"].contains(&prefix) && behind[0] == b'"' {
        return Some(1 + quoted(behind));
    }
    if ![&b"r"[..], b"br", b"cr"].contains(&prefix) {
        return None;
    }
    let hashes = behind.iter().position(|byte| *byte != b'#')?;
    if behind[hashes] != b'"' {
        return None;
    }
    let end = [b"\"", "#".repeat(hashes).as_bytes()].concat();
    let inside = &behind[hashes + 1..];
    let len = inside.windows(end.len()).position(|window| window == end)?;
    Some(word + hashes + 1 + len + end.len())
}

fn character_or_lifetime(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return 3 + rest[3..].iter().position(|byte| *byte == b'\'').unwrap_or(0) + 1;
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let first = match text {
        Ok(text) => text.chars().next(),
        Err(error) => std::str::from_utf8(&rest[1..=error.valid_up_to()])
            .ok()
            .and_then(|text| text.chars().next()),
    };
    let len = first.map_or(1, char::len_utf8);
    if rest.get(1 + len) == Some(&b'\'') { 2 + len } else { 1 }
}

#[test]
fn comments_strings_and_characters_are_left_out() {
    let text = r##"
        unsafe_name("unsafe"); // unsafe
        let raw = r#"unsafe"# /* unsafe /* nested */ unsafe */ ; let signs = ('"', '\'', b'"');
    "##;
    let words: Vec<_> = tokens(text)
        .into_iter()
        .filter(|token| token.bytes().all(is_word))
        .collect();
    assert_eq!(words, ["unsafe_name", "let", "raw", "let", "signs"]);
}
