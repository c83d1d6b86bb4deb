//! For Markdown, between ```` ```mermaid ```` and ```` ``` ````.
//!
//! Source: mermaid's flowcharts (mermaid.js.org/syntax/flowchart.html).

use super::{Instead, Picture};
use std::fmt::Write as _;

pub(super) fn draw(picture: &Picture) -> String {
    let mut text = String::from("graph LR\n");
    if picture
        .networks
        .iter()
        .any(|network| network.way_out.is_some())
    {
        text.push_str("  world((\"world\"))\n");
    }
    for (index, network) in picture.networks.iter().enumerate() {
        let prefixes = network.prefixes.iter().map(|prefix| prefix.subnet.as_str());
        let lines: Vec<&str> = std::iter::once(network.name.as_str())
            .chain(prefixes)
            .collect();
        let _ = writeln!(text, "  n{index}[{}]", quoted(&lines));
    }
    for (index, sandbox) in picture.boxes.iter().enumerate() {
        let state = (!sandbox.runs).then_some("not running");
        let lines: Vec<&str> = std::iter::once(sandbox.name.as_str())
            .chain(state)
            .chain(sandbox.publishes.iter().map(String::as_str))
            .collect();
        let _ = writeln!(text, "  s{index}([{}])", quoted(&lines));
    }
    if picture
        .boxes
        .iter()
        .any(|b| matches!(b.instead, Some(Instead::Host)))
    {
        text.push_str("  host((\"host\"))\n");
    }
    edges(picture, &mut text);
    text
}

fn edges(picture: &Picture, text: &mut String) {
    for (index, network) in picture.networks.iter().enumerate() {
        if let Some(way_out) = network.way_out {
            let _ = writeln!(text, "  world ---|{}| n{index}", quoted(&[way_out]));
        }
        for member in &network.members {
            let sandbox = member.sandbox;
            let Some(ifname) = &member.ifname else {
                let _ = writeln!(text, "  n{index} -.- s{sandbox}");
                continue;
            };
            let addresses = member.addresses.iter().map(String::as_str);
            let lines: Vec<&str> = std::iter::once(ifname.as_str()).chain(addresses).collect();
            let _ = writeln!(text, "  n{index} ---|{}| s{sandbox}", quoted(&lines));
        }
    }
    for (index, sandbox) in picture.boxes.iter().enumerate() {
        match &sandbox.instead {
            Some(Instead::Host) => {
                let _ = writeln!(text, "  host --- s{index}");
            }
            Some(Instead::Of(other)) => {
                if let Some(other) = picture.index_of(other) {
                    let _ = writeln!(text, "  s{other} ---|\"same network\"| s{index}");
                }
            }
            Some(Instead::Nothing) | None => {}
        }
        for link in &sandbox.links {
            if let Some(other) = picture.index_of(&link.name) {
                let label = quoted(&[link.alias.as_deref().unwrap_or(&link.name)]);
                let _ = writeln!(text, "  s{index} -.->|{label}| s{other}");
            }
        }
    }
}

/// Lines in quotes; what could be markup goes by its number.
fn quoted(lines: &[&str]) -> String {
    let mut text = String::from("\"");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push_str("<br>");
        }
        for c in line.chars() {
            match c {
                '"' | '#' | '<' | '>' | '&' | ';' | '`' | '|' => {
                    let _ = write!(text, "#{};", u32::from(c));
                }
                c if c.is_control() => text.push(' '),
                c => text.push(c),
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn no_name_becomes_markup() {
        assert_eq!(quoted(&["a\"b", "<i>#"]), "\"a#34;b<br>#60;i#62;#35;\"");
    }
}
