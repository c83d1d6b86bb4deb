//! Telling the relay where endpoints are: the whole list, whenever it has changed, to each relay before
//! its first snapshot.
//!
//! Nobody waits for it: the relay does without until it knows. What changes while a message is under way
//! goes in the next list. Invariant: nothing fails for want of a list; one that cannot be sent, or is
//! refused, is not sent again.

use super::parcel::Parcel;
use super::{Phase, Relay};
use crate::framed::EndpointPlace;
use crate::request::Failure;
use crate::sealed::Sealed;
use std::os::fd::AsFd;

impl Relay {
    /// Whether a new list would be sent, or kept for a relay that starts. While it is busy, later is
    /// better: then it is one list that it gets.
    pub fn takes_endpoints(&self) -> bool {
        let phase = self.child.as_ref().map(|child| child.phase);
        matches!(phase, Some(Phase::Starting | Phase::Serving))
    }

    /// Where all endpoints are now. Nothing is sent where that is as before.
    pub fn set_endpoints(&mut self, list: Vec<EndpointPlace>) {
        if list == self.endpoints {
            return;
        }
        self.endpoints = list;
        let Some(child) = &mut self.child else { return };
        child.lacks_endpoints = true;
        if child.phase == Phase::Serving {
            self.send_endpoints();
        }
    }

    /// Send the list, if the relay has another one; false: nothing was sent.
    pub(super) fn send_endpoints(&mut self) -> bool {
        let Some(child) = &mut self.child else {
            return false;
        };
        if !std::mem::take(&mut child.lacks_endpoints) {
            return false;
        }
        let parcel = seal(&self.endpoints).map(Parcel::Endpoints);
        let sent = parcel.and_then(|parcel| {
            self.held.send(child.control.as_fd(), &parcel)?;
            child.sent(parcel);
            Ok(())
        });
        if let Err(failure) = &sent {
            eprintln!("helper: {failure}");
        }
        sent.is_ok()
    }
}

fn seal(list: &[EndpointPlace]) -> Result<Sealed, Failure> {
    let json = serde_json::to_vec(list).map_err(std::io::Error::from);
    json.and_then(|json| Sealed::of(&json))
        .map_err(|e| Failure::kernel("write down where endpoints are", e))
}
