//! How framed flows end: by halves, and by resets, which come behind the data.

use super::{Stage, Way};
use crate::world::{World, eventually, seconds};

#[test]
fn a_client_that_has_ended_is_still_answered() {
    World::test(|world| {
        // The container repeats its end meanwhile.
        let stage = Stage::set(
            world,
            "d,how=rest(c); time.sleep(.6); c.sendall(pattern(200_000)); c.close(); say('got',len(d),how)",
        );
        stage.each_hears(
            "c=connect(); c.sendall(b'q'*500); c.shutdown(socket.SHUT_WR)\n\
             assert rest(c)==(pattern(200_000),'eof')\nsay('fine')",
            "got 500 eof",
        );
        stage.end();
    });
}

#[test]
fn a_container_that_has_ended_and_waits_is_the_kernels() {
    World::test(|world| {
        let stage = Stage::set(
            world,
            "d,how=rest(c); time.sleep(4); c.sendall(d); c.close()",
        );
        for v6 in [false, true] {
            let script = "c=connect(); c.sendall(b'q'*500); c.shutdown(socket.SHUT_WR); say('ended')\n\
                          assert rest(c)==(b'q'*500,'eof')\nsay('fine')";
            let mut client = stage.start(Way::Out { v6 }, script);
            client.expect("ended");
            // Once the container has repeated its end, after 200 ms.
            eventually(seconds(1), "a socket of the kernel's", || {
                stage.in_router().len() == 1
            });
            client.wait().expect_code(0).expect_text("fine");
        }
        stage.end();
    });
}

#[test]
fn a_server_that_has_ended_still_hears() {
    World::test(|world| {
        let stage = Stage::set(
            world,
            "c.sendall(b'bye'); c.shutdown(socket.SHUT_WR); d,how=rest(c); say('got',len(d),how,d==pattern(100_000))",
        );
        stage.each_hears(
            "c=connect(); assert rest(c)==(b'bye','eof')\n\
             for n in range(10): c.sendall(pattern(100_000)[n*10_000:][:10_000]); time.sleep(.1)\n\
             c.close(); say('fine')",
            "got 100000 eof True",
        );
        stage.end();
    });
}

#[test]
fn both_may_end_at_once() {
    World::test(|world| {
        let stage = Stage::set(
            world,
            "c.recv(1); c.sendall(b'x'*99); c.shutdown(socket.SHUT_WR); d,how=rest(c)\nif how!='eof' or len(d)!=98: say('wrong',len(d),how)",
        );
        stage.each(
            "for _ in range(200):\n    \
             c=connect(); c.sendall(b'y'*99); c.shutdown(socket.SHUT_WR); assert rest(c)==(b'x'*99,'eof'); c.close()\n\
             say('fine')",
        );
        for way in super::WAYS {
            assert!(!stage.said(way).contains("wrong"), "{}", stage.said(way));
        }
        stage.end();
    });
}

/// The client asks for so many bytes, which the server resets its connection behind.
const RESETS: &str = "\
n=int.from_bytes(take(c,4))
if n: c.sendall(pattern(n)); is_taken(c)
reset(c)";

#[test]
fn a_servers_reset_comes_behind_its_data() {
    World::test(|world| {
        let stage = Stage::set(world, RESETS);
        for pause in [0.0, 0.7] {
            stage.each(&format!(
                "for n in (0,1,300,5000,14_000,200_000):\n    \
                 c=connect(); c.sendall(n.to_bytes(4)); time.sleep({pause}); d,how=rest(c)\n    \
                 assert (d==pattern(n),how)==(True,'ECONNRESET'),(n,len(d),how)\nsay('fine')"
            ));
        }
        stage.end();
    });
}

#[test]
fn a_server_that_resets_right_away() {
    World::test(|world| {
        let stage = Stage::set(world, "reset(c)");
        stage.each(
            "hows=set()\nfor _ in range(100):\n    \
             try: c=connect(); hows.add(rest(c)[1])\n    \
             except OSError as e: hows.add(errno.errorcode[e.errno])\n\
             assert hows=={'ECONNRESET'},hows\nsay('fine')",
        );
        stage.end();
    });
}

#[test]
fn a_clients_reset_comes_behind_its_data() {
    World::test(|world| {
        let stage = Stage::set(
            world,
            "pause=c.recv(1); time.sleep(.7*int(pause)); d,how=rest(c); say('got',len(d),how,d==pattern(len(d)))",
        );
        for n in [1, 300, 14_000, 200_000] {
            for pause in [0, 1] {
                stage.each_hears(
                    &format!(
                        "c=connect(); c.sendall(b'{pause}'+pattern({n})); is_taken(c); reset(c)\nsay('fine')"
                    ),
                    &format!("got {n} ECONNRESET True"),
                );
            }
        }
        stage.end();
    });
}
