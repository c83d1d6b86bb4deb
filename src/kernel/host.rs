//! The host's network, as far as a rootless process may look: prefixes in use, and changes.
//!
//! Invariant: reads only. Sources: rtnetlink(7), inotify(7), resolv.conf(5).

use futures_util::stream::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{IpVersion, MulticastGroup, RouteMessageBuilder};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Where the host says how names are resolved.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The host's routes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No netlink socket.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("read the host's {what}")]
    Dump {
        /// `routes` or `addresses`.
        what: &'static str,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
    /// It is not there.
    #[error("no such interface on this host: {0}")]
    NoInterface(String),
}

/// Something about the host changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostChange {
    /// Routes or addresses.
    Routes,
    /// resolv.conf.
    Resolver,
}

/// Every prefix that the host routes or has an address in; default routes are not among them.
pub async fn prefixes() -> Result<Vec<IpNet>, HostError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(HostError::Socket)?;
    let connection = tokio::spawn(connection);
    let read = async {
        let mut found = BTreeSet::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let all = match version {
                IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
                IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
            };
            let mut routes = handle.route().get(all).execute();
            while let Some(route) = routes.try_next().await.map_err(dump_error("routes"))? {
                found.extend(route_prefix(&route));
            }
        }
        let mut addresses = handle.address().get().execute();
        while let Some(address) = addresses
            .try_next()
            .await
            .map_err(dump_error("addresses"))?
        {
            found.extend(address_prefix(&address));
        }
        Ok(found.into_iter().collect())
    };
    let prefixes = read.await;
    connection.abort();
    prefixes
}

/// The addresses of one interface, but for link-local ones, which mean nothing without it.
pub async fn addresses_of(interface: &str) -> Result<Vec<IpAddr>, HostError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(HostError::Socket)?;
    let connection = tokio::spawn(connection);
    let read = async {
        let mut links = handle
            .link()
            .get()
            .match_name(interface.to_owned())
            .execute();
        let link = links.try_next().await.map_err(dump_error("interfaces"));
        let Ok(Some(link)) = link else {
            return Err(HostError::NoInterface(interface.to_owned()));
        };
        let of_link = handle
            .address()
            .get()
            .set_link_index_filter(link.header.index);
        let mut addresses = of_link.execute();
        let mut found = BTreeSet::new();
        while let Some(message) = addresses
            .try_next()
            .await
            .map_err(dump_error("addresses"))?
        {
            found.extend(own_address(&message));
        }
        Ok(found.into_iter().collect())
    };
    let found = read.await;
    connection.abort();
    found
}

/// On a point-to-point link the other attribute is the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut all = message.attributes.iter();
    let local = all.find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let mut all = message.attributes.iter();
    let address = local.or_else(|| {
        all.find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!link_local).then_some(address)
}

fn dump_error(what: &'static str) -> impl Fn(rtnetlink::Error) -> HostError {
    move |source| HostError::Dump {
        what,
        source: Box::new(source),
    }
}

fn route_prefix(route: &RouteMessage) -> Option<IpNet> {
    let length = route.header.destination_prefix_length;
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
    usable(destination?, length)
}

fn address_prefix(message: &AddressMessage) -> Option<IpNet> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
    usable(address?, message.header.prefix_len)
}

/// Leaves out what is the same on every host and cannot be a network's.
fn usable(address: IpAddr, length: u8) -> Option<IpNet> {
    let prefix = IpNet::new(address, length).ok()?.trunc();
    let everywhere = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_multicast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local(),
    };
    (length > 0 && !everywhere).then_some(prefix)
}

/// Reports changes until the receiver is dropped. What cannot be watched is logged and left.
pub fn watch() -> mpsc::Receiver<HostChange> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(watch_routes(sender.clone()));
    tokio::spawn(watch_resolver(sender));
    receiver
}

async fn watch_routes(sender: mpsc::Sender<HostChange>) {
    let groups = [
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, _handle, mut messages) = match rtnetlink::new_multicast_connection(&groups) {
        Ok(connected) => connected,
        Err(error) => {
            warn!(%error, "routes of the host are not watched");
            return;
        }
    };
    let connection = tokio::spawn(connection);
    loop {
        tokio::select! {
            message = messages.next() => if message.is_none() { break },
            () = sender.closed() => break,
        }
        // A full channel holds news already.
        let _ = sender.try_send(HostChange::Routes);
    }
    connection.abort();
}

