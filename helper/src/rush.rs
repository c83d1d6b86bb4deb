//! Follows what the relay says of rushes (`router::rush` says what they are).
//!
//! Invariant: a rush that is over, or whose relay has ended, leaves no thread at a port. What cannot be done is
//! said once in the log: datagrams pass as they did before.

use crate::relay::Rush;
use crate::request::Failure;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Rushes under way, by address, each at a port.
#[derive(Debug)]
pub struct Followed<P> {
    under_way: BTreeMap<IpAddr, P>,
    /// A failure was said.
    complained: bool,
}

impl<P> Default for Followed<P> {
    fn default() -> Self {
        Self {
            under_way: BTreeMap::new(),
            complained: false,
        }
    }
}

impl<P: Clone + PartialEq> Followed<P> {
    /// Does what the words ask for. `port_of`: the port that has an address. `switch`: begins a rush at a port,
    /// or ends it.
    pub fn follow(
        &mut self,
        said: Vec<Rush>,
        port_of: impl Fn(IpAddr) -> Option<P>,
        switch: impl Fn(&P, bool) -> Result<(), Failure>,
    ) {
        for Rush { address, begins } in said {
            let port = port_of(address);
            let done = match (begins, self.under_way.remove(&address)) {
                (true, _) => port.map_or(Ok(()), |port| {
                    let begun = switch(&port, true);
                    self.under_way.insert(address, port);
                    begun
                }),
                // The endpoint may have gone, another one have its address, or another address of its rush still.
                (false, Some(before))
                    if port.as_ref() == Some(&before)
                        && !self.under_way.values().any(|other| *other == before) =>
                {
                    switch(&before, false)
                }
                (false, _) => Ok(()),
            };
            if let Err(failure) = done
                && !std::mem::replace(&mut self.complained, true)
            {
                eprintln!("helper: datagrams of a busy container are not put together: {failure}");
            }
        }
    }

    /// Words that end them all, when their relay has ended.
    pub fn over(&self) -> Vec<Rush> {
        let addresses = self.under_way.keys().copied();
        let over = |address| Rush {
            address,
            begins: false,
        };
        addresses.map(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Addresses of 10.0.N.0/24 are those of port N, below 9.
    fn port_of(address: IpAddr) -> Option<u8> {
        let IpAddr::V4(address) = address else {
            return Some(1);
        };
        let [_, _, port, _] = address.octets();
        (port < 9).then_some(port)
    }

    /// What is switched, when the relay says these words.
    fn switched(followed: &mut Followed<u8>, words: &[&str]) -> Vec<(u8, bool)> {
        let done = RefCell::new(Vec::new());
        let said = words.iter().filter_map(|word| Rush::parse(word)).collect();
        followed.follow(said, port_of, |port, begins| {
            done.borrow_mut().push((*port, begins));
            Ok(())
        });
        done.into_inner()
    }

    #[test]
    fn a_port_is_in_a_rush_while_one_of_its_addresses_is() {
        let mut followed = Followed::default();
        let said = switched(&mut followed, &["rush 10.0.1.2", "rush fd00::2"]);
        assert_eq!(said, [(1, true), (1, true)]);
        assert!(switched(&mut followed, &["rush over fd00::2"]).is_empty());
        let said = switched(&mut followed, &["rush over 10.0.1.2"]);
        assert_eq!(said, [(1, false)]);
        assert!(switched(&mut followed, &["rush over 10.0.1.2"]).is_empty());
    }

    #[test]
    fn nobodys_address_is_in_no_rush() {
        let mut followed = Followed::default();
        let words = ["rush 10.0.9.2", "rush over 10.0.9.2", "rush over 10.0.1.2"];
        assert!(switched(&mut followed, &words).is_empty());
    }

    #[test]
    fn all_end_with_their_relay() {
        let mut followed = Followed::default();
        switched(&mut followed, &["rush 10.0.1.2", "rush 10.0.2.2"]);
        let over = followed.over();
        let done = RefCell::new(Vec::new());
        followed.follow(over, port_of, |port, begins| {
            done.borrow_mut().push((*port, begins));
            Ok(())
        });
        assert_eq!(done.into_inner(), [(1, false), (2, false)]);
        assert!(followed.over().is_empty());
    }
}
