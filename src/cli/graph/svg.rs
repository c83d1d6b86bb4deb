//! For a browser: networks are vertical lines below their boxes, sandboxes are rows; a dot where
//! they meet is an endpoint, with its addresses beside it. So no line needs to be followed round a
//! corner, however many there are.
//!
//! Source: SVG 1.1. Text is monospaced, so that its width is known without a font.

use super::{Instead, Member, Network, Picture, Sandbox};
use std::fmt::Write as _;

/// Size of the text, and of the smaller one.
const FONT: usize = 13;
const SMALL: usize = 11;
/// Baseline to baseline of the smaller text.
const LEADING: usize = 15;
/// Space around everything, and within a box.
const MARGIN: usize = 24;
const PADDING: usize = 12;
/// Height of the bar on top.
const WORLD: usize = 30;
/// From the bar to the networks: room for how the traffic leaves.
const CABLE: usize = 34;
/// Space between rows, and between columns.
const GAP: usize = 16;
/// From the dot to the text beside it.
const BESIDE: usize = 12;
/// Of networks, by turns; each is readable on white and with white on it.
const COLORS: [&str; 8] = [
    "#1f6f5c", "#3b5ba5", "#a2472f", "#6b4a9e", "#8a6d1c", "#2a7f9e", "#9e2f66", "#4f6b2f",
];

pub(super) fn draw(picture: &Picture) -> String {
    Drawing::of(picture).text()
}

/// Where everything is.
struct Drawing<'p> {
    picture: &'p Picture,
    /// Width of the boxes of sandboxes.
    names: usize,
    /// Left edge and width of each network.
    columns: Vec<(usize, usize)>,
    /// Upper edge and height of each sandbox.
    rows: Vec<(usize, usize)>,
    /// Upper edge and height of the boxes of networks.
    heads: (usize, usize),
    width: usize,
    height: usize,
    text: String,
}

impl<'p> Drawing<'p> {
    fn of(picture: &'p Picture) -> Self {
        let names = picture.boxes.iter().map(width_of_box).max().unwrap_or(0);
        let mut left = MARGIN + names + 2 * GAP;
        let mut columns = Vec::new();
        for network in &picture.networks {
            let width = width_of_column(network);
            columns.push((left, width));
            left += width + GAP;
        }
        let prefixes = picture.networks.iter().map(|n| n.prefixes.len()).max();
        let heads = (
            MARGIN + WORLD + CABLE,
            2 * PADDING + FONT + 2 * LEADING * prefixes.unwrap_or(0),
        );
        let mut top = heads.0 + heads.1 + 2 * GAP;
        let mut rows = Vec::new();
        for (index, sandbox) in picture.boxes.iter().enumerate() {
            let height = height_of_row(picture, index, sandbox);
            rows.push((top, height));
            top += height + GAP;
        }
        Self {
            picture,
            names,
            columns,
            rows,
            heads,
            width: left.max(MARGIN + names) + MARGIN,
            height: top + MARGIN,
            text: String::new(),
        }
    }

