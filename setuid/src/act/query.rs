//! What the caller may do, and has.

use super::{Result, Session};
use crate::kernel::sysctl::{self, Family};
use crate::request::{Grants, Reply, Used};

impl Session<'_> {
    pub(super) fn query(&mut self) -> Result<Reply> {
        let (rights, record) = (self.rights, &self.store.record);
        let quota = rights.quota;
        let used = |most, now| Used { most, now };
        Ok(Reply::Grants(Grants {
            verbs: rights.verbs.iter().copied().collect(),
            bridges: rights.bridges.keys().cloned().collect(),
            subnets: rights.subnets.clone(),
            ports: rights.ports.clone(),
            interfaces: used(quota.interfaces, record.links_of(self.uid)),
            bound: used(quota.ports, record.bound_by(self.uid)),
            published: used(quota.published, record.published_by(self.uid)),
            requests_per_minute: quota.requests_per_minute,
            forwards4: sysctl::forwards(Family::V4),
            forwards6: sysctl::forwards(Family::V6),
        }))
    }
}
