//! `release`: a link that was made for the caller goes. `gc`: what dead owners left goes, and what the
//! record has is made true.

use super::{Result, Session};
use crate::act::Refusal;
use crate::record::LinkKind;
use crate::request::{Made, Reply};

impl Session<'_> {
    /// By owner, index and name; never by name alone.
    pub(super) fn release(&mut self, made: &Made) -> Result<Reply> {
        let link = self.store.record.link_of(self.uid, made);
        let id = link.ok_or(Refusal::NotMade)?.id;
        self.discard(id)?;
        Ok(Reply::Done)
    }

    /// After `reconcile`: rules and routes as the record has them.
    pub(super) fn gc(&mut self) -> Result<Reply> {
        for kind in [LinkKind::Bridge, LinkKind::Uplink] {
            self.apply_rules(kind)?;
        }
        let links = self.store.record.links.clone();
        for link in links.iter().filter(|link| link.kind == LinkKind::Uplink) {
            match self.repair_routes(link) {
                // It went meanwhile, with its namespace.
                Err(_) if self.find(link)?.is_none() => {}
                other => other?,
            }
        }
        Ok(Reply::Done)
    }
}
