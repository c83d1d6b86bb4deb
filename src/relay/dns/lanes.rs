//! Lanes: the UDP sockets over which resolvers are asked.
//!
//! Place: behind `upstream`; made by this thread, in the host netns. A lane is a socket connected to one
//! resolver, hence with a random port of its own, and the questions that wait on it, by their ids. Of each
//! resolver a few lanes take questions at a time, and each question draws one of them.
//!
//! Whoever forges an answer must know which question waits, and guess id and port: 16 bits, and about 15 of
//! the usual 28,232 ports (ip(7), `ip_local_port_range`), the same as with a socket for each question. Sharing
//! only makes what was found out about a port good for more questions, so a lane takes [`QUESTIONS`] at most,
//! none when it is older than [`AGE`], and none after the first datagram that answers nothing. A port is thus
//! open for the time that one question may wait (some seconds, as before) and a tenth of a second more.
//!
//! Invariants: an answer is heard on the lane of its question alone, from the resolver alone, under its id
//! alone, with its question (RFC 5452 §9, and what CVE-2020-25684 and its like came of); no id waits twice on
//! a lane; there are no more lanes than questions waiting and those that take new ones.

use super::message::ClientQuery;
use crate::sys::udp::Batch;
use hickory_proto::op::Message;
use nix::sys::socket::{MsgFlags, send};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Lanes of a resolver that take questions at a time.
const LANES: usize = 4;
/// Questions that a lane takes.
const QUESTIONS: usize = 32;
/// For how long a lane takes questions.
const AGE: Duration = Duration::from_millis(100);
/// Answers of one system call.
const BATCH: usize = 8;
/// Of one answer, bytes.
const MAX_DATAGRAM: usize = 65_536;
/// A refusal (ICMP) shows as an error alone, not as something to read.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// What became of a question at one resolver.
pub enum Heard<'a> {
    /// Its answer, checked against the question.
    Answer(&'a mut [u8]),
    /// The resolver cannot be asked.
    Failure(io::Error),
    /// Nothing for as long as was to be waited; what still comes, comes to the ticket.
    Silence(Ticket),
}

