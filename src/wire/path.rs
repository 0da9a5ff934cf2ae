//! The ways to read a request's path: as it was sent, as a server may resolve it, and as the most lenient server may.
//!
//! A client must not get around a route by a spelling of the path that the server reads as another path. So routes are
//! matched against every reading, and a request whose readings lead to different routes is refused.

use std::borrow::Cow;

/// A path as it was sent and in its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReading<'a> {
    /// The path as it was sent, without the query.
    pub as_sent: &'a [u8],
    /// Its [`normal_form`].
    pub normal: Cow<'a, [u8]>,
    /// Whether there is only one way to read it: it has no `%`, `\`, `;`, `//` or dot segment, and the target was not a
    /// URL.
    pub plain: bool,
}

impl<'a> PathReading<'a> {
    /// Reads `path`, the path of the request target without its query. `absolute_form` says that the target was a URL.
    pub fn of(path: &'a [u8], absolute_form: bool) -> Self {
        Self {
            as_sent: path,
            normal: normal_form(path),
            plain: !absolute_form && reads_one_way(path),
        }
    }

    /// Whether its [`lax_forms`] are the path itself: it is plain, in lower case, ASCII, and no segment ends with a
    /// dot.
    pub fn is_settled(&self) -> bool {
        let mut before = 0;
        let keeps = |byte: u8| {
            let falls = !byte.is_ascii_graphic() || byte.is_ascii_uppercase() || (byte == b'/' && before == b'.');
            before = byte;
            !falls
        };
        self.plain && self.as_sent.iter().copied().all(keeps) && !self.as_sent.ends_with(b".")
    }
}

/// `path` as it is read by servers that ignore case (Express, IIS) and cut the ends of names (Windows). On top of what
/// [`normal_form`] resolves, it is in lower case, and each segment loses the dots and blanks at its end. Outside ASCII,
/// letters with the same upper case become the same letter.
///
/// If the path has a NUL, there are two forms: one that ends before it, for servers that stop reading there, and one
/// with every NUL removed.
pub fn lax_forms(path: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let decoded = decode(path);
    let lax = |read: &[u8]| fold(&resolve(read, without_end));
    match decoded.iter().position(|&byte| byte == 0) {
        None => (lax(&decoded), None),
        Some(nul) => {
            let others: Vec<u8> = decoded.iter().copied().filter(|&byte| byte != 0).collect();
            (lax(decoded.get(..nul).unwrap_or_default()), Some(lax(&others)))
        }
    }
}

/// `path` with everything resolved that servers resolve. In this order: it is percent-decoded once (a `%` without two
/// hex digits stays), each `\` becomes `/`, each segment loses its `;` and what follows it, and empty and dot segments
/// are resolved. So an encoded `/`, `\`, `;` or `.` counts as the byte itself. `..` above the root stays at the root.
///
/// The result starts with `/` and can be passed to [`is_below`]. A final `/` is kept. The result is decoded, so don't
/// normalise it again if it still has a `%`.
pub fn normal_form(path: &[u8]) -> Cow<'_, [u8]> {
    if reads_one_way(path) {
        return Cow::Borrowed(path);
    }
    let resolved = resolve(&decode(path), |name| name);
    if resolved == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolved)
    }
}

/// Whether `path` is `prefix` or below it, by whole segments: `/ws`, `/ws/` and `/ws/a` are below `/ws`, but `/wsx` is
/// not.
///
/// A final `/` of the prefix is ignored, so every path is below `/`. Bytes are compared as they are, including their
/// case.
pub fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    prefix.is_empty()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// Whether `path` can be read in only one way.
fn reads_one_way(path: &[u8]) -> bool {
    let Some(below_root) = path.strip_prefix(b"/") else {
        return false;
    };
    if below_root.is_empty() {
        return true;
    }
    let mut segments = below_root.split(|&byte| byte == b'/');
    // The last one may be empty, after a final slash.
    let last = segments.next_back().unwrap_or_default();
    segments.all(|segment| !segment.is_empty() && is_plain_segment(segment)) && is_plain_segment(last)
}

fn is_plain_segment(segment: &[u8]) -> bool {
    !matches!(segment, b"." | b"..") && !segment.iter().any(|byte| matches!(byte, b'%' | b'\\' | b';'))
}

/// Percent-decodes once and writes every `\` as `/`.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let (byte, next) = match after {
            [high, low, next @ ..] if *first == b'%' => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, next),
                _ => (*first, after),
            },
            _ => (*first, after),
        };
        decoded.push(if byte == b'\\' { b'/' } else { byte });
        rest = next;
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A segment's name without the dots and blanks at its end. `.` and `..` stay, also those with blanks after them.
fn without_end(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let [shorter @ .., b' '] = name {
        name = shorter;
    }
    if matches!(name, b"." | b"..") {
        return name;
    }
    while let [shorter @ .., b'.' | b' '] = name {
        name = shorter;
    }
    name
}

/// In lower case. Letters with the same upper case become the same letter. Bytes that are not UTF-8 stay.
fn fold(path: &[u8]) -> Vec<u8> {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    let mut folded = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        let letters = chunk
            .valid()
            .chars()
            .map(|letter| if letter == 'İ' { 'i' } else { letter });
        for letter in letters.flat_map(char::to_uppercase).flat_map(char::to_lowercase) {
            folded.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        folded.extend_from_slice(chunk.invalid());
    }
    folded
}

/// Cuts parameters, applies `read` to each segment, and resolves empty and dot segments.
fn resolve(decoded: &[u8], read: fn(&[u8]) -> &[u8]) -> Vec<u8> {
    // Always ends with the slash after its last segment, so going up means cutting after the slash before that one.
    let mut resolved = Vec::with_capacity(decoded.len() + 2);
    resolved.push(b'/');
    let mut ends_in_name = false;
    for segment in decoded.split(|&byte| byte == b'/') {
        let name = read(segment.split(|&byte| byte == b';').next().unwrap_or_default());
        ends_in_name = false;
        match name {
            b"" | b"." => {}
            b".." => {
                resolved.pop();
                let parent = resolved
                    .iter()
                    .rposition(|&byte| byte == b'/')
                    .map_or(0, |slash| slash + 1);
                resolved.truncate(parent);
                if resolved.is_empty() {
                    resolved.push(b'/');
                }
            }
            _ => {
                resolved.extend_from_slice(name);
                resolved.push(b'/');
                ends_in_name = true;
            }
        }
    }
    if ends_in_name {
        resolved.pop();
    }
    resolved
}

#[cfg(test)]
mod tests;
