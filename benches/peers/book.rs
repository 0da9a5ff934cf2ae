//! The results of the measurements.

use std::collections::BTreeMap;

use crate::contender::Contender;
use crate::meter::Cost;
use crate::scenario::Scenario;

/// All results, in the order in which they came.
#[derive(Debug, Default)]
pub struct Book {
    pub rows: Vec<Row>,
    /// The measurements that failed, and why.
    pub faults: Vec<String>,
}

/// One figure, for each contender that has it.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub cells: BTreeMap<Contender, Cell>,
}

/// The values of one contender by round. Rounds are missing if something broke.
#[derive(Debug, Default)]
pub struct Cell {
    pub values: BTreeMap<usize, f64>,
    /// The CPU time of the whole machine.
    pub machine: BTreeMap<usize, f64>,
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    what: &'static str,
    unit: &'static str,
    pub value: f64,
    machine: Option<f64>,
}

impl Book {
    pub fn note(&mut self, scenario: Scenario, contender: Contender, round: usize, figures: Vec<Figure>) {
        for figure in figures {
            let name = format!("{} {}", scenario.name(), figure.what).trim_end().to_owned();
            let place = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                self.rows.push(Row {
                    name,
                    unit: figure.unit,
                    cells: BTreeMap::new(),
                });
                self.rows.len() - 1
            });
            let cell = self.rows[place].cells.entry(contender).or_default();
            cell.values.insert(round, figure.value);
            cell.machine.extend(figure.machine.map(|machine| (round, machine)));
        }
    }

    pub fn fault(&mut self, scenario: Scenario, contender: Contender, error: &anyhow::Error) {
        let fault = format!("{} of {}: {error:#}", scenario.name(), contender.name());
        eprintln!("broken: {fault}");
        self.faults.push(fault);
    }
}

impl Row {
    /// The value that stands for all rounds. Any disturbance makes a handshake more expensive, so the lowest round is
    /// the most accurate one for it.
    pub fn value(&self, of: Contender) -> Option<f64> {
        let cell = self.cells.get(&of)?;
        if self.is_by_lowest() {
            cell.spread().map(|(lowest, _)| lowest)
        } else {
            median(cell.values.values())
        }
    }

    /// The cost of one contender relative to another: the median of the ratios of the rounds, since only values that
    /// were measured side by side can be compared. `None` if nearly nothing was used, or if less was used than before.
    pub fn ratio(&self, of: Contender, to: Contender) -> Option<f64> {
        if self.is_by_lowest() {
            return divided(self.value(of)?, self.value(to)?);
        }
        let (of, to) = (self.cells.get(&of)?, self.cells.get(&to)?);
        let ratios: Vec<f64> = of
            .values
            .iter()
            .filter_map(|(round, value)| divided(*value, *to.values.get(round)?))
            .collect();
        median(&ratios)
    }

    /// The peer with the lowest cost. The relay is no peer.
    pub fn best_peer(&self) -> Option<Contender> {
        let peers = self.cells.keys().copied().filter(|contender| contender.is_peer());
        peers
            .filter_map(|peer| Some((peer, self.value(peer)?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(peer, _)| peer)
    }

    pub fn is_by_lowest(&self) -> bool {
        self.name == "upgrade"
    }
}

impl Cell {
    /// The lowest and the highest round.
    pub fn spread(&self) -> Option<(f64, f64)> {
        let mut values: Vec<f64> = self.values.values().copied().collect();
        values.sort_by(f64::total_cmp);
        Some((*values.first()?, *values.last()?))
    }
}

impl Figure {
    /// A figure that is a plain number.
    pub fn of(what: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            what,
            unit,
            value,
            machine: None,
        }
    }

    pub fn micros_each(cost: Cost, count: u64) -> Self {
        Self::cost("us", cost, count as f64 / 1e6)
    }

    pub fn seconds_a_gigabyte(cost: Cost, bytes: usize) -> Self {
        Self::cost("s/GB", cost, bytes as f64 / 1e9)
    }

    pub fn kib_each(what: &'static str, kib: f64, count: usize) -> Self {
        Self::of(what, "KiB", kib / count as f64)
    }

    pub fn megabytes(what: &'static str, kib: f64) -> Self {
        Self::of(what, "MB", kib * 1024.0 / 1e6)
    }

    fn cost(unit: &'static str, cost: Cost, units: f64) -> Self {
        Self {
            what: "",
            unit,
            value: cost.proxy.as_secs_f64() / units,
            machine: Some(cost.machine.as_secs_f64() / units),
        }
    }
}

fn divided(one: f64, other: f64) -> Option<f64> {
    (one > NOTHING && other > NOTHING).then(|| one / other)
}

/// The median: the middle value, or the mean of the two middle ones.
pub fn median<'a>(values: impl IntoIterator<Item = &'a f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().copied().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

/// Below this value a figure means nothing.
const NOTHING: f64 = 0.05;
