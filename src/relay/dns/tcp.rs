//! DNS over TCP, on a wildcard listener of the router netns.
//!
//! Place: transport in front of `server`. Invariants: a connection is a task of its own and cannot
//! hold up another; it has [`Server::idle`] to deliver each message whole, and its answers leave as they
//! become ready (RFC 7766 §6.2.1.1, §7); what it may have under way is bounded, beyond which we do
//! not read on (CVE-2024-8418, CVE-2026-35406).

use super::limits::Slot;
use super::message::MAX_QUERY;
use super::server::{Server, Step, Via};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Queries of one connection under way; more wait in its socket.
const MAX_PIPELINED: usize = 32;
/// Rest after a failed accept (out of descriptors): retrying at once would burn the CPU.
const REST: Duration = Duration::from_millis(100);

/// Takes over a listening socket, for the runtime that is being entered.
pub fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    super::set_nonblocking(&socket)?;
    TcpListener::from_std(socket.into())
}

/// Accepts for ever.
pub async fn serve(listener: TcpListener, server: Rc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => accept(&server, stream, client.ip()),
            // The client was gone before we looked.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "dns accept failed");
                sleep(REST).await;
            }
        }
    }
}

/// Starts a task for the connection, or closes it where the client has its share.
fn accept(server: &Rc<Server>, stream: TcpStream, client: IpAddr) {
    let Ok(gateway) = stream.local_addr().map(|address| address.ip()) else {
        return;
    };
    if let Some(slot) = server.admit(gateway, client) {
        let connection = Connection {
            server: Rc::clone(server),
            gateway,
            client,
            _slot: slot,
        };
        tokio::task::spawn_local(connection.serve(stream));
    }
}

struct Connection {
    server: Rc<Server>,
    gateway: IpAddr,
    client: IpAddr,
    /// Held for as long as the connection lives.
    _slot: Slot,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Answers are single small writes; one that fails only costs latency.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let (answers, outgoing) = mpsc::channel(MAX_PIPELINED);
        tokio::join!(
            self.read_all(reader, answers),
            self.write_all(writer, outgoing)
        );
    }

    /// Reads until the client ends, errs, or stalls; then waits for the answers under way.
    async fn read_all(&self, mut reader: OwnedReadHalf, answers: mpsc::Sender<Vec<u8>>) {
        let mut under_way = JoinSet::new();
        while under_way.len() < MAX_PIPELINED || under_way.join_next().await.is_some() {
            while under_way.try_join_next().is_some() {}
            let message = tokio::select! {
                message = timeout(self.server.idle(), read_message(&mut reader)) => message,
                () = answers.closed() => return,
            };
            let Ok(Ok(message)) = message else {
                break;
            };
            match self
                .server
                .take(&message, self.gateway, self.client, Via::Tcp)
            {
                Step::Ignore => return,
                Step::Answer(answer) => {
                    if answers.send(answer).await.is_err() {
                        return;
                    }
                }
                Step::Forward(forward) => {
                    let (server, answers) = (Rc::clone(&self.server), answers.clone());
                    under_way.spawn_local(async move {
                        let answer = server.forward(forward).await;
                        // Fails only where the connection is gone.
                        let _ = answers.send(answer).await;
                    });
                }
            }
        }
        drop(answers);
        while under_way.join_next().await.is_some() {}
    }

    /// Writes answers until no more can come, or the client stops taking them.
    async fn write_all(&self, mut writer: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Vec<u8>>) {
        while let Some(answer) = outgoing.recv().await {
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&answer);
            if !matches!(
                timeout(self.server.idle(), writer.write_all(&framed)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }
}

/// One message behind its length (RFC 1035 §4.2.2).
async fn read_message(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = usize::from(reader.read_u16().await?);
    if length > MAX_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await?;
    Ok(message)
}
