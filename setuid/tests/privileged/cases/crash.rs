//! Killed at any moment, nothing is left that nobody is charged for, and nobody is charged for nothing.

use crate::user::{Netns, as_user, asking, expect_denied, uplink};
use crate::world::{ALICE, GROUP, PROGRAM, World, eventually, output};
use mossnet_setuid::channel;
use mossnet_setuid::request::Request;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Start the helper with a request, and kill it after a while; whether it was alive still.
fn kill_after(netns: &Netns, request: &Request, pause: Duration) -> bool {
    as_user(ALICE, &[], || {
        let kind = SockType::SeqPacket;
        let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.expect("a pair");
        channel::send(ours.as_fd(), &request.encode(), &[netns.fd()]).expect("sent");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").stdin(theirs).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program");
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let alive = child.try_wait().expect("a child").is_none();
        // Its caller may kill it: it bears its caller's uid.
        let _ = child.kill();
        child.wait().expect("a child");
        alive
    })
}

pub fn kill_leaks_nothing(_world: &World) {
    let netns = Netns::of(ALICE);
    let make = Request::Uplink(uplink(&["10.89.1.0/24", "fd00:89::/64"]));
    // As long as a request takes here, with room.
    let began = Instant::now();
    let made = asking(ALICE, |helper| {
        helper.uplink(uplink(&["10.89.1.0/24"]), netns.fd())
    });
    let whole = began.elapsed() * 3 / 2;
    asking(ALICE, |helper| {
        helper.release(made.expect("an uplink").host)
    })
    .expect("released");
    let used = || {
        asking(ALICE, |helper| helper.query())
            .expect("grants")
            .interfaces
            .now
    };
    let links = || {
        output(Command::new("ip").args(["-o", "link"]))
            .matches(" mnu")
            .count()
    };
    let mut killed = 0;
    for step in 0..100u32 {
        killed += u32::from(kill_after(&netns, &make, whole * step / 100));
        // What is there is charged, and what is charged is there.
        let charged = used();
        assert_eq!(
            links(),
            usize::try_from(charged).expect("a number"),
            "step {step}"
        );
        // The same uplink is adopted, or made anew, and complete.
        let again = asking(ALICE, |helper| {
            helper.uplink(uplink(&["10.89.1.0/24", "fd00:89::/64"]), netns.fd())
        });
        let made = again.expect("an uplink").host;
        for family in ["-4", "-6"] {
            let mut show = Command::new("ip");
            show.args([family, "route", "show", "dev", made.name.as_str()]);
            let routes = output(&mut show);
            assert!(
                routes.contains("10.89.1.0/24") || routes.contains("fd00:89::/64"),
                "{routes}"
            );
        }
        assert_eq!((used(), links()), (1, 1));
        asking(ALICE, |helper| helper.release(made)).expect("released");
        assert_eq!((used(), links()), (0, 0));
        let tables = output(Command::new("nft").args(["list", "tables"]));
        assert!(!tables.contains("mossnet"), "{tables}");
    }
    assert!(killed > 20, "{killed} of 100 were killed before their end");
    // With the namespace gone, too.
    for step in 0..3 {
        let netns = Netns::of(ALICE);
        kill_after(&netns, &make, whole * (step + 1) / 4);
        drop(netns);
        eventually("nothing is charged", || used() == 0);
        eventually("nothing is left", || links() == 0);
    }
}

pub fn a_damaged_record_grants_nothing(world: &World) {
    let ask = || asking(ALICE, |helper| helper.query());
    ask().expect("grants");
    let names = || {
        let entries = fs::read_dir("/run/mossnet").expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .map(|name| name.into_string().expect("a name"))
            .collect::<Vec<_>>()
    };
    let record = names()
        .into_iter()
        .find(|name| name.starts_with("record-"))
        .expect("a record");
    let path = format!("/run/mossnet/{record}");
    assert_eq!(fs::metadata(&path).expect("a record").mode() & 0o007, 0);
    let good = fs::read(&path).expect("a record");
    fs::write(&path, &good[..good.len() - 1]).expect("damage");
    expect_denied(ask());
    world.expect_logged("of the record is damaged");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a directory");
    expect_denied(ask());
    fs::remove_dir(&path).expect("removed");
    ask().expect("grants");
    // The directory must be closed to callers.
    for mode in [0o777, 0o771, 0o774] {
        crate::world::set_mode("/run/mossnet", mode);
        expect_denied(ask());
        world.expect_logged("/run/mossnet must belong to root");
    }
    crate::world::set_mode("/run/mossnet", 0o770);
    expect_denied(as_user(ALICE, &[GROUP], || crate::user::helper().query()));
    world.expect_logged("/run/mossnet must belong to root");
    std::os::unix::fs::chown("/run/mossnet", Some(ALICE), Some(GROUP)).expect("an owner");
    expect_denied(ask());
    fs::remove_dir_all("/run/mossnet").expect("removed");
    expect_denied(ask());
    std::os::unix::fs::symlink("/tmp", "/run/mossnet").expect("a link");
    expect_denied(ask());
    fs::remove_file("/run/mossnet").expect("removed");
    world.install_with_capabilities();
    ask().expect("grants");
    // Somebody holds the lock, and does not let go of it: the answer says so in the end.
    let lock = fs::File::options()
        .write(true)
        .open("/run/mossnet/lock")
        .expect("the lock");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("locked");
    let busy = ask();
    let unavailable = mossnet_setuid::request::Unavailable::Busy;
    let told =
        matches!(&busy, Err(mossnet_setuid::CallError::Unavailable(told)) if *told == unavailable);
    assert!(told, "{busy:?}");
    drop(held);
    ask().expect("grants");
}
