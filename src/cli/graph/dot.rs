//! For graphviz: `mossnet network graph --format dot | dot -Tsvg`.
//!
//! Source: the DOT language (graphviz.org/doc/info/lang.html).

use super::{Instead, Picture};
use std::fmt::Write as _;

pub(super) fn draw(picture: &Picture) -> String {
    let mut text = String::from(
        "graph mossnet {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=11];\n  \
         edge [fontname=\"sans-serif\", fontsize=9];\n",
    );
    if picture
        .networks
        .iter()
        .any(|network| network.way_out.is_some())
    {
        text.push_str("  world [shape=ellipse, label=\"world\"];\n");
    }
    for (index, network) in picture.networks.iter().enumerate() {
        let prefixes = network.prefixes.iter().map(|prefix| prefix.subnet.as_str());
        let lines: Vec<&str> = std::iter::once(network.name.as_str())
            .chain(prefixes)
            .collect();
        let style = if network.way_out.is_some() {
            "rounded"
        } else {
            "\"rounded,dashed\""
        };
        let label = quoted(&lines);
        let _ = writeln!(
            text,
            "  n{index} [shape=box, style={style}, label={label}];"
        );
    }
    for (index, sandbox) in picture.boxes.iter().enumerate() {
        let color = if sandbox.runs { "black" } else { "gray" };
        let publishes = sandbox.publishes.iter().map(String::as_str);
        let lines: Vec<&str> = std::iter::once(sandbox.name.as_str())
            .chain(publishes)
            .collect();
        let label = quoted(&lines);
        let _ = writeln!(
            text,
            "  s{index} [shape=box3d, color={color}, label={label}];"
        );
    }
    if picture
        .boxes
        .iter()
        .any(|b| matches!(b.instead, Some(Instead::Host)))
    {
        text.push_str("  host [shape=ellipse, label=\"host\"];\n");
    }
    edges(picture, &mut text);
    text.push_str("}\n");
    text
}

fn edges(picture: &Picture, text: &mut String) {
    for (index, network) in picture.networks.iter().enumerate() {
        if let Some(way_out) = network.way_out {
            let label = quoted(&[way_out]);
            let _ = writeln!(text, "  world -- n{index} [label={label}];");
        }
        for member in &network.members {
            let mut lines: Vec<&str> = member.ifname.iter().map(String::as_str).collect();
            lines.extend(member.addresses.iter().map(String::as_str));
            let style = if member.ifname.is_some() {
                ""
            } else {
                ", style=dotted"
            };
            let (sandbox, label) = (member.sandbox, quoted(&lines));
            let _ = writeln!(text, "  n{index} -- s{sandbox} [label={label}{style}];");
        }
    }
    for (index, sandbox) in picture.boxes.iter().enumerate() {
        match &sandbox.instead {
            Some(Instead::Host) => {
                let _ = writeln!(text, "  host -- s{index};");
            }
            Some(Instead::Of(other)) => {
                if let Some(other) = picture.index_of(other) {
                    let _ = writeln!(text, "  s{other} -- s{index} [label=\"same network\"];");
                }
            }
            Some(Instead::Nothing) | None => {}
        }
        for link in &sandbox.links {
            if let Some(other) = picture.index_of(&link.name) {
                let label = quoted(&[link.alias.as_deref().unwrap_or(&link.name)]);
                let _ = writeln!(
                    text,
                    "  s{index} -- s{other} [dir=forward, style=dashed, constraint=false, label={label}];"
                );
            }
        }
    }
}

/// Lines in quotes, `\n` between them.
fn quoted(lines: &[&str]) -> String {
    let escaped = lines.iter().map(|line| {
        let line = line.replace('\\', "\\\\").replace('"', "\\\"");
        line.replace(char::is_control, " ")
    });
    let lines: Vec<_> = escaped.collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn no_name_ends_its_quotes() {
        assert_eq!(quoted(&["a\"b", "c\\", "d\n"]), r#""a\"b\nc\\\nd ""#);
    }
}
