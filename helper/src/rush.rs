//! Follows what the relay says of rushes (`router::rush` says what they are).
//!
//! Invariant: a rush that is over, or whose relay has ended, leaves no thread at a port. What cannot be done is
//! said once in the log: datagrams pass as they did before.

use crate::names::IfName;
use crate::privilege::{Class, with};
use crate::relay::Rush;
use crate::request::Failure;
use crate::router::{Inside, Router, queue};
use crate::sandbox::Sandboxes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Rushes under way.
#[derive(Debug, Default)]
pub struct Followed {
    under_way: BTreeMap<IpAddr, Port>,
    /// A failure was said.
    complained: bool,
}

#[derive(Debug, Clone)]
struct Port {
    name: IfName,
    inside: Inside,
}

impl Followed {
    /// Does what the words ask for.
    pub fn follow(&mut self, said: Vec<Rush>, router: &Router, sandboxes: &Sandboxes) {
        for Rush { address, begins } in said {
            let done = if begins {
                self.begin(address, router, sandboxes)
            } else {
                self.end(address, router, sandboxes)
            };
            self.note(done);
        }
    }

    /// Ends all: nobody would say when they are over.
    pub fn end_all(&mut self, router: &Router, sandboxes: &Sandboxes) {
        let addresses: Vec<IpAddr> = self.under_way.keys().copied().collect();
        for address in addresses {
            let done = self.end(address, router, sandboxes);
            self.note(done);
        }
    }

    fn begin(
        &mut self,
        address: IpAddr,
        router: &Router,
        sandboxes: &Sandboxes,
    ) -> Result<(), Failure> {
        let Some((name, inside)) = router.rushing(address) else {
            return Ok(());
        };
        with(Class::Visit, || {
            router.begin_rush(&name)?;
            change_queue(&inside, sandboxes, true)
        })?;
        self.under_way.insert(address, Port { name, inside });
        Ok(())
    }

    fn end(
        &mut self,
        address: IpAddr,
        router: &Router,
        sandboxes: &Sandboxes,
    ) -> Result<(), Failure> {
        let Some(port) = self.under_way.remove(&address) else {
            return Ok(());
        };
        let still = |other: &Port| other.name == port.name;
        // The endpoint may have gone, or another one have its address.
        let present = router
            .rushing(address)
            .is_some_and(|(name, _)| name == port.name);
        if self.under_way.values().any(still) || !present {
            return Ok(());
        }
        with(Class::Visit, || {
            let ended = router.end_rush(&port.name);
            ended.and(change_queue(&port.inside, sandboxes, false))
        })
    }

    fn note(&mut self, done: Result<(), Failure>) {
        if let Err(failure) = done
            && !std::mem::replace(&mut self.complained, true)
        {
            eprintln!("helper: datagrams of a busy container are not put together: {failure}");
        }
    }
}

fn change_queue(inside: &Inside, sandboxes: &Sandboxes, wanted: bool) -> Result<(), Failure> {
    let netns = sandboxes.netns(&inside.sandbox)?;
    queue(inside, netns.as_fd(), wanted)
}