    fn text(mut self) -> String {
        let (width, height) = (self.width, self.height);
        let _ = writeln!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans Mono, monospace\">\n\
             <title>mossnet networks</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
        );
        self.world();
        for index in 0..self.picture.networks.len() {
            self.network(index);
        }
        for index in 0..self.picture.boxes.len() {
            self.sandbox(index);
        }
        self.text.push_str("</svg>\n");
        self.text
    }

    fn world(&mut self) {
        let out = |(network, column): (&Network, &(usize, usize))| {
            network.way_out.is_some().then_some(*column)
        };
        let reach = self.picture.networks.iter().zip(&self.columns);
        let reach: Vec<(usize, usize)> = reach.filter_map(out).collect();
        let (Some(first), Some(last)) = (reach.first(), reach.last()) else {
            return;
        };
        let (left, right) = (first.0, last.0 + last.1);
        let width = right - left;
        let _ = writeln!(
            self.text,
            "<rect x=\"{left}\" y=\"{MARGIN}\" width=\"{width}\" height=\"{WORLD}\" rx=\"15\" fill=\"#e8ecef\"/>"
        );
        self.words(
            left + width / 2,
            MARGIN + 20,
            FONT,
            "#333333",
            "middle",
            "world",
        );
    }

    fn network(&mut self, index: usize) {
        let picture = self.picture;
        let (Some(network), Some(&(left, width))) =
            (picture.networks.get(index), self.columns.get(index))
        else {
            return;
        };
        let color = COLORS[index % COLORS.len()];
        let (top, height) = self.heads;
        let line = left + PADDING;
        if let Some(way_out) = network.way_out {
            let (from, to) = (MARGIN + WORLD, top);
            self.line((line, from), (line, to), color, 2, "");
            self.words(
                line + BESIDE,
                from + CABLE / 2 + 4,
                SMALL,
                "#555555",
                "start",
                way_out,
            );
        } else {
            let baseline = top - 8;
            self.words(line, baseline, SMALL, "#777777", "start", "no way out");
        }
        let end = self.lowest(network).unwrap_or(top + height);
        self.line((line, top + height), (line, end), color, 3, "");
        let dashes = if network.way_out.is_some() {
            ""
        } else {
            " stroke-dasharray=\"5 3\""
        };
        let _ = writeln!(
            self.text,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\" stroke=\"{color}\" stroke-width=\"2\"{dashes}/>"
        );
        let mut baseline = top + PADDING + FONT;
        self.words(line, baseline, FONT, color, "start", &network.name);
        for prefix in &network.prefixes {
            baseline += LEADING;
            self.words(line, baseline, SMALL, "#333333", "start", &prefix.subnet);
            baseline += LEADING;
            let router = format!("router {}", prefix.gateway);
            self.words(line, baseline, SMALL, "#777777", "start", &router);
        }
    }

    /// Where the line of a network ends: at its last member.
    fn lowest(&self, network: &Network) -> Option<usize> {
        let last = network.members.iter().map(|member| member.sandbox).max()?;
        self.rows.get(last).map(|(top, height)| top + height / 2)
    }

    fn sandbox(&mut self, index: usize) {
        let picture = self.picture;
        let (Some(sandbox), Some(&(top, height))) =
            (picture.boxes.get(index), self.rows.get(index))
        else {
            return;
        };
        let middle = top + height / 2;
        let right = MARGIN + self.names;
        let (ink, fill) = if sandbox.runs {
            ("#222222", "#f4f6f7")
        } else {
            ("#999999", "#fbfbfb")
        };
        let joined = picture
            .networks
            .iter()
            .enumerate()
            .filter_map(|(column, network)| {
                let member = network
                    .members
                    .iter()
                    .find(|member| member.sandbox == index)?;
                Some((column, member))
            });
        let joined: Vec<(usize, &Member)> = joined.collect();
        if let Some(&(last, _)) = joined.last()
            && let Some((left, _)) = self.columns.get(last)
        {
            self.line((right, middle), (left + PADDING, middle), ink, 1, "");
        }
        let _ = writeln!(
            self.text,
            "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{}\" height=\"{height}\" rx=\"4\" fill=\"{fill}\" stroke=\"{ink}\"/>",
            self.names
        );
        let lines = lines_of_box(sandbox);
        let text_height = FONT + LEADING * lines.len();
        let mut baseline = top + (height.saturating_sub(text_height)) / 2 + FONT - 2;
        self.words(
            MARGIN + PADDING,
            baseline,
            FONT,
            ink,
            "start",
            &sandbox.name,
        );
        for line in &lines {
            baseline += LEADING;
            self.words(MARGIN + PADDING, baseline, SMALL, "#777777", "start", line);
        }
        for (column, member) in joined {
            self.endpoint(column, member, middle);
        }
    }

    fn endpoint(&mut self, column: usize, member: &Member, middle: usize) {
        let Some(&(left, _)) = self.columns.get(column) else {
            return;
        };
        let color = COLORS[column % COLORS.len()];
        let x = left + PADDING;
        let fill = if member.ifname.is_some() {
            color
        } else {
            "#ffffff"
        };
        let _ = writeln!(
            self.text,
            "<circle cx=\"{x}\" cy=\"{middle}\" r=\"5\" fill=\"{fill}\" stroke=\"{color}\" stroke-width=\"2\"/>"
        );
        let lines = lines_of_member(member);
        // The first one above the line of the row, the others below it.
        let mut baseline = middle - 5;
        for (index, line) in lines.iter().enumerate() {
            let ink = if index == 0 { "#222222" } else { "#555555" };
            self.words(x + BESIDE, baseline, SMALL, ink, "start", line);
            baseline += if index == 0 { LEADING + 2 } else { LEADING };
        }
    }

    fn line(
        &mut self,
        from: (usize, usize),
        to: (usize, usize),
        color: &str,
        width: usize,
        more: &str,
    ) {
        let _ = writeln!(
            self.text,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{color}\" stroke-width=\"{width}\"{more}/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn words(&mut self, x: usize, y: usize, size: usize, ink: &str, anchor: &str, words: &str) {
        let _ = writeln!(
            self.text,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{ink}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(words)
        );
    }
}

