//! The `/etc` files of a sandbox, and how they follow its networks, its links and the host.
//!
//! Invariants: a file is written in place, for it is mounted where the sandbox reads it; two changes
//! of one file are written in the order in which they were rendered.

use super::Daemon;
use super::files::{self, Etc};
use super::model::Model;
use crate::api::control::{Answer, Refusal};
use crate::network::resolv::{Hosts, ResolvConf};
use crate::network::routes::name_server;
use crate::network::{NetworkModeRecord, Sandbox, SandboxName};
use mossnet_helper::SandboxId;
use std::net::IpAddr;
use std::path::PathBuf;
use tracing::warn;

impl Daemon {
    /// Where the files laid over its `/etc` are: its own directory, or that of the sandbox whose
    /// network it shares.
    pub(super) fn etc_dir(&self, sandbox: &Sandbox) -> PathBuf {
        match &sandbox.mode {
            NetworkModeRecord::Container { id, .. } => self.0.paths.sandbox_dir(id),
            NetworkModeRecord::Network(_) | NetworkModeRecord::None | NetworkModeRecord::Host => {
                self.0.paths.sandbox_dir(&sandbox.id)
            }
        }
    }

    /// Makes its directory, and the files in it where they are its own.
    pub(super) async fn make_etc(&self, sandbox: &Sandbox) -> Answer<()> {
        let directory = self.0.paths.sandbox_dir(&sandbox.id);
        if let NetworkModeRecord::Container { .. } = sandbox.mode {
            return Ok(files::make_directory(&directory)?);
        }
        let _written_in_order = self.0.etc.lock().await;
        let etc = {
            let model = self.0.model.lock().await;
            self.render(&model, sandbox)?
        };
        Ok(files::write_etc(&directory, &etc)?)
    }

    /// Writes the files of these sandboxes again, where they say something else than they should.
    pub(super) async fn renew_etc(&self, ids: impl IntoIterator<Item = SandboxId>) {
        for id in ids {
            let _written_in_order = self.0.etc.lock().await;
            let etc = {
                let model = self.0.model.lock().await;
                let Some(sandbox) = model.sandbox(&id).filter(|s| s.is_live()) else {
                    continue;
                };
                if let NetworkModeRecord::Container { .. } = sandbox.mode {
                    continue;
                }
                self.render(&model, sandbox)
            };
            let directory = self.0.paths.sandbox_dir(&id);
            let written = etc.and_then(|etc| {
                // Not made yet, or no longer there: whoever makes it writes it.
                let there = directory.is_dir();
                let written = there.then(|| files::write_etc(&directory, &etc));
                written.transpose().map_err(Refusal::from)
            });
            if let Err(refusal) = written {
                warn!(sandbox.id = id.short(), error = %refusal, "hosts and resolv.conf not written");
            }
        }
    }

    /// The same for everybody.
    pub(super) async fn renew_all_etc(&self) {
        let model = self.0.model.lock().await;
        let live: Vec<_> = model.live().map(|sandbox| sandbox.id.clone()).collect();
        drop(model);
        self.renew_etc(live).await;
    }

    /// The addresses of a sandbox of this name changed: whoever is linked to it hears of it.
    pub(super) async fn renew_linked(&self, name: &SandboxName) {
        let linked = self.0.model.lock().await.linked_to(name);
        self.renew_etc(linked).await;
    }

    fn render(&self, model: &Model, sandbox: &Sandbox) -> Answer<Etc> {
        let addresses: Vec<IpAddr> = sandbox.addresses().collect();
        let server = name_server(&sandbox.endpoints);
        let resolv = ResolvConf {
            gateways: server.map_or(&[], |endpoint| &endpoint.gateways),
            named: server.is_some_and(|endpoint| endpoint.named),
            dns: &sandbox.dns,
            dns_search: &sandbox.dns_search,
        };
        let host = model.host_lines(sandbox);
        let links = [host.lines, model.link_lines(sandbox)].concat();
        let is_host = matches!(sandbox.mode, NetworkModeRecord::Host);
        let hosts_file = is_host.then(|| files::read_small("/etc/hosts"));
        let hosts = Hosts {
            base: hosts_file.as_deref(),
            addresses: &addresses,
            hostname: &sandbox.hostname,
            name: sandbox.name_chosen.then_some(sandbox.name.as_str()),
            extra: &host.added,
            links: &links,
        };
        Ok(Etc {
            hosts: hosts.render()?,
            resolv_conf: resolv.render(&self.resolver())?,
            hostname: sandbox.hostname.clone(),
        })
    }
}
