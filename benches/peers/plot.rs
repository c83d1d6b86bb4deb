//! The table as a picture: one line a row, one dot a contender, on a logarithmic scale of how good it is
//! beside native. Right is better, also where less of the unit is.

use crate::contender::{ALL, Kind, Product};
use crate::results::{Better, Results, Row};
use crate::table;
use std::fmt::Write as _;

const LEFT: f64 = 400.0;
const WIDTH: f64 = 560.0;
const LINE: f64 = 20.0;
const TOP: f64 = 84.0;
/// The scale: powers of ten.
const FROM: f64 = -3.0;
const TO: f64 = 1.0;

fn colour(kind: Kind) -> &'static str {
    match (kind.product, kind.mtu) {
        (Product::Native, 1500) => "#555555",
        (Product::Native, _) => "#aaaaaa",
        (Product::Mossnet, 1500) => "#1a7f37",
        (Product::Mossnet, _) => "#7bc98f",
        (Product::Pasta, 1500) => "#f0a04b",
        (Product::Pasta, _) => "#c2410c",
        (Product::Slirp4netns, 1500) => "#93b4f0",
        (Product::Slirp4netns, _) => "#1d4ed8",
        (Product::Rootlesskit, _) => "#7c3aed",
        (Product::Bypass4netns, _) => "#be185d",
    }
}

/// How good a contender is beside native, or beside the best peer where native has no value.
fn goodness(row: &Row, name: &str) -> Option<f64> {
    let own = row.median(name)?;
    let measure = row
        .median(ALL[0].name)
        .or_else(|| row.best_peer().map(|(_, value)| value))?;
    let ratio = match row.better {
        Better::Higher => own / measure,
        Better::Lower => measure / own,
    };
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

fn place(ratio: f64) -> f64 {
    LEFT + (ratio.log10().clamp(FROM, TO) - FROM) / (TO - FROM) * WIDTH
}

/// The whole picture.
pub fn svg(results: &Results) -> String {
    let rows: Vec<_> = results
        .rows
        .iter()
        .filter(|row| row.unit != "%" && !row.name.starts_with("churn"))
        .collect();
    let bottom = TOP + LINE * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 {:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        bottom + 30.0
    );
    legend(&mut svg, &table::columns(results));
    for (power, text) in [
        (-3.0, "1/1000"),
        (-2.0, "1/100"),
        (-1.0, "1/10"),
        (0.0, "native"),
        (1.0, "10 ×"),
    ] {
        let x = place(10_f64.powf(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#cccccc\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            bottom + 16.0
        );
    }
    for (number, row) in rows.iter().enumerate() {
        line(&mut svg, row, TOP + LINE * (number as f64 + 0.5));
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, columns: &[Kind]) {
    svg.push_str(
        "<text x=\"10\" y=\"20\" font-size=\"15\">How good beside native veth (medians, logarithmic; \
         right is better; where native has no value, beside the best peer)</text>\n",
    );
    for (number, kind) in columns.iter().enumerate() {
        let (x, y) = (
            14.0 + 198.0 * (number % 5) as f64,
            42.0 + 18.0 * (number / 5) as f64,
        );
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            colour(*kind),
            x + 9.0,
            y + 4.0,
            kind.name
        );
    }
}

fn line(svg: &mut String, row: &Row, y: f64) {
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}, {}</text>\
         <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#eeeeee\"/>",
        LEFT - 10.0,
        y + 4.0,
        row.name,
        row.unit,
        LEFT + WIDTH
    );
    // mossnet last: on top.
    let mut kinds = ALL.clone();
    kinds.sort_by_key(|kind| (kind.product == Product::Mossnet, kind.name == "mossnet"));
    for kind in kinds {
        let Some(ratio) = goodness(row, kind.name) else {
            continue;
        };
        let size = if kind.name == "mossnet" { 6 } else { 4 };
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{size}\" fill=\"{}\" fill-opacity=\"0.85\">\
             <title>{}: {}</title></circle>",
            place(ratio),
            colour(kind),
            kind.name,
            row.median(kind.name).map(table::shown).unwrap_or_default()
        );
    }
}
