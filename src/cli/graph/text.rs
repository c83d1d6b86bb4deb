//! A tree for the terminal: the world, the networks that reach it, their members.

use super::{Instead, Network, Picture, Sandbox};
use std::fmt::Write as _;

/// A line with others below it.
struct Branch {
    label: String,
    below: Vec<Branch>,
}

impl Branch {
    fn new(label: impl Into<String>, below: Vec<Branch>) -> Self {
        let label = label.into();
        Self { label, below }
    }

    fn draw(&self, text: &mut String, indent: &str) {
        for (index, branch) in self.below.iter().enumerate() {
            let last = index + 1 == self.below.len();
            let (corner, line) = if last {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            let _ = writeln!(text, "{indent}{corner}{}", branch.label);
            branch.draw(text, &format!("{indent}{line}"));
        }
    }
}

pub(super) fn draw(picture: &Picture) -> String {
    let networks = |out: bool| -> Vec<Branch> {
        let networks = picture.networks.iter();
        let networks = networks.filter(|network| network.way_out.is_some() == out);
        networks
            .map(|network| of_network(picture, network))
            .collect()
    };
    let without: Vec<Branch> = picture.boxes.iter().filter_map(without_network).collect();
    let roots = [
        Branch::new("world", networks(true)),
        Branch::new("no way out", networks(false)),
        Branch::new("no network of its own", without),
    ];
    let mut text = String::new();
    for root in roots.iter().filter(|root| !root.below.is_empty()) {
        let _ = writeln!(text, "{}", root.label);
        root.draw(&mut text, "");
    }
    text
}

fn of_network(picture: &Picture, network: &Network) -> Branch {
    let mut label = network.name.clone();
    for (index, prefix) in network.prefixes.iter().enumerate() {
        let sign = if index == 0 { ":" } else { "," };
        let _ = write!(
            label,
            "{sign} {} (router {})",
            prefix.subnet, prefix.gateway
        );
    }
    if let Some(way_out) = network.way_out.filter(|way_out| *way_out != "relay") {
        let _ = write!(label, ", out by {way_out}");
    }
    let members = network.members.iter().map(|member| {
        let mut label = format!("{}:", picture.sandbox(member));
        match &member.ifname {
            Some(ifname) => {
                let _ = write!(label, " {ifname} {}", member.addresses.join(", "));
            }
            None => label.push_str(" not running"),
        }
        if !member.aliases.is_empty() {
            let _ = write!(label, ", also called {}", member.aliases.join(", "));
        }
        let sandbox = picture.boxes.get(member.sandbox);
        Branch::new(label, sandbox.map(belongings).unwrap_or_default())
    });
    Branch::new(label, members.collect())
}

fn belongings(sandbox: &Sandbox) -> Vec<Branch> {
    let publishes = sandbox.publishes.iter();
    let publishes = publishes.map(|publish| format!("publishes {publish}"));
    let links = sandbox.links.iter();
    let links = links.map(|link| format!("knows {}", link.shown()));
    publishes
        .chain(links)
        .map(|label| Branch::new(label, Vec::new()))
        .collect()
}

fn without_network(sandbox: &Sandbox) -> Option<Branch> {
    let instead = match sandbox.instead.as_ref()? {
        Instead::Nothing => "loopback only".to_owned(),
        Instead::Host => "the host's".to_owned(),
        Instead::Of(other) => format!("that of {other}"),
    };
    let state = if sandbox.runs { "" } else { ", not running" };
    let label = format!("{}: {instead}{state}", sandbox.name);
    Some(Branch::new(label, Vec::new()))
}
