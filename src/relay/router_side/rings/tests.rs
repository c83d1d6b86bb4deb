use super::*;
use crate::relay::gate::Gate;
use crate::sys::own_netns::in_own_netns;
use crate::sys::packet::{
    VNET_HEADER_LEN, of_interface, of_timestamp, ringed_of_interface, send_on,
};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Few enough that a receiver which others hold up for a tenth of a second has room for them in its queue.
const PACE: Duration = Duration::from_micros(300);
const HEADERS: usize = VNET_HEADER_LEN + 14 + 20;

/// A datagram whose port is its number, so that fanout spreads them.
fn numbered(number: u16) -> Vec<u8> {
    let ip = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let udp = [number.to_be_bytes(), [0, 9], [0, 8], [0, 0]].concat();
    [&[0; VNET_HEADER_LEN][..], &[2; 12], &[8, 0], &ip, &udp].concat()
}

fn number_of(frame: &[u8]) -> Option<u16> {
    // The interface has IPv6 words of its own.
    let ours = frame.get(VNET_HEADER_LEN + 12..)?.starts_with(&[8, 0]);
    let number = frame.get(HEADERS..)?.first_chunk()?;
    ours.then(|| u16::from_be_bytes(*number))
}

/// A worker's part, for `time`: numbers in their order, and how many there were when the rings had come.
fn receive(gate: Arc<OwnedFd>, coming: &Coming, time: Duration) -> (Vec<u16>, Option<usize>) {
    let (end, mut numbers, mut came) = (Instant::now() + time, Vec::new(), None);
    let mut gate = Gate::queued(gate);
    let batch = |gate: &mut Gate, numbers: &mut Vec<u16>| {
        let before = numbers.len();
        numbers.extend(gate.receive().unwrap().filter_map(number_of));
        gate.done();
        numbers.len() > before
    };
    while Instant::now() < end {
        if !batch(&mut gate, &mut numbers) {
            std::thread::sleep(Duration::from_micros(100));
        }
        if let Ok(rings) = coming.rings.try_recv() {
            while batch(&mut gate, &mut numbers) {}
            assert!(rings.tap.is_some() && coming.wake.read().is_ok_and(|value| value == 1));
            let (socket, ring) = rings.gate.unwrap();
            gate = Gate::new(Arc::new(socket), ring);
            came = Some(numbers.len());
        }
    }
    (numbers, came)
}

#[test]
fn no_frame_is_missed_while_the_rings_come() {
    in_own_netns(
        module_path!(),
        "no_frame_is_missed_while_the_rings_come",
        || {
            let [out, into] =
                ["tap-a", "tap-b"].map(|name| nix::net::if_::if_nametoindex(name).unwrap());
            let gate = || Arc::new(of_interface(into, Some(1)).unwrap());
            let packets = Packets {
                gates: vec![gate(), gate()],
                ringed: [(); 2]
                    .map(|()| ringed_of_interface(into, Some(2)).unwrap())
                    .into(),
                taps: [1, 2]
                    .map(|timestamp| of_timestamp(timestamp).unwrap())
                    .into(),
            };
            let old: Vec<_> = packets.gates.iter().map(Arc::downgrade).collect();
            let sender = of_interface(out, None).unwrap();
            let sent = AtomicU16::new(0);
            let begin = Instant::now();
            let time = Duration::from_millis(500);
            let workers = expect(packets).unwrap();
            let both: Vec<_> = std::thread::scope(|scope| {
                let work = |(gate, coming)| scope.spawn(move || receive(gate, &coming, time));
                let both: Vec<_> = workers.into_iter().map(work).collect();
                while begin.elapsed() < time - Duration::from_millis(100) {
                    send_on(sender.as_fd(), out, &numbered(sent.load(Relaxed))).unwrap();
                    sent.fetch_add(1, Relaxed);
                    std::thread::sleep(PACE);
                }
                both.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let mut times = vec![0; sent.load(Relaxed).into()];
            for (numbers, came) in &both {
                let came = came.expect("rings");
                assert!(
                    came > 0 && came < numbers.len(),
                    "some by each socket: {came} of {}",
                    numbers.len()
                );
                numbers
                    .iter()
                    .for_each(|number| times[usize::from(*number)] += 1);
            }
            assert!(times.iter().all(|times| *times > 0), "each came: {times:?}");
            // Between two system calls.
            let twice = times.iter().filter(|times| **times > 1).count();
            assert!(
                twice <= times.len() / 20,
                "{twice} of {} came twice",
                times.len()
            );
            for gate in &old {
                let closed = (0..1000).any(|_| {
                    std::thread::sleep(Duration::from_millis(1));
                    gate.strong_count() == 0
                });
                assert!(closed, "nobody needs the first socket any more");
            }
        },
    );
}