async fn watch_resolver(sender: mpsc::Sender<HostChange>) {
    loop {
        let changed = tokio::select! {
            changed = resolver_changed() => changed,
            () = sender.closed() => return,
        };
        if let Err(error) = changed {
            warn!(%error, "resolv.conf of the host is not watched");
            return;
        }
        debug!("resolv.conf changed");
        let _ = sender.try_send(HostChange::Resolver);
    }
}

/// Resolves at the next change of resolv.conf, of the link or of what it points to. Programs
/// replace the file by rename(2), so the directories are watched; a new watch each time follows a
/// link that was pointed elsewhere.
pub async fn resolver_changed() -> io::Result<()> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    let places = watched_files(Path::new(RESOLV_CONF));
    for directory in places.iter().filter_map(|file| file.parent()) {
        inotify::add_watch(&inotify, directory, events)?;
    }
    let names: Vec<_> = places.iter().filter_map(|file| file.file_name()).collect();
    until_touched(inotify, &names).await
}

async fn until_touched(inotify: OwnedFd, names: &[&std::ffi::OsStr]) -> io::Result<()> {
    let inotify = crate::sys::readiness::watch(inotify)?;
    loop {
        let mut ready = inotify.readable().await?;
        let seen = ready.try_io(|inotify| read_names(inotify.get_ref()));
        match seen {
            Ok(seen) if seen.as_ref().is_ok_and(|seen| !touches(seen, names)) => {}
            Ok(seen) => return seen.map(drop),
            Err(_would_block) => {}
        }
    }
}

/// Resolves when a file of that name was made, replaced or removed in its directory since the call.
pub async fn entry_changed(path: &Path) -> io::Result<()> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    inotify::add_watch(&inotify, directory, events)?;
    until_touched(inotify, &[name]).await
}

fn touches(seen: &[std::ffi::OsString], names: &[&std::ffi::OsStr]) -> bool {
    seen.iter().any(|seen| names.contains(&seen.as_os_str()))
}

/// The file itself and, where it is a symbolic link, each file on the way.
fn watched_files(file: &Path) -> Vec<PathBuf> {
    let mut files = vec![file.to_path_buf()];
    let mut at = file.to_path_buf();
    // As many links as the kernel would follow (path_resolution(7)).
    while let Ok(target) = std::fs::read_link(&at) {
        at = at
            .parent()
            .map_or_else(|| target.clone(), |parent| parent.join(&target));
        if files.len() > 40 || files.contains(&at) {
            break;
        }
        files.push(at.clone());
    }
    files.retain(|file| file.parent().is_some_and(Path::is_dir));
    files
}

fn read_names(inotify: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStrExt;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut names = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => names.extend(
                event
                    .file_name()
                    .map(|name| std::ffi::OsStr::from_bytes(name.to_bytes()).to_owned()),
            ),
            Err(rustix::io::Errno::WOULDBLOCK) if !names.is_empty() => return Ok(names),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_and_what_every_host_has_are_no_obstacle() {
        let usable = |text: &str| {
            let prefix: IpNet = text.parse().unwrap();
            super::usable(prefix.addr(), prefix.prefix_len()).map(|p| p.to_string())
        };
        assert_eq!(usable("10.89.0.7/24").as_deref(), Some("10.89.0.0/24"));
        for none in [
            "0.0.0.0/0",
            "::/0",
            "127.0.0.1/8",
            "fe80::1/64",
            "ff00::/8",
            "::1/128",
        ] {
            assert_eq!(usable(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn the_host_can_be_read() {
        prefixes().await.unwrap();
    }

    #[test]
    fn links_are_followed_to_each_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("run")).unwrap();
        std::fs::write(at("run/stub"), "").unwrap();
        std::os::unix::fs::symlink("run/stub", at("resolv.conf")).unwrap();
        assert_eq!(
            watched_files(&at("resolv.conf")),
            [at("resolv.conf"), at("run/stub")]
        );
    }
}
