//! The figures as a picture: bars relative to wsguard's.

use std::fmt::Write as _;

use crate::book::{Book, Row};
use crate::contender::Contender;
use crate::machine::Machine;
use crate::table::number;
use crate::target::Target;

/// An SVG of all figures that have a target and a peer to compare with.
pub fn text(machine: &Machine, book: &Book) -> String {
    let rows: Vec<&Row> = book.rows.iter().filter(|row| is_drawn(row)).collect();
    let bars: u32 = rows.iter().map(|row| count(row)).sum();
    let height = TOP + bars * BAR + u32::try_from(rows.len()).unwrap_or_default() * (TITLE + GAP) + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Cost of wsguard and its peers\">\n{STYLE}\n"
    );
    let one = LEFT + UNIT;
    add(
        &mut svg,
        &format!("<rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>"),
    );
    add(
        &mut svg,
        "<text class=\"head\" x=\"12\" y=\"26\">What it costs, as a multiple of wsguard</text>",
    );
    let about = format!(
        "Shorter is cheaper; the line is wsguard. {} cores, Linux {}, {}.",
        machine.cores, machine.kernel, machine.date
    );
    add(
        &mut svg,
        &format!("<text class=\"note\" x=\"12\" y=\"46\">{}</text>", escaped(&about)),
    );
    let mut y = TOP;
    for row in rows {
        y += TITLE;
        let title = format!("{} ({})", row.name, row.unit);
        add(
            &mut svg,
            &format!(
                "<text class=\"name\" x=\"12\" y=\"{}\">{}</text>",
                y - 6,
                escaped(&title)
            ),
        );
        let begin = y;
        for contender in Contender::ALL {
            let (Some(ratio), Some(value)) = (row.ratio(contender, Contender::Wsguard), row.value(contender)) else {
                continue;
            };
            add(&mut svg, &bar(contender, ratio, value, y));
            y += BAR;
        }
        add(&mut svg, &format!("<path class=\"one\" d=\"M{one} {begin}V{y}\"/>"));
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(contender: Contender, ratio: f64, value: f64, y: u32) -> String {
    let class = match contender {
        Contender::Wsguard | Contender::WsguardLimits => "ours",
        Contender::Relay => "floor",
        _ => "peer",
    };
    let is_cut = ratio > MOST;
    let length = (ratio.clamp(0.0, MOST) * f64::from(UNIT)).max(1.0);
    let more = if is_cut { " \u{2192}" } else { "" };
    // The label stands beyond the line, which would otherwise go through it.
    let label = f64::from(LEFT) + length.max(f64::from(UNIT)) + 6.0;
    let (middle, thick) = (y + BAR - 4, BAR - 3);
    format!(
        "<text class=\"who\" x=\"{}\" y=\"{middle}\">{}</text>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{thick}\" rx=\"2\"/>\
         <text class=\"note\" x=\"{label:.1}\" y=\"{middle}\">{}{more} ({})</text>",
        LEFT - 8,
        contender.name(),
        number(ratio),
        number(value),
    )
}

/// Whether the row gets bars. A ratio means nothing if wsguard's figure is zero.
fn is_drawn(row: &Row) -> bool {
    let ours = row.value(Contender::Wsguard);
    Target::of(&row.name).is_some() && count(row) > 1 && ours.is_some_and(|value| value > 0.0)
}

fn count(row: &Row) -> u32 {
    let has_ratio = |contender: &&Contender| row.ratio(**contender, Contender::Wsguard).is_some();
    u32::try_from(Contender::ALL.iter().filter(has_ratio).count()).unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn add(svg: &mut String, line: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(svg, "{line}");
}

const WIDTH: u32 = 760;
const TOP: u32 = 60;
const LEFT: u32 = 120;
/// The length of wsguard's bar.
const UNIT: u32 = 120;
/// Longer bars are cut.
const MOST: f64 = 4.2;
const BAR: u32 = 15;
const TITLE: u32 = 24;
const GAP: u32 = 4;
const STYLE: &str = "<style>
text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1f2328 }
.head { font-size: 17px; font-weight: 600 }
.name { font-weight: 600 }
.who { text-anchor: end }
.note { fill: #59636e }
.back { fill: #ffffff }
.ours { fill: #0969da }
.peer { fill: #afb8c1 }
.floor { fill: #dfe3e8 }
.one { stroke: #0969da; stroke-width: 1; stroke-dasharray: 3 2; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9198a1 }
  .back { fill: #0d1117 }
  .ours { fill: #4493f8 }
  .peer { fill: #57606a }
  .floor { fill: #30363d }
  .one { stroke: #4493f8 }
}
</style>";