fn width_of_box(sandbox: &Sandbox) -> usize {
    let lines = lines_of_box(sandbox);
    let lines = lines
        .iter()
        .map(|line| width(line, SMALL))
        .max()
        .unwrap_or(0);
    lines.max(width(&sandbox.name, FONT)) + 2 * PADDING
}

fn lines_of_box(sandbox: &Sandbox) -> Vec<String> {
    let state = (!sandbox.runs).then(|| "not running".to_owned());
    let instead = sandbox.instead.as_ref().map(shown);
    let links = sandbox
        .links
        .iter()
        .map(|link| format!("knows {}", link.shown()));
    let publishes = sandbox.publishes.iter().cloned();
    state
        .into_iter()
        .chain(instead)
        .chain(publishes)
        .chain(links)
        .collect()
}

fn lines_of_member(member: &Member) -> Vec<String> {
    let mut lines = member.addresses.clone();
    match (&member.ifname, lines.first_mut()) {
        (Some(ifname), Some(first)) => *first = format!("{ifname} {first}"),
        (Some(ifname), None) => lines.push(ifname.clone()),
        (None, _) => {}
    }
    if !member.aliases.is_empty() {
        lines.push(format!("also {}", member.aliases.join(", ")));
    }
    lines
}

fn width_of_column(network: &Network) -> usize {
    let prefixes = network.prefixes.iter().flat_map(|prefix| {
        let router = "router ".len() + prefix.gateway.len();
        [width(&prefix.subnet, SMALL), router * SMALL * 6 / 10]
    });
    let members = network.members.iter().flat_map(lines_of_member);
    let members = members.map(|line| width(&line, SMALL) + BESIDE);
    let name = width(&network.name, FONT);
    let widest = prefixes.chain(members).chain([name]).max().unwrap_or(0);
    widest + 2 * PADDING
}

fn height_of_row(picture: &Picture, index: usize, sandbox: &Sandbox) -> usize {
    let members = picture.networks.iter().flat_map(|network| &network.members);
    let members = members.filter(|member| member.sandbox == index);
    let below = members.map(|member| lines_of_member(member).len().saturating_sub(1));
    let beside = 2 * (LEADING * below.max().unwrap_or(0)).max(LEADING) + 6;
    let within = PADDING + FONT + LEADING * lines_of_box(sandbox).len();
    beside.max(within + PADDING / 2)
}

fn shown(instead: &Instead) -> String {
    match instead {
        Instead::Nothing => "loopback only".to_owned(),
        Instead::Host => "the host's network".to_owned(),
        Instead::Of(other) => format!("the network of {other}"),
    }
}

/// Of monospaced text: six tenths of its size for each character.
fn width(text: &str, size: usize) -> usize {
    (text.chars().count() * size * 6).div_ceil(10)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not a character of XML 1.0.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn no_name_becomes_markup() {
        assert_eq!(escaped("<a href='\"&\u{1}"), "&lt;a href=&#39;&quot;&amp; ");
    }
}
