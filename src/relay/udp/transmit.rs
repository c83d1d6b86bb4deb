//! Sends a batch to the end, whatever the kernel says about parts of it.
//!
//! Invariant: datagrams leave in order; one that fails does not hold up those behind it.

use crate::relay::rush::LATE;
use crate::sys::udp::{Datagram, Join, MAX_BATCH, Path, send_joined};
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// Segmented messages that a path is known not to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct Segmentation {
    /// Bytes of a segment. 0: none may be sent.
    largest: u16,
}

impl Segmentation {
    /// Nothing is known.
    pub(in crate::relay) const UNTRIED: Self = Self { largest: u16::MAX };
}

/// Where a batch goes.
#[derive(Clone, Copy)]
pub(in crate::relay) struct Way<'a> {
    pub(in crate::relay) socket: BorrowedFd<'a>,
    pub(in crate::relay) path: Path,
    /// Most singly made datagrams of one size that leave as one message.
    pub(in crate::relay) joined: usize,
}

impl<'a> Way<'a> {
    /// To where `socket` is connected.
    pub(in crate::relay) fn connected(socket: BorrowedFd<'a>, v6: bool) -> Self {
        let path = Path {
            v6,
            ..Path::default()
        };
        Self {
            socket,
            path,
            joined: 1,
        }
    }

    /// To `destination`, from an unconnected socket.
    pub(in crate::relay) fn to(socket: BorrowedFd<'a>, destination: SocketAddr) -> Self {
        let path = Path {
            destination: Some(destination),
            source: None,
            v6: destination.is_ipv6(),
        };
        Self {
            socket,
            path,
            joined: 1,
        }
    }

    /// The same, with up to `joined` singly made datagrams put together.
    pub(in crate::relay) fn joining(self, joined: usize) -> Self {
        Self { joined, ..self }
    }

    /// The same, with singly made datagrams put together where that makes no burst of what was none:
    /// of a sender that is faster than we are, whose datagrams have waited in a row anyway.
    pub(in crate::relay) fn joining_when_late(self, batch: &[Datagram<'_>]) -> Self {
        let late = batch.len() >= LATE;
        self.joining(if late { JOINED_LATE } else { 1 })
    }
}

/// Put together of such. A receiver's default buffer (212,992 bytes) holds several times as many of
/// full size.
const JOINED_LATE: usize = 16;

/// Sends `batch`; what is left when the socket's buffer is full.
///
/// `segmentation` is lowered when the path turns out not to carry segments of some size.
/// `failed` is told of each datagram that the kernel would not send, and why.
pub(in crate::relay) fn transmit<'a>(
    way: Way<'_>,
    batch: &[Datagram<'a>],
    segmentation: &mut Segmentation,
    mut failed: impl FnMut(&Datagram<'a>, &io::Error),
) -> Vec<Datagram<'a>> {
    let mut singles;
    let mut rest = batch;
    if batch
        .iter()
        .any(|datagram| must_split(datagram, *segmentation))
    {
        singles = split(batch, *segmentation);
        rest = &singles;
    }
    let mut retried = false;
    while let Some(first) = rest.first() {
        let part = rest.get(..MAX_BATCH).unwrap_or(rest);
        let join = Join {
            most: way.joined,
            largest: segmentation.largest,
        };
        let error = match send_joined(way.socket, way.path, part, join) {
            Ok(count) => {
                rest = rest.get(count.max(1)..).unwrap_or_default();
                retried = false;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return rest.to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let joined = join.run(part) > 1;
        let size = first.segment.or(joined.then_some(first.data.len() as u16));
        if lower(segmentation, size, &error) {
            singles = split(rest, *segmentation);
            rest = &singles;
        } else if retried {
            failed(first, &error);
            rest = rest.get(1..).unwrap_or_default();
            retried = false;
        } else {
            // An ICMP error about an earlier datagram is reported once by whatever call comes
            // next (ip(7)); the queue tells it better. A second failure is about this datagram.
            retried = true;
        }
    }
    Vec::new()
}

fn must_split(datagram: &Datagram<'_>, segmentation: Segmentation) -> bool {
    datagram
        .segment
        .is_some_and(|size| size > segmentation.largest)
}

/// Reads from a failed segmented send what size is too much. `false` where the failure has
/// another reason.
fn lower(segmentation: &mut Segmentation, size: Option<u16>, error: &io::Error) -> bool {
    let Some(size) = size else {
        return false;
    };
    match error.raw_os_error() {
        // Larger than the path MTU (EINVAL before Linux 6.13).
        Some(libc::EMSGSIZE | libc::EINVAL) => segmentation.largest = size.saturating_sub(1),
        // The device has no checksum offload (EIO), or the kernel is older than 4.18.
        Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => segmentation.largest = 0,
        _ => return false,
    }
    true
}

/// Takes apart what may not go segmented.
fn split<'a>(batch: &[Datagram<'a>], segmentation: Segmentation) -> Vec<Datagram<'a>> {
    let mut singles = Vec::with_capacity(batch.len());
    for datagram in batch {
        match datagram.segment {
            Some(size) if must_split(datagram, segmentation) => {
                let parts = datagram.data.chunks(usize::from(size.max(1)));
                singles.extend(parts.map(|data| Datagram {
                    data,
                    segment: None,
                    ..*datagram
                }));
            }
            Some(_) | None => singles.push(*datagram),
        }
    }
    singles
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    /// A receiver, and a sender connected to it.
    fn joined() -> (UdpSocket, UdpSocket) {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        from.connect(to.local_addr().unwrap()).unwrap();
        (to, from)
    }

