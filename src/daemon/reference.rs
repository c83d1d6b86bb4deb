//! What a user calls a sandbox or a network, resolved to the one that is meant.
//!
//! In Docker's order: the whole id, then the name, then the beginning of an id. Invariants: a name is
//! never taken for the beginning of an id while something bears it; a beginning counts from
//! [`MIN_BEGINNING`] digits on, so that a short word such as `a` is never somebody's id by chance (of
//! ids that are random, one digit begins one in sixteen).
//!
//! Whoever has an id already asks by it ([`Model::still`]), never by its text: that could be another's
//! name.

use super::model::Model;
use super::refusal::{conflict, unknown};
use crate::api::control::{Answer, Refusal};
use crate::network::model::DEFAULT_NETWORK;
use crate::network::{Network, Sandbox};
use mossnet_helper::SandboxId;

/// Digits of an id that count as a reference to it.
const MIN_BEGINNING: usize = 4;

/// What a text begins, of some ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begins<T> {
    /// None.
    Nothing,
    /// Exactly this one's.
    One(T),
    /// More than one.
    Several,
    /// One at least, but the text is too short to count.
    TooShort,
}

impl<T> Begins<T> {
    /// Looks through `all`, each by its id.
    pub(super) fn of<'a>(text: &str, all: impl Iterator<Item = (&'a SandboxId, T)>) -> Self {
        if text.is_empty() {
            return Self::Nothing;
        }
        let mut matching = all.filter(|(id, _)| id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (None, _) => Self::Nothing,
            (Some(_), _) if text.len() < MIN_BEGINNING => Self::TooShort,
            (Some((_, one)), None) => Self::One(one),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// Both of sandboxes and of networks.
fn ambiguous(text: &str, kind: &str) -> Refusal {
    conflict(format!("'{text}' begins the ids of several {kind}"))
        .with_hint("give more of the id, or the name")
}

impl Model {
    /// By id, name, or an unambiguous beginning of an id.
    pub(super) fn find(&self, text: &str) -> Answer<&Sandbox> {
        let whole = SandboxId::try_from(text.to_owned());
        let by_id = whole.ok().and_then(|id| self.sandbox(&id));
        if let Some(sandbox) = by_id.or_else(|| self.named(text)) {
            return Ok(sandbox);
        }
        let none = || unknown(format!("no such sandbox: {text}"));
        match Begins::of(text, self.sandboxes().map(|s| (&s.id, s))) {
            Begins::One(sandbox) => Ok(sandbox),
            Begins::Several => Err(ambiguous(text, "sandboxes")),
            Begins::TooShort => Err(none().with_hint(too_short("mossnet ps -a"))),
            Begins::Nothing => Err(none().with_hint("`mossnet ps -a` lists them")),
        }
    }

    /// The one that was found by `text` before, unless it was removed since.
    pub(super) fn still(&self, id: &SandboxId, text: &str) -> Answer<&Sandbox> {
        self.sandbox(id).ok_or_else(|| removed_meanwhile(text))
    }

    /// By id, name, or an unambiguous beginning of an id.
    pub(super) fn find_network(&self, text: &str) -> Answer<&Network> {
        let text = if text == "default" {
            DEFAULT_NETWORK
        } else {
            text
        };
        let mut all = self.networks();
        let by_id = all.find(|network| network.id.as_str() == text);
        if let Some(network) = by_id.or_else(|| self.network(text)) {
            return Ok(network);
        }
        match Begins::of(text, self.networks().map(|n| (&n.id, n))) {
            Begins::One(network) => Ok(network),
            Begins::Several => Err(ambiguous(text, "networks")),
            Begins::TooShort => {
                let none = unknown(format!("no such network: {text}"));
                Err(none.with_hint(too_short("mossnet network ls")))
            }
            Begins::Nothing => Err(self.no_such_network(text)),
        }
    }

    /// For whoever names a network that is not there.
    pub(super) fn no_such_network(&self, text: &str) -> Refusal {
        let mut known = vec![DEFAULT_NETWORK, "host", "none"];
        let others = self.networks().filter(|network| !network.is_default());
        known.extend(others.map(|network| network.name.as_str()));
        unknown(format!("no such network: {text}"))
            .with_hint(format!("there are: {}", known.join(", ")))
    }
}

fn too_short(listing: &str) -> String {
    format!("an id counts from its first {MIN_BEGINNING} digits on; `{listing}` lists them")
}

/// It was there when the request came.
pub(super) fn removed_meanwhile(sandbox: &str) -> Refusal {
    unknown(format!("sandbox '{sandbox}' was removed meanwhile"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::model::tests::model;
    use crate::network::model::samples;

    /// An id that begins so, zeros after.
    fn id(beginning: &str) -> SandboxId {
        format!("{beginning:0<64}").try_into().unwrap()
    }

    #[test]
    fn sandboxes_are_found_by_id_name_and_the_beginning_of_the_id() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let whole = id("abc1");
        for (name, beginning) in [
            ("web", "2121"),
            ("22222222", "2323"),
            ("db", "222222222"),
            ("twin", "2222333"),
            ("beef", "7777"),
            ("plain", "beef"),
            ("owner", "abc1"),
            (whole.as_str(), "dddd"),
        ] {
            let mut sandbox = samples::sandbox(name, 0, &network, "10.89.3.2/24");
            sandbox.id = id(beginning);
            model.put_sandbox(sandbox).unwrap();
        }
        let found = |text: &str| model.find(text).map(|s| s.name.to_string());
        for (text, name) in [
            ("web", "web"),
            ("2121", "web"),
            ("22222222", "22222222"),
            ("222222222", "db"),
            ("22223", "twin"),
            // Names first.
            ("beef", "beef"),
            ("beef0", "plain"),
            // A name may look like another's id: the id is whose it is.
            (whole.as_str(), "owner"),
        ] {
            assert_eq!(found(text).unwrap(), name, "{text}");
        }
        let several = found("2222").unwrap_err();
        assert_eq!(several.status, 409);
        assert_eq!(
            several.body.message,
            "'2222' begins the ids of several sandboxes"
        );
        for none in ["", "nobody", "9999", "BEEF0", "2", "212", "a", "bee"] {
            let refusal = found(none).unwrap_err();
            assert_eq!(refusal.status, 404, "{none}");
            assert_eq!(refusal.body.message, format!("no such sandbox: {none}"));
            let short = ["2", "212", "a", "bee"].contains(&none);
            let hint = refusal.body.hint.unwrap();
            assert_eq!(hint.contains("first 4 digits"), short, "{none}: {hint}");
        }
        assert!(model.check_name_free(&"web".parse().unwrap()).is_err());
    }

    #[test]
    fn one_that_was_found_is_looked_up_by_its_id_alone() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let gone = id("abc1");
        let namesake = samples::sandbox(gone.as_str(), 2, &network, "10.89.3.2/24");
        model.put_sandbox(namesake).unwrap();
        let refusal = model.still(&gone, "web").unwrap_err();
        assert_eq!(refusal.status, 404);
        assert_eq!(refusal.body.message, "sandbox 'web' was removed meanwhile");
    }

    #[test]
    fn networks_are_found_by_id_name_and_the_beginning_of_the_id() {
        let (_directory, mut model) = model();
        for (name, beginning) in [
            ("mynet", "2121"),
            ("other", "2222"),
            ("third", "21213"),
            ("bridge", "3131"),
            ("3131", "4444"),
        ] {
            let mut network = samples::network(name, 0, "10.89.3.0/24");
            network.id = id(beginning);
            model.put_network(network).unwrap();
        }
        let found = |text: &str| model.find_network(text).map(|n| n.name.to_string());
        for (text, name) in [
            ("mynet", "mynet"),
            ("default", "bridge"),
            ("2222", "other"),
            ("21213", "third"),
            ("3131", "3131"),
            ("31310", "bridge"),
            (id("4444").as_str(), "3131"),
        ] {
            assert_eq!(found(text).unwrap(), name, "{text}");
        }
        let several = found("2121").unwrap_err();
        assert_eq!(several.status, 409);
        assert_eq!(
            several.body.message,
            "'2121' begins the ids of several networks"
        );
        let refusal = found("nonet").unwrap_err();
        assert_eq!(refusal.body.message, "no such network: nonet");
        let hint = refusal.body.hint.unwrap();
        assert_eq!(
            hint,
            "there are: bridge, host, none, 3131, mynet, other, third"
        );
        assert_eq!(found("").unwrap_err().status, 404);
        let short = found("222").unwrap_err();
        assert_eq!(short.status, 404);
        let hint = short.body.hint.unwrap();
        assert!(hint.contains("first 4 digits"), "{hint}");
    }
}
