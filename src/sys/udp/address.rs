//! `sockaddr_in` and `sockaddr_in6` as bytes (ip(7), ipv6(7)).

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a `sockaddr_in6`, the longer of the two.
pub(super) const NAME_LEN: usize = 28;

/// Reads an address that the kernel wrote.
pub(super) fn decode(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    match libc::c_int::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let ([port_high, port_low, a, b, c, d], _) = rest.split_first_chunk::<6>()?;
            let port = u16::from_be_bytes([*port_high, *port_low]);
            Some(SocketAddr::from(([*a, *b, *c, *d], port)))
        }
        libc::AF_INET6 => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (flow_info, rest) = rest.split_first_chunk::<4>()?;
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            let (scope, _) = rest.split_first_chunk::<4>()?;
            Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(*octets),
                u16::from_be_bytes(*port),
                u32::from_be_bytes(*flow_info),
                u32::from_ne_bytes(*scope),
            )))
        }
        _ => None,
    }
}

/// Writes an address for the kernel; the number of bytes used.
pub(super) fn encode(address: SocketAddr, name: &mut [u8; NAME_LEN]) -> usize {
    fn put(name: &mut [u8; NAME_LEN], bytes: impl Iterator<Item = u8>) -> usize {
        name.iter_mut()
            .zip(bytes)
            .map(|(to, from)| *to = from)
            .count()
    }
    let family = |family: libc::c_int| (family as u16).to_ne_bytes().into_iter();
    match address {
        SocketAddr::V4(address) => put(
            name,
            family(libc::AF_INET)
                .chain(address.port().to_be_bytes())
                .chain(address.ip().octets())
                .chain([0; 8]),
        ),
        SocketAddr::V6(address) => put(
            name,
            family(libc::AF_INET6)
                .chain(address.port().to_be_bytes())
                .chain(address.flowinfo().to_be_bytes())
                .chain(address.ip().octets())
                .chain(address.scope_id().to_ne_bytes()),
        ),
    }
}
