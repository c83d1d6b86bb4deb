//! The variables that a CNI runtime sets (specification, section 2).

use super::refusal::{Code, Refusal};
use std::collections::BTreeMap;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// From `CNI_COMMAND`.
    pub(super) fn of(text: Option<&str>) -> Result<Self, Refusal> {
        match text {
            Some("ADD") => Ok(Self::Add),
            Some("DEL") => Ok(Self::Del),
            Some("CHECK") => Ok(Self::Check),
            Some("GC") => Ok(Self::Gc),
            Some("STATUS") => Ok(Self::Status),
            Some("VERSION") => Ok(Self::Version),
            Some(other) => Err(invalid(format!("CNI_COMMAND '{other}' is not known"))),
            None => Err(invalid(
                "CNI_COMMAND is not set: mossnet-cni is a plugin, which container runtimes call",
            )),
        }
    }
}

/// One attachment of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    /// `CNI_CONTAINERID`.
    pub(super) container: String,
    /// `CNI_IFNAME`.
    pub(super) ifname: String,
    /// `CNI_NETNS`.
    pub(super) netns: Option<String>,
    /// `CNI_ARGS`.
    pub(super) args: BTreeMap<String, String>,
}

/// What stands before the container's id in the name of its sandbox.
pub(super) const PREFIX: &str = "cni-";
/// What is left of a sandbox's name.
const MAX_CONTAINER: usize = 124;
/// IFNAMSIZ without the final zero.
const MAX_IFNAME: usize = 15;

impl Attachment {
    /// From the environment; `netns`: the network namespace must be there.
    pub(super) fn of(
        variable: impl Fn(&str) -> Option<String>,
        needs_netns: bool,
    ) -> Result<Self, Refusal> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut needed = vec!["CNI_CONTAINERID", "CNI_IFNAME"];
        needed.extend(needs_netns.then_some("CNI_NETNS"));
        let missing: Vec<&str> = needed
            .into_iter()
            .filter(|name| variable(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(invalid(format!("not set: {}", missing.join(", "))));
        }
        let container = variable("CNI_CONTAINERID").unwrap_or_default();
        let ifname = variable("CNI_IFNAME").unwrap_or_default();
        if !is_container(&container) {
            return Err(invalid(format!(
                "CNI_CONTAINERID '{}' is not 1 to {MAX_CONTAINER} letters, digits, '_', '.' and '-', a letter or digit first",
                container.escape_debug()
            )));
        }
        if !is_ifname(&ifname) {
            return Err(invalid(format!(
                "CNI_IFNAME '{}' is not a name for an interface",
                ifname.escape_debug()
            )));
        }
        Ok(Self {
            container,
            ifname,
            netns: variable("CNI_NETNS"),
            args: arguments(&variable("CNI_ARGS").unwrap_or_default())?,
        })
    }

    /// The name of the container's sandbox.
    pub(super) fn sandbox(&self) -> String {
        format!("{PREFIX}{}", self.container)
    }
}

fn is_container(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && id.len() <= MAX_CONTAINER && id.bytes().all(legal)
}

fn is_ifname(name: &str) -> bool {
    let illegal = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    !matches!(name, "." | ".." | "lo") && name.len() <= MAX_IFNAME && !name.contains(illegal)
}

/// `FOO=BAR;ABC=123`. Names that are not ours are ignored where the caller says so.
fn arguments(text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut found = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            let shown = pair.escape_debug();
            invalid(format!("CNI_ARGS: '{shown}' is not NAME=VALUE"))
        })?;
        found.insert(name.to_owned(), value.to_owned());
    }
    let ignore = matches!(
        found.get("IgnoreUnknown").map(String::as_str),
        Some("1" | "true" | "True" | "TRUE" | "t" | "T")
    );
    let ours =
        |name: &str| matches!(name, "IP" | "MAC" | "IgnoreUnknown") || name.starts_with("K8S_POD_");
    match found.keys().find(|name| !ours(name)) {
        Some(name) if !ignore => Err(invalid(format!(
            "CNI_ARGS: '{}' is not known",
            name.escape_debug()
        ))
        .with_details("IgnoreUnknown=1 lets it pass")),
        Some(_) | None => Ok(found),
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidEnvironment, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Attachment, Refusal> {
        let find = |name: &str| {
            let mut pairs = pairs.iter();
            let found = pairs.find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Attachment::of(find, true)
    }

    #[test]
    fn what_is_missing_is_named() {
        let refusal = of(&[("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")]).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidEnvironment);
        assert_eq!(refusal.message, "not set: CNI_CONTAINERID, CNI_NETNS");
    }

    #[test]
    fn names_are_checked() {
        let with = |container: &str, ifname: &str, args: &str| {
            of(&[
                ("CNI_CONTAINERID", container),
                ("CNI_IFNAME", ifname),
                ("CNI_NETNS", "/x"),
                ("CNI_ARGS", args),
            ])
        };
        assert_eq!(
            with("a_b.c-1", "net1", "").unwrap().sandbox(),
            "cni-a_b.c-1"
        );
        let long = "x".repeat(125);
        for container in ["-a", "a/b", &long] {
            assert!(with(container, "eth0", "").is_err(), "{container}");
        }
        for ifname in ["a/b", "a:b", "a b", ".", "..", "lo", "sixteen-letters-"] {
            assert!(with("a", ifname, "").is_err(), "{ifname}");
        }
        assert!(with("a", "eth0", "X=1").is_err());
        assert!(with("a", "eth0", "nothing").is_err());
        let args = with("a", "eth0", "IgnoreUnknown=1;X=1;K8S_POD_NAME=web;")
            .unwrap()
            .args;
        assert_eq!(args["K8S_POD_NAME"], "web");
    }

    #[test]
    fn commands_are_those_of_the_specification() {
        assert_eq!(Command::of(Some("GC")), Ok(Command::Gc));
        for bad in [None, Some("add"), Some("")] {
            assert_eq!(Command::of(bad).unwrap_err().code, Code::InvalidEnvironment);
        }
    }
}