    fn way(from: &UdpSocket) -> Way<'_> {
        Way::connected(from.as_fd(), false)
    }

    fn received(socket: &UdpSocket, count: usize) -> Vec<usize> {
        let mut buffer = [0; 65_536];
        (0..count)
            .map(|_| socket.recv(&mut buffer).unwrap())
            .collect()
    }

    #[test]
    fn segments_are_taken_apart_where_they_may_not_go_together() {
        let data = [1; 2500];
        let large = Datagram {
            segment: Some(1000),
            ..Datagram::plain(&data)
        };
        let sizes = |largest| -> Vec<_> {
            let parts = split(
                &[large, Datagram::plain(&data[..10])],
                Segmentation { largest },
            );
            parts.iter().map(|part| part.data.len()).collect()
        };
        assert_eq!(sizes(999), [1000, 1000, 500, 10]);
        assert_eq!(sizes(1000), [2500, 10]);
    }

    #[test]
    fn a_batch_goes_out_in_order_whatever_its_segments() {
        let (to, from) = joined();
        let way = way(&from);
        let data = [1; 2500];
        let large = Datagram {
            segment: Some(1000),
            ..Datagram::plain(&data)
        };
        for largest in [0, 1472, u16::MAX] {
            let mut segmentation = Segmentation { largest };
            let batch = [large, Datagram::plain(&[]), Datagram::plain(&data[..7])];
            let left = transmit(way, &batch, &mut segmentation, |_, error| panic!("{error}"));
            assert!(left.is_empty());
            assert_eq!(received(&to, 5), [1000, 1000, 500, 0, 7]);
        }
    }

    #[test]
    fn datagrams_are_put_together_only_where_many_have_waited() {
        let (_to, from) = joined();
        let data = [1; 100];
        let few = [Datagram::plain(&data); LATE - 1];
        let many = [Datagram::plain(&data); LATE];
        assert_eq!(way(&from).joining_when_late(&few).joined, 1);
        assert_eq!(way(&from).joining_when_late(&many).joined, JOINED_LATE);
    }

    #[test]
    fn one_that_fails_does_not_hold_up_the_next() {
        let (to, from) = joined();
        let way = way(&from);
        let huge = vec![1; 65_530];
        let mut failures = Vec::new();
        let batch = [
            Datagram::plain(b"a"),
            Datagram::plain(&huge),
            Datagram::plain(b"bc"),
        ];
        let left = transmit(
            way,
            &batch,
            &mut { Segmentation::UNTRIED },
            |datagram, error| {
                failures.push((datagram.data.len(), error.raw_os_error()));
            },
        );
        assert!(left.is_empty());
        assert_eq!(failures, [(65_530, Some(libc::EMSGSIZE))]);
        assert_eq!(received(&to, 2), [1, 2]);
    }
}
