//! Ports that the host's kernel leads to containers behind its uplink, with the client's own address.
//!
//! A port has its socket and the relay behind it in any case: the socket proves to `mossnet-helper` that
//! the port is ours, holds it against others, and serves the host's own clients, who cannot be led
//! (their packets never pass where addresses are translated for others). Clients from elsewhere do not
//! get to it. Where the port is not led (a quota is used up), the relay serves everybody, and shows them
//! as the gateway.
//!
//! Invariant: where a socket leads cannot be taken back but by closing it, so that a socket whose port is
//! to lead elsewhere is closed and bound anew. So is one of an earlier daemon, which may have told
//! anything of it.

use super::Daemon;
use super::draft::Draft;
use super::kernel_uplink::{Led, leaves_by_kernel};
use super::model::Model;
use super::networks::Told;
use crate::api::types::{NetworkMode, Uplink};
use crate::error::one_line;
use crate::kernel::granted::ask;
use crate::network::Sandbox;
use crate::network::publish::led_ports;
use mossnet_setuid::request::MAX_PUBLISHED;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use tracing::{info, warn};

/// Where the kernel should lead the ports of all sandboxes.
pub(super) fn led_by_kernel(model: &Model) -> Led {
    let by_kernel = |id: &_| model.network_by_id(id).is_some_and(leaves_by_kernel);
    let sandboxes = model.live().filter(|sandbox| !sandbox.publishes.is_empty());
    let led = sandboxes.flat_map(|sandbox| led_ports(sandbox, by_kernel));
    led.collect()
}

impl Daemon {
    /// Whether a sandbox that is to be made will leave by the kernel.
    pub(super) async fn will_be_on_kernel(&self, draft: &Draft) -> bool {
        let model = self.0.model.lock().await;
        let leaves = |name: &str| model.find_network(name).is_ok_and(leaves_by_kernel);
        match &draft.network {
            _ if draft.publish.specs.is_empty() => false,
            _ if draft.request.uplink == Some(Uplink::Kernel) => true,
            NetworkMode::Networks(networks) => networks.iter().any(|on| leaves(&on.network)),
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => false,
        }
    }

    /// Whether a sandbox leaves by the kernel.
    pub(super) async fn is_on_kernel(&self, sandbox: &Sandbox) -> bool {
        let model = self.0.model.lock().await;
        let mut networks = sandbox.attachments.iter();
        networks.any(|on| {
            model
                .network_by_id(&on.network)
                .is_some_and(leaves_by_kernel)
        })
    }
}

/// Sockets that the helper keeps, and that lead elsewhere than they should.
pub(super) fn stale_ports(told: &Told, led: &Led) -> BTreeSet<String> {
    let possible = told.kernel.made().is_some();
    let wanted = |key: &String| led.get(key).filter(|_| possible);
    let is_stale = |key: &&String| told.kernel.led.get(*key) != wanted(key);
    told.listeners.iter().filter(is_stale).cloned().collect()
}

/// Has the kernel lead those of these sockets that it should.
pub(super) async fn lead_ports(told: &mut Told, sockets: &[(String, OwnedFd)], led: &Led) {
    let Some(uplink) = told.kernel.made().map(|made| made.host.clone()) else {
        return;
    };
    let mut ports: Vec<(OwnedFd, SocketAddr)> = Vec::new();
    for (key, socket) in sockets {
        let Some(targets) = led.get(key) else {
            continue;
        };
        // Whatever comes of it: it is not tried again for this socket.
        told.kernel.led.insert(key.clone(), targets.clone());
        for target in targets {
            match socket.try_clone() {
                Ok(socket) => ports.push((socket, *target)),
                Err(error) => warn!(key, %error, "port not led by the kernel"),
            }
        }
    }
    let count = ports.len();
    while !ports.is_empty() {
        let rest = ports.split_off(ports.len().min(MAX_PUBLISHED));
        let (some, uplink) = (std::mem::replace(&mut ports, rest), uplink.clone());
        let published = ask("have the kernel lead ports", move |installed| {
            let some: Vec<_> = some.iter().map(|(fd, to)| (fd.as_fd(), *to)).collect();
            installed.publish(uplink, &some)
        });
        if let Err(error) = published.await {
            let error = one_line(&error);
            warn!(
                error,
                "published ports are served by the relay, not by the kernel"
            );
            return;
        }
    }
    if count > 0 {
        info!(ports = count, "the kernel leads published ports");
    }
}
