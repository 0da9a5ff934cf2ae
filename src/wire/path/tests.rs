use super::*;
use proptest::prelude::*;

#[track_caller]
fn assert_normal(path: &str, normal: &str) {
    let read = normal_form(path.as_bytes());
    assert_eq!(String::from_utf8_lossy(&read), normal, "{path}");
    let is_borrowed = matches!(read, Cow::Borrowed(_));
    assert_eq!(
        is_borrowed,
        path == normal,
        "{path} is borrowed exactly if nothing changes"
    );
}

#[test]
fn the_normal_form_resolves_what_servers_may_resolve() {
    for (path, normal) in [
        // Nothing changes; a final slash stays.
        ("/", "/"),
        ("/ws", "/ws"),
        ("/socket.io/", "/socket.io/"),
        ("/a.b/..c/...", "/a.b/..c/..."),
        ("/\u{e9}", "/\u{e9}"),
        // Percent-decoding, once; a `%` without two hex digits stays.
        ("/%77s", "/ws"),
        ("/%2577s", "/%77s"),
        ("/%252f", "/%2f"),
        ("/100%", "/100%"),
        ("/%7", "/%7"),
        ("/%zz%4", "/%zz%4"),
        ("/%%77", "/%w"),
        ("/%3f%23", "/?#"),
        ("/a%00b", "/a\0b"),
        // An encoded byte has the meaning of the byte itself.
        ("/a%2fb", "/a/b"),
        ("/a%2F%2Fb", "/a/b"),
        ("/a%5cb", "/a/b"),
        ("/a%5C..%5Cb", "/b"),
        ("/a%3bx/b", "/a/b"),
        ("/%2e%2e/ws", "/ws"),
        ("/a/%2E./ws", "/ws"),
        ("/a/%2e", "/a/"),
        // Backslashes.
        ("\\ws", "/ws"),
        ("/a\\b", "/a/b"),
        ("/\\\\b", "/b"),
        // Parameters.
        ("/ws;jsessionid=1", "/ws"),
        ("/ws;a;b/c;d", "/ws/c"),
        ("/ws/;x", "/ws/"),
        ("/;x/ws", "/ws"),
        ("/a/..;/ws", "/ws"),
        ("/a/.;x/ws", "/a/ws"),
        // Empty and dot segments.
        ("//ws", "/ws"),
        ("/a//b", "/a/b"),
        ("/a//", "/a/"),
        ("/./ws", "/ws"),
        ("/a/b/../c", "/a/c"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a/b/../..", "/"),
        ("/..", "/"),
        ("/../../ws", "/ws"),
        ("/a/../../../ws", "/ws"),
        ("/a//../b", "/b"),
        // An empty path, and one without its first slash.
        ("", "/"),
        ("ws", "/ws"),
        (".", "/"),
        ("..", "/"),
    ] {
        assert_normal(path, normal);
    }
}

#[test]
fn lax_forms_ignore_case_and_the_ends_of_names() {
    for (path, cut, without) in [
        ("/ws", "/ws", None),
        ("/WS/A", "/ws/a", None),
        ("/%57s", "/ws", None),
        ("/a./b..", "/a/b", None),
        ("/a.%20./b%20", "/a/b", None),
        ("/a/..%20/b", "/b", None),
        ("/a/...", "/a/", None),
        ("/a/.%20/B;X", "/a/b", None),
        ("//A\\B", "/a/b", None),
        ("/a.b", "/a.b", None),
        ("/%C3%89\u{c9}", "/\u{e9}\u{e9}", None),
        ("/w%C5%BF", "/ws", None),
        ("/K", "/k", None),
        ("/%E2%84%AA", "/k", None),
        ("/\u{131}\u{130}", "/ii", None),
        ("/a%00b", "/a", Some("/ab")),
        ("/a%00/../b", "/a", Some("/b")),
        ("/%00", "/", Some("/")),
        ("%00", "/", Some("/")),
        ("", "/", None),
    ] {
        let read = lax_forms(path.as_bytes());
        let expected = (
            cut.as_bytes().to_vec(),
            without.map(|without| without.as_bytes().to_vec()),
        );
        assert_eq!(read, expected, "{path}");
    }
    assert_eq!(lax_forms(b"/A%FFB").0, b"/a\xffb");
}

#[test]
fn a_path_is_settled_if_every_server_reads_it_in_the_same_way() {
    for path in ["/", "/ws", "/ws/", "/a.b/c", "/socket.io/", "/.well-known/x", "/a~b"] {
        assert!(PathReading::of(path.as_bytes(), false).is_settled(), "{path}");
    }
    for path in [
        "/WS", "/a./b", "/a.", "/é", "/%61", "//a", "/a;b", "/a/..", "/aZ/", "/a b", "/a\0",
    ] {
        assert!(!PathReading::of(path.as_bytes(), false).is_settled(), "{path}");
    }
}

#[test]
fn a_path_is_plain_if_there_is_only_one_way_to_read_it() {
    for path in [
        "/",
        "/ws",
        "/ws/",
        "/federation/v1/send.it",
        "/a..b/.c/d.",
        "/ws~!$&'()*+,=:@",
    ] {
        assert!(PathReading::of(path.as_bytes(), false).plain, "{path}");
        assert!(!PathReading::of(path.as_bytes(), true).plain, "{path} in absolute form");
    }
    for path in [
        "", "ws", "/%77s", "/100%", "/a\\b", "/a;b", "/;", "//", "/a//b", "/a//", "/.", "/..", "/a/./b", "/a/..",
    ] {
        assert!(!PathReading::of(path.as_bytes(), false).plain, "{path}");
    }
    let reading = PathReading::of(b"/a/%2e%2e/ws", false);
    assert_eq!(
        (reading.as_sent, &*reading.normal),
        (b"/a/%2e%2e/ws".as_slice(), b"/ws".as_slice())
    );
}

#[test]
fn paths_are_below_by_whole_segments() {
    for (path, prefix, expected) in [
        ("/ws", "/ws", true),
        ("/ws/", "/ws", true),
        ("/ws/a", "/ws", true),
        ("/wsx", "/ws", false),
        ("/w", "/ws", false),
        ("/WS", "/ws", false),
        ("/", "/ws", false),
        ("/a/ws", "/ws", false),
        ("/ws", "/ws/", true),
        ("/ws/a", "/ws/", true),
        ("/wsx", "/ws/", false),
        ("/ws/a/b", "/ws/a", true),
        ("/ws;x", "/ws", false),
        ("/ws%2fa", "/ws", false),
        ("/", "/", true),
        ("/anything", "/", true),
        ("//", "/", true),
        ("", "/", true),
    ] {
        assert_eq!(
            is_below(path.as_bytes(), prefix.as_bytes()),
            expected,
            "{path} below {prefix}"
        );
    }
}

/// The steps of [`normal_form`], one after the other, each over the whole path.
fn naive(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let triplet = path
            .get(at..at + 3)
            .filter(|triplet| triplet[0] == b'%' && triplet[1..].iter().all(u8::is_ascii_hexdigit));
        let value = triplet.and_then(|triplet| std::str::from_utf8(&triplet[1..]).ok());
        match value.and_then(|value| u8::from_str_radix(value, 16).ok()) {
            Some(byte) => (decoded.push(byte), at += 3),
            None => (decoded.push(path[at]), at += 1),
        };
    }
    let text: Vec<u8> = decoded
        .iter()
        .map(|&byte| if byte == b'\\' { b'/' } else { byte })
        .collect();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut segments: Vec<Vec<u8>> = text.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect();
    for segment in &mut segments {
        if let Some(parameters) = segment.iter().position(|&byte| byte == b';') {
            segment.truncate(parameters);
        }
    }
    for segment in &segments {
        match segment.as_slice() {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name.to_vec()),
        }
    }
    let is_directory = segments
        .last()
        .is_none_or(|last| matches!(last.as_slice(), b"" | b"." | b".."));
    let mut normal: Vec<u8> = names.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
    if is_directory || normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec!["/", "..", ".", ";", "\\", "%", "%2e", "%2F", "%5c", "%3B", "%25", "a", "ws", "2", "e"])
            .prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..24)).prop_map(|(rooted, pieces)| {
        let start = if rooted { b"/".as_slice() } else { b"" };
        [start, &pieces.concat()].concat()
    })
}

