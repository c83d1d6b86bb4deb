//! Peers that framed flows are not made for: who does not read, and who has no timestamps.

use super::{Stage, WAYS, Way};
use crate::world::{Cmd, World};

const LONG: u32 = 4 << 20;

/// A connection that is asked small things while another one stalls, and how long the slowest took.
const BESIDE: &str = "\
def beside():
    c=connect(); c.sendall(b'E'); worst=0
    for _ in range(12):
        begin=time.monotonic(); ask(c,b'now'); worst=max(worst,time.monotonic()-begin); time.sleep(.1)
    c.close(); assert worst<.6,worst
";

#[test]
fn what_a_server_does_not_read_yet_waits() {
    World::builder().deadline(150).test(|world| {
        let stage = Stage::set(
            world,
            "if c.recv(1)==b'E': echo(c); return\n\
             time.sleep(1.5); d,how=rest(c); c.sendall(hashlib.sha256(d).digest()); c.close()",
        );
        for chunk in [700, 9000, LONG] {
            stage.each(&format!(
                "{BESIDE}d=pattern({LONG})\ndef fill():\n    \
                 for at in range(0,len(d),{chunk}): s.sendall(d[at:at+{chunk}])\n    \
                 s.shutdown(socket.SHUT_WR)\n\
                 s=connect(); s.sendall(b'Z'); t=threading.Thread(target=fill); t.start(); beside(); t.join()\n\
                 assert rest(s)==(hashlib.sha256(d).digest(),'eof')\nsay('fine')"
            ));
        }
        stage.end();
    });
}

#[test]
fn what_a_client_does_not_read_yet_waits() {
    World::builder().deadline(150).test(|world| {
        let stage = Stage::set(
            world,
            &format!(
                "if c.recv(1)==b'E': echo(c); return\n\
                 chunk=int.from_bytes(take(c,4)); d=pattern({LONG})\n\
                 for at in range(0,len(d),chunk): c.sendall(d[at:at+chunk])\nc.close()"
            ),
        );
        for chunk in [700, 9000, LONG] {
            stage.each(&format!(
                "{BESIDE}s=connect(); s.sendall(b'Z'+({chunk}).to_bytes(4)); beside()\n\
                 assert rest(s)==(pattern({LONG}),'eof')\nsay('fine')"
            ));
        }
        stage.end();
    });
}

#[test]
fn a_buffer_of_few_bytes_is_filled_again_and_again() {
    World::test(|world| {
        // The least that a kernel has: windows close and open all the time.
        let stage = Stage::set(
            world,
            "c.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,1)\nd=bytearray()\n\
             while more:=c.recv(500): d+=more; time.sleep(.0005)\n\
             c.sendall(hashlib.sha256(d).digest()); c.close()",
        );
        stage.each(
            "d=pattern(150_000); c=connect()\n\
             for at in range(0,len(d),1500): c.sendall(d[at:at+1500])\n\
             c.shutdown(socket.SHUT_WR); assert rest(c)==(hashlib.sha256(d).digest(),'eof')\nsay('fine')",
        );
        stage.end();
    });
}

#[test]
fn who_drops_what_comes_for_seconds_hears_the_kernel_in_the_end() {
    World::builder().deadline(150).test(|world| {
        // What finds no room is dropped, and the kernel has taken over before any of it is sent again: until then
        // the container cannot know its clock.
        let stage = Stage::set(
            world,
            "c.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,1); time.sleep(2.5); d,how=rest(c)\n\
             c.sendall(hashlib.sha256(d).digest()); c.close()",
        );
        stage.each(
            "c=connect(); c.settimeout(50); d=pattern(600_000)\n\
             for at in range(0,len(d),1000): c.sendall(d[at:at+1000]); time.sleep(.0015)\n\
             c.shutdown(socket.SHUT_WR); assert rest(c)==(hashlib.sha256(d).digest(),'eof')\nsay('fine')",
        );
        stage.end();
    });
}

/// A program in the netns of a sandbox, with what the machine allows.
fn beneath(world: &World, name: &str, script: &str) -> Cmd {
    let pid = world.inspect(name)["Pid"].as_i64().expect("a pid");
    let netns = format!("--net=/proc/{pid}/ns/net");
    world.host(["nsenter", &netns, "--", "sh", "-c", script])
}

#[test]
fn a_container_without_timestamps_is_the_kernels() {
    World::test(|world| {
        let stage = Stage::set(world, "echo(c)");
        for name in ["web", "client"] {
            let off = "cd /proc/sys/net/ipv4; echo 0 > tcp_timestamps; cat tcp_timestamps";
            assert_eq!(beneath(world, name, off).ok(), "0\n");
        }
        let long = "\
c=connect(); d=pattern(1<<20); t=threading.Thread(target=c.sendall,args=(d,)); t.start()
assert take(c,len(d))==d; t.join(); c.shutdown(socket.SHUT_WR); assert rest(c)==(b'','eof'); say('fine')";
        for way in WAYS {
            super::talk(&stage, way, |there| there == super::TALKERS);
            let said = stage.client(way, long).run();
            assert!(said.stdout.ends_with("fine\n"), "{way:?}: {said}");
        }
        // That it does not answer is waited for once by each worker, not for each client.
        stage.each(
            "took=[]\nfor _ in range(20):\n    \
             begin=time.monotonic(); c=connect(); ask(c,b'x'); took.append(time.monotonic()-begin); c.close()\n\
             assert sorted(took)[10]<.15,took\nsay('fine')",
        );
        let on = "echo 1 > /proc/sys/net/ipv4/tcp_timestamps";
        beneath(world, "client", on).ok();
        // By which it is seen that nothing else was in the way.
        super::talk(&stage, Way::Out { v6: false }, |there| {
            there <= super::MOST_TAKEN
        });
        stage.end();
    });
}
