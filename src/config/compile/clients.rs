//! Compiles lists of networks into sets of clients.

use std::ops::Range;

use ipnet::IpNet;

use crate::config::document::table::Text;
use crate::config::findings::{Finding, Findings, nearest};
use crate::config::notation::addresses::{self, LOOPBACK, PRIVATE};
use crate::config::routes::clients::ClientSet;

/// The set of clients of a list of networks. The list may also contain "loopback", "private" and "unix".
pub fn set(texts: &[Text<'_>], found: &mut Findings) -> ClientSet {
    let unix = texts.iter().any(|text| text.text == "unix");
    let networks = texts
        .iter()
        .filter(|text| text.text != "unix")
        .flat_map(|text| networks(text, found));
    ClientSet {
        networks: networks.map(|(network, _)| network).collect(),
        unix,
    }
}

/// The networks that one text stands for, each with its place.
pub fn networks(text: &Text<'_>, found: &mut Findings) -> Vec<(IpNet, Range<usize>)> {
    let spelled: &[&str] = match text.text {
        "loopback" => &LOOPBACK,
        "private" => &PRIVATE,
        _ => &[text.text],
    };
    let mut networks = Vec::with_capacity(spelled.len());
    for one in spelled {
        match addresses::network(one) {
            Ok(network) => networks.push((network, text.span.clone())),
            Err(invalid) => {
                let word = if *one == "localhost" {
                    Some("loopback")
                } else {
                    nearest(one, WORDS)
                };
                let word = word.map(|word| format!("did you mean \"{word}\"?"));
                let hint = word.unwrap_or(invalid.hint);
                found.mistake(Finding::at(text.span.clone(), invalid.reason).hint(hint));
            }
        }
    }
    networks
}

const WORDS: [&str; 3] = ["loopback", "private", "unix"];