proptest! {
    #[test]
    fn the_normal_form_is_the_naive_one(path in hostile()) {
        let normal = normal_form(&path);
        prop_assert_eq!(&*normal, naive(&path));
        prop_assert_eq!(matches!(normal, Cow::Borrowed(_)), *normal == *path);
    }

    #[test]
    fn a_normal_form_without_percent_is_its_own(path in hostile()) {
        let normal = normal_form(&path);
        prop_assert!(normal.starts_with(b"/"));
        if !normal.contains(&b'%') {
            prop_assert_eq!(normal_form(&normal), Cow::Borrowed(&*normal));
            prop_assert!(PathReading::of(&normal, false).plain);
        }
    }

    #[test]
    fn a_plain_path_is_its_own_normal_form(path in hostile()) {
        let reading = PathReading::of(&path, false);
        if reading.plain {
            prop_assert_eq!(&*reading.normal, reading.as_sent);
        }
    }

    #[test]
    fn a_settled_path_is_its_own_lax_form(path in hostile()) {
        let reading = PathReading::of(&path, false);
        if reading.is_settled() {
            prop_assert_eq!(lax_forms(&path), (path, None));
        }
    }

    #[test]
    fn the_case_of_a_path_and_the_ends_of_its_names_change_no_lax_form(
        names in prop::collection::vec("[a-c]{1,3}", 1..4), ends in prop::collection::vec("[. ]{0,3}", 4), upper in any::<u16>(),
    ) {
        let plain = format!("/{}", names.join("/"));
        let spelt: String = names.iter().zip(&ends).flat_map(|(name, end)| ["/", name, end]).collect();
        let cased = spelt.char_indices().map(|(at, letter)| if upper >> (at % 16) & 1 == 1 { letter.to_ascii_uppercase() } else { letter });
        let cased: String = cased.collect();
        prop_assert_eq!(lax_forms(cased.as_bytes()), (plain.into_bytes(), None), "{}", cased);
    }

    #[test]
    fn no_path_makes_it_panic(path in prop::collection::vec(any::<u8>(), 0..40)) {
        let (cut, without) = lax_forms(&path);
        prop_assert!(cut.starts_with(b"/") && without.is_none_or(|without| without.starts_with(b"/")));
    }

    #[test]
    fn a_path_is_below_another_exactly_if_its_segments_begin_with_the_others(path in "(/[ab]{0,2}){1,4}", prefix in "(/[ab]{1,2}){1,3}/?") {
        let segments: Vec<_> = path.split('/').collect();
        let of_prefix: Vec<_> = prefix.trim_end_matches('/').split('/').collect();
        prop_assert_eq!(is_below(path.as_bytes(), prefix.as_bytes()), segments.starts_with(&of_prefix));
    }
}
