//! The Prometheus text, as a map from series to number.

use std::collections::BTreeMap;

/// One scrape.
pub struct Metrics {
    series: BTreeMap<String, String>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads the text. Panics on a line that is not in the format.
    pub fn parse(text: &str) -> Self {
        let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of.split_once(' ').expect("a type");
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                let (name, number) = line.rsplit_once(' ').expect("a number");
                assert!(
                    series.insert(canonical(name), number.to_owned()).is_none(),
                    "twice: {name}"
                );
            }
        }
        Self { series, types }
    }

    /// Whether the series is present.
    pub fn has(&self, series: &str) -> bool {
        self.series.contains_key(&canonical(series))
    }

    /// A whole number; 0 if the series has not begun. A misspelt series panics, because a test that expects 0 of it
    /// would always pass.
    pub fn count(&self, series: &str) -> i64 {
        let Some(number) = self.series.get(&canonical(series)) else {
            assert!(begins_later(series), "no series is called {series}");
            return 0;
        };
        number
            .parse()
            .unwrap_or_else(|_| panic!("{series} is {number}, no whole number"))
    }

    /// Every series whose name begins with this.
    pub fn starting_with(&self, prefix: &str) -> Vec<(&str, &str)> {
        self.series
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect()
    }

    /// The `TYPE` of each name.
    pub fn types(&self) -> &BTreeMap<String, String> {
        &self.types
    }

    /// Every gauge of open or pending connections that is not 0.
    pub fn open_counts(&self) -> Vec<(String, String)> {
        let counts = [
            "wsguard_connections{",
            "wsguard_pending{",
            "wsguard_upstream_connections{",
            "wsguard_clients{",
        ];
        self.series
            .iter()
            .filter(|(name, _)| {
                counts.iter().any(|count| name.starts_with(count))
                    || *name == "wsguard_process_connections"
                    || name.starts_with("wsguard_silent_connections")
            })
            .filter(|(_, number)| *number != "0")
            .map(|(name, number)| (name.clone(), number.clone()))
            .collect()
    }
}

/// Whether the series begins with its first event. All others are present from the start.
fn begins_later(series: &str) -> bool {
    let canonical = canonical(series);
    let labels = canonical
        .strip_prefix("wsguard_handshakes_total{outcome=\"")
        .and_then(|rest| rest.split_once("\",reason=\""))
        .and_then(|(outcome, rest)| Some((outcome, rest.split_once("\",zone=\"")?.0)));
    labels.is_some_and(|(outcome, reason)| {
        // tests/docs/main.rs compares these tables with the reasons of the program.
        let is_explained = include_str!("../../conf/reasons.md").contains(&format!("\n| `{reason}` | "));
        is_explained && ["rejected", "observed", "failed"].contains(&outcome)
    })
}

/// Sorts the labels, so that a test may write them in any order.
fn canonical(series: &str) -> String {
    let Some((name, labels)) = series.strip_suffix('}').and_then(|rest| rest.split_once('{')) else {
        return series.to_owned();
    };
    let mut labels: Vec<&str> = labels.split("\",").map(|label| label.trim_end_matches('"')).collect();
    labels.sort_unstable();
    format!("{name}{{{}\"}}", labels.join("\","))
}
