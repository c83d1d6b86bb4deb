//! What a container's first packets meet.

use super::*;

/// A retransmission, of SYN or ARP, comes after a second.
const RETRANSMITTED: Duration = Duration::from_millis(900);

#[test]
fn nothing_is_lost_of_what_comes_right_after_an_attach() {
    World::builder().alone().test(|_| {
        let mut relay = BareRelay::start(&[false]);
        let mut slow = Vec::new();
        for round in 0..40u16 {
            let name = format!("box{round}");
            let port = 8000 + round;
            let targets = relay.sandbox(&name, 1);
            relay.publish(&format!("{port}:80"), &targets);
            let host = if round % 2 == 0 { HOST } else { HOST6 };
            let begin = Instant::now();
            // Nobody listens: what answers is the container's kernel.
            let error = within("server", || TcpStream::connect(at(host, port)))
                .and_then(|mut stream| stream.read(&mut [0; 1]))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{host}");
            if begin.elapsed() > RETRANSMITTED {
                slow.push((round, begin.elapsed()));
            }
        }
        // Others may keep the machine busy.
        assert!(slow.len() <= 4, "a second too late: {slow:?}");
    });
}
