//! The figures as Markdown.

use std::fmt::Write as _;

use crate::book::{Book, Cell, Row, median};
use crate::contender::Contender;
use crate::machine::Machine;
use crate::target::Verdict;

/// The whole report.
pub fn text(machine: &Machine, book: &Book) -> String {
    let mut text = "# wsguard and its peers\n\n".to_owned();
    for (name, value) in machine.lines() {
        line(&mut text, &format!("- {name}: {value}"));
    }
    line(&mut text, ABOUT);
    costs(&mut text, book);
    with_limits(&mut text, book);
    ratios(&mut text, book);
    whole_machine(&mut text, book);
    if !book.faults.is_empty() {
        line(&mut text, "\n## What broke\n");
        for fault in &book.faults {
            line(&mut text, &format!("- {fault}"));
        }
    }
    text
}

fn costs(text: &mut String, book: &Book) {
    let columns = Contender::ALL.map(Contender::name);
    let last = ["wsguard / floor", "wsguard / best peer", "target", "reached", ""];
    header(text, &[&["scenario", "unit"][..], &columns, &last].concat());
    for row in &book.rows {
        let mut cells = vec![row.name.clone(), row.unit.to_owned()];
        cells.extend(
            Contender::ALL.map(|contender| row.cells.get(&contender).map_or_else(none, |_| shown(row, contender))),
        );
        cells.push(times(row.ratio(Contender::Wsguard, Contender::Relay)));
        let best = row.best_peer();
        cells.push(best.map_or_else(none, |best| {
            format!("{} ({})", times(row.ratio(Contender::Wsguard, best)), best.name())
        }));
        if let Some(verdict) = Verdict::on(row) {
            cells.push(verdict.target.text(row.unit));
            cells.push(verdict.reached.map_or_else(none, |reached| format!("{reached:.3}")));
            cells.push(format!("**{}**", verdict.word()));
        } else {
            cells.extend([none(), none(), String::new()]);
        }
        line(text, &format!("| {} |", cells.join(" | ")));
    }
}

/// Adds the table with the costs of policing messages.
fn with_limits(text: &mut String, book: &Book) {
    let rows = || {
        book.rows
            .iter()
            .filter_map(|row| Some((row, Verdict::with_limits(row)?)))
    };
    if rows().next().is_none() {
        return;
    }
    line(
        text,
        "\n## wsguard with every limit on messages, and pings, to wsguard without\n",
    );
    header(text, &["scenario", "ratio", "target", "reached", ""]);
    for (row, verdict) in rows() {
        let ratio = times(row.ratio(Contender::WsguardLimits, Contender::Wsguard));
        let reached = verdict.reached.map_or_else(none, |reached| format!("{reached:.3}"));
        let target = verdict.target.text(row.unit);
        let word = verdict.word();
        line(
            text,
            &format!("| {} | {ratio} | {target} | {reached} | **{word}** |", row.name),
        );
    }
}

fn ratios(text: &mut String, book: &Book) {
    line(text, "\n## As a multiple of the floor, and of the best peer\n");
    let columns = Contender::ALL.map(Contender::name);
    header(text, &[&["scenario"][..], &columns].concat());
    for row in book.rows.iter().filter(|row| row.unit != "/s" && row.cells.len() > 1) {
        let best = row.best_peer();
        let cells = Contender::ALL.map(|contender| {
            if !row.cells.contains_key(&contender) {
                return none();
            }
            let to_best = best.and_then(|best| row.ratio(contender, best));
            format!("{} / {}", times(row.ratio(contender, Contender::Relay)), times(to_best))
        });
        line(text, &format!("| {} | {} |", row.name, cells.join(" | ")));
    }
}

fn whole_machine(text: &mut String, book: &Book) {
    let is_there = |cell: &Cell| !cell.machine.is_empty();
    let rows: Vec<&Row> = book
        .rows
        .iter()
        .filter(|row| row.cells.values().any(is_there))
        .collect();
    if rows.is_empty() {
        return;
    }
    line(text, "\n## CPU of the whole machine, clients and backend included\n");
    let columns = Contender::ALL.map(Contender::name);
    header(text, &[&["scenario", "unit"][..], &columns].concat());
    for row in rows {
        let cells = Contender::ALL.map(|contender| {
            let cell = row.cells.get(&contender);
            cell.and_then(|cell| median(cell.machine.values()))
                .map_or_else(none, number)
        });
        line(
            text,
            &format!("| {} | {} | {} |", row.name, row.unit, cells.join(" | ")),
        );
    }
}

fn shown(row: &Row, contender: Contender) -> String {
    let value = row.value(contender).map_or_else(none, number);
    match row.cells.get(&contender).and_then(Cell::spread) {
        Some((lowest, highest)) if lowest < highest => format!("{value} ({}..{})", number(lowest), number(highest)),
        _ => value,
    }
}

fn header(text: &mut String, names: &[&str]) {
    line(text, &format!("| {} |", names.join(" | ")));
    let is_words = |name: &&str| ["scenario", "unit", "target", ""].contains(name);
    let rules: Vec<&str> = names
        .iter()
        .map(|name| if is_words(name) { "---" } else { "---:" })
        .collect();
    line(text, &format!("|{}|", rules.join("|")));
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(none, |ratio| format!("{ratio:.2}"))
}

fn none() -> String {
    "-".to_owned()
}

fn line(text: &mut String, line: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{line}");
}

const ABOUT: &str = "
CPU is the proxy's own, of all its processes; memory is PSS beyond that of the proxy without connections, a connection,
files left out; `kept` is the same after all have closed, `left in all` the whole of it then, files included; calls are
system calls an operation, under strace. A cell is the median of the rounds with the lowest and the highest
(`upgrade`: the lowest round instead of the median), a ratio is the median of the rounds' ratios. `relay` is the floor: a
blind epoll relay that parses nothing and limits nobody; in `flood` it meets none, which shows what is the bench's own.
On a machine that is shared, differences under 15 % (upgrade) or 25 % (all other CPU) are noise; a target that is missed by
less counts as missed all the same.
";