/// Is told what became of a question, once.
pub type Listener = Box<dyn FnOnce(Heard<'_>)>;

/// The lanes of all resolvers.
pub struct Lanes {
    /// Those that take questions.
    current: RefCell<HashMap<SocketAddr, [Option<Rc<Lane>>; LANES]>>,
    /// All, some of them gone.
    all: RefCell<Vec<Weak<Lane>>>,
    /// How often silence is looked for.
    tick: Duration,
    watching: Cell<bool>,
    room: RefCell<Room>,
}

/// Where answers are received.
struct Room {
    batch: Batch,
    answer: Vec<u8>,
}

struct Lane {
    socket: UdpSocket,
    opened: Instant,
    asked: Cell<usize>,
    /// Takes no more questions.
    closed: Cell<bool>,
    waiting: RefCell<HashMap<u16, Waiting>>,
    /// Of the task that reads from it.
    reader: RefCell<Option<AbortHandle>>,
}

struct Waiting {
    query: Rc<ClientQuery>,
    sink: Sink,
}

enum Sink {
    Listener(Listener, Instant),
    Ticket(oneshot::Sender<io::Result<Vec<u8>>>),
}

/// A question that somebody waits for. It is given up when this is dropped.
pub struct Ticket {
    lane: Weak<Lane>,
    id: u16,
    answer: oneshot::Receiver<io::Result<Vec<u8>>>,
}

impl Lanes {
    /// None yet. `tick`: how often questions are looked through for those that met with silence.
    pub fn new(tick: Duration) -> Rc<Self> {
        Rc::new(Self {
            current: RefCell::default(),
            all: RefCell::default(),
            tick,
            watching: Cell::new(false),
            room: RefCell::new(Room {
                batch: Batch::new(BATCH, MAX_DATAGRAM),
                answer: Vec::new(),
            }),
        })
    }

    /// Asks a resolver; `listener` hears what comes of it, or of silence after `patience`. It may hear of a
    /// failure before this returns.
    pub fn tell(
        self: &Rc<Self>,
        server: SocketAddr,
        query: Rc<ClientQuery>,
        patience: Duration,
        listener: Listener,
    ) {
        let now = Instant::now();
        match self.lane(server, now) {
            Ok(lane) => {
                let sink = Sink::Listener(listener, now + patience);
                self.watch();
                lane.ask(Waiting { query, sink });
            }
            Err(error) => listener(Heard::Failure(error)),
        }
    }

    /// Asks a resolver.
    ///
    /// # Errors
    /// No socket, or no way there.
    pub fn ask(self: &Rc<Self>, server: SocketAddr, query: Rc<ClientQuery>) -> io::Result<Ticket> {
        let lane = self.lane(server, Instant::now())?;
        let (sender, answer) = oneshot::channel();
        self.watch();
        let id = lane.ask(Waiting {
            query,
            sink: Sink::Ticket(sender),
        });
        Ok(Ticket {
            lane: Rc::downgrade(&lane),
            id,
            answer,
        })
    }

    /// One of the lanes to this resolver, drawn at random.
    fn lane(self: &Rc<Self>, server: SocketAddr, now: Instant) -> io::Result<Rc<Lane>> {
        let mut current = self.current.borrow_mut();
        let lanes = current.entry(server).or_default();
        let Some(place) = lanes.get_mut(usize::from(random()) % LANES) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Some(lane) = place.as_ref().filter(|lane| lane.takes(now)) {
            return Ok(Rc::clone(lane));
        }
        if let Some(old) = place.take() {
            old.close();
        }
        let lane = self.open(server, now)?;
        *place = Some(Rc::clone(&lane));
        Ok(lane)
    }

    fn open(self: &Rc<Self>, server: SocketAddr, now: Instant) -> io::Result<Rc<Lane>> {
        let lane = Rc::new(Lane {
            socket: connected(server)?,
            opened: now,
            asked: Cell::new(0),
            closed: Cell::new(false),
            waiting: RefCell::default(),
            reader: RefCell::default(),
        });
        let reading = tokio::task::spawn_local(Rc::clone(&lane).read(Rc::clone(self)));
        *lane.reader.borrow_mut() = Some(reading.abort_handle());
        self.all.borrow_mut().push(Rc::downgrade(&lane));
        Ok(lane)
    }

    /// Looks for silence from now on, until there is no lane left.
    fn watch(self: &Rc<Self>) {
        if self.watching.replace(true) {
            return;
        }
        let lanes = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while lanes.look(Instant::now()) {
                tokio::time::sleep(lanes.tick).await;
            }
            lanes.watching.set(false);
        });
    }

    /// Closes lanes that are too old, and tells those who have waited long enough. Whether any lane is left.
    fn look(&self, now: Instant) -> bool {
        self.current.borrow_mut().retain(|_, lanes| {
            for place in lanes.iter_mut() {
                if let Some(old) = place.take_if(|lane| !lane.takes(now)) {
                    old.close();
                }
            }
            lanes.iter().any(Option::is_some)
        });
        let mut left = Vec::new();
        self.all.borrow_mut().retain(|lane| {
            let lane = lane.upgrade();
            let stays = lane.is_some();
            left.extend(lane);
            stays
        });
        for lane in &left {
            lane.tell_of_silence(now);
        }
        !left.is_empty()
    }
}

impl Lane {
    fn takes(&self, now: Instant) -> bool {
        !self.closed.get()
            && self.asked.get() < QUESTIONS
            && now.saturating_duration_since(self.opened) < AGE
    }

    /// Takes no more questions, and is gone with the last that waits.
    fn close(&self) {
        self.closed.set(true);
        self.end_if_done();
    }

    fn is_done(&self) -> bool {
        self.closed.get() && self.waiting.borrow().is_empty()
    }

    fn end_if_done(&self) {
        if self.is_done()
            && let Some(reader) = self.reader.borrow().as_ref()
        {
            reader.abort();
        }
    }

    /// Sends a question, under which id it says.
    fn ask(&self, question: Waiting) -> u16 {
        self.asked.set(self.asked.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        let id = loop {
            let id = random();
            if !waiting.contains_key(&id) {
                break id;
            }
        };
        let message = question.query.forwarded(id);
        waiting.insert(id, question);
        drop(waiting);
        self.send(&message);
        id
    }

    fn send(&self, message: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT);
        match sent.map_err(io::Error::from) {
            // A full buffer loses it, as a network would; it is sent again.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.fail(&error),
            Ok(_) | Err(_) => {}
        }
    }

