//! The figures as JSON, with every round.

use serde_json::{Map, Value, json};

use crate::book::{Book, Row};
use crate::contender::Contender;
use crate::machine::Machine;
use crate::target::Verdict;

/// The whole report.
pub fn text(machine: &Machine, book: &Book) -> anyhow::Result<String> {
    let rows: Vec<Value> = book.rows.iter().map(row).collect();
    let report = json!({ "machine": machine, "rows": rows, "broken": book.faults });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn row(row: &Row) -> Value {
    let best = row.best_peer();
    let cells: Map<String, Value> = row
        .cells
        .iter()
        .map(|(contender, cell)| {
            let spread = cell.spread();
            let figures = json!({
                "value": row.value(*contender),
                "lowest": spread.map(|(lowest, _)| lowest),
                "highest": spread.map(|(_, highest)| highest),
                "rounds": cell.values.values().collect::<Vec<_>>(),
                "machine": cell.machine.values().collect::<Vec<_>>(),
                "to_floor": row.ratio(*contender, Contender::Relay),
                "to_best_peer": best.and_then(|best| row.ratio(*contender, best)),
            });
            (contender.name().to_owned(), figures)
        })
        .collect();
    let described = |verdict: Verdict| {
        json!({
            "target": verdict.target.text(row.unit),
            "reached": verdict.reached,
            "verdict": verdict.word(),
        })
    };
    json!({
        "name": row.name,
        "unit": row.unit,
        "by": if row.is_by_lowest() { "lowest" } else { "median" },
        "best_peer": best.map(Contender::name),
        "contenders": cells,
        "wsguard": Verdict::on(row).map(described),
        "wsguard_with_limits": Verdict::with_limits(row).map(described),
    })
}
