//! Finds the known word that was probably meant by a misspelt one.

/// The word of `known` that was probably meant by `written`.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_by(strsim::damerau_levenshtein, written, known)
}

fn nearest_by<'a>(
    distance: impl Fn(&str, &str) -> usize,
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = written.to_ascii_lowercase();
    let most = |name: &str| 1.max(name.len().max(lower.len()) / 3);
    known
        .into_iter()
        // A comparison takes time in proportion to the product of the two lengths.
        .filter(|name| name.len().abs_diff(lower.len()) <= most(name))
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= most(name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A hint: "did you mean" with the [`nearest`] word, else a list of all known words. `None` if no word is known.
pub fn suggest<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(written, known.clone()) {
        return Some(format!("did you mean \"{name}\"?"));
    }
    let mut known = known.into_iter().peekable();
    known.peek()?;
    Some(list(known))
}

/// A hint: all of these words.
pub fn list<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<String> = known.into_iter().map(|name| format!("\"{name}\"")).collect();
    format!("one of {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_much_longer_than_all_known_ones_is_not_compared() {
        let never = |written: &str, name: &str| panic!("{} bytes compared with {name}", written.len());
        let long = "x".repeat(1 << 20);
        assert_eq!(nearest_by(never, &long, ["listener", "limits"]), None);
        assert_eq!(nearest("lstener", ["listener", "limits"]), Some("listener"));
    }
}