    /// What the socket says is true of all that wait on it: they have one resolver.
    fn fail(&self, error: &io::Error) {
        self.closed.set(true);
        let failed = std::mem::take(&mut *self.waiting.borrow_mut());
        for (_, Waiting { sink, .. }) in failed {
            let error = error.raw_os_error().map_or_else(
                || io::Error::from(error.kind()),
                io::Error::from_raw_os_error,
            );
            match sink {
                Sink::Listener(listener, _) => listener(Heard::Failure(error)),
                // Fails where nobody waits any longer.
                Sink::Ticket(sender) => drop(sender.send(Err(error))),
            }
        }
        self.end_if_done();
    }

    async fn read(self: Rc<Self>, lanes: Rc<Lanes>) {
        while !self.is_done() {
            let receive = || self.receive(&mut lanes.room.borrow_mut());
            if self.socket.async_io(INTEREST, receive).await.is_err() {
                return;
            }
        }
    }

    /// Takes what is there. `WouldBlock` where that was all: an error behind the last datagram shows when
    /// the next question is sent.
    fn receive(&self, room: &mut Room) -> io::Result<()> {
        match room.batch.receive(self.socket.as_fd()) {
            Ok(count) => {
                for datagram in room.batch.iter() {
                    room.answer.clear();
                    room.answer.extend_from_slice(datagram.data);
                    self.hear(&mut room.answer);
                }
                if count < BATCH && !self.is_done() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => self.fail(&error),
        }
        Ok(())
    }

    /// A datagram of the resolver's, or of somebody who sends in its name.
    fn hear(&self, answer: &mut [u8]) {
        let id = answer.first_chunk::<2>().map(|id| u16::from_be_bytes(*id));
        let mut waiting = self.waiting.borrow_mut();
        let found = id.filter(|id| {
            let question = waiting.get(id);
            question.is_some_and(|question| question.query.matches(answer, *id))
        });
        let Some(question) = found.and_then(|id| waiting.remove(&id)) else {
            // Late, or a forgery: then somebody knows the port.
            self.closed.set(true);
            return;
        };
        drop(waiting);
        match question.sink {
            Sink::Listener(listener, _) => listener(Heard::Answer(answer)),
            // Fails where nobody waits any longer.
            Sink::Ticket(sender) => drop(sender.send(Ok(answer.to_vec()))),
        }
    }

    fn tell_of_silence(self: &Rc<Self>, now: Instant) {
        let mut told = Vec::new();
        for (id, question) in self.waiting.borrow_mut().iter_mut() {
            if !matches!(question.sink, Sink::Listener(_, until) if until <= now) {
                continue;
            }
            let (sender, answer) = oneshot::channel();
            let ticket = Ticket {
                lane: Rc::downgrade(self),
                id: *id,
                answer,
            };
            let before = std::mem::replace(&mut question.sink, Sink::Ticket(sender));
            if let Sink::Listener(listener, _) = before {
                told.push((listener, ticket));
            }
        }
        for (listener, ticket) in told {
            listener(Heard::Silence(ticket));
        }
    }
}

impl Ticket {
    /// The answer, whenever it comes.
    ///
    /// # Errors
    /// The resolver cannot be asked.
    pub async fn answer(&mut self) -> io::Result<Vec<u8>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        (&mut self.answer).await.unwrap_or_else(|_| Err(gone()))
    }

    /// Sends the same question once more, from the same port.
    pub fn send_again(&self) {
        let Some(lane) = self.lane.upgrade() else {
            return;
        };
        let waiting = lane.waiting.borrow();
        let message = waiting.get(&self.id).map(|it| it.query.forwarded(self.id));
        drop(waiting);
        if let Some(message) = message {
            lane.send(&message);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.upgrade() {
            lane.waiting.borrow_mut().remove(&self.id);
            lane.end_if_done();
        }
    }
}

/// A socket with a port that the kernel draws at random.
fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(server), kind, Some(Protocol::UDP))?;
    // Binds it, too, for it has no port yet.
    socket.connect(&server.into())?;
    UdpSocket::from_std(socket.into())
}

/// From a generator fit for the purpose: hickory draws the ids of its queries from a CSPRNG.
pub fn random() -> u16 {
    Message::query().metadata.id
}

#[cfg(test)]
mod tests;
