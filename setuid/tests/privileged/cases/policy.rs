//! Grants: whose, from which files, how often.

use crate::user::{as_user, asking, expect_denied, helper};
use crate::world::{ALICE, BOB, GRANTS, MALLORY, SHARED, World, set_mode};
use mossnet_setuid::request::Verb;
use std::fs;
use std::os::unix::fs::{chown, symlink};

const FILE: &str = "/etc/mossnet/grants.toml";

pub fn what_is_granted_is_told(world: &World) {
    let grants = asking(ALICE, |helper| helper.query()).expect("grants");
    assert_eq!(grants.verbs.len(), 4);
    assert_eq!((grants.interfaces.most, grants.interfaces.now), (3, 0));
    assert!(grants.forwards4 && grants.forwards6);
    world.expect_logged("granted uid=1000 verb=query");
    let grants = asking(BOB, |helper| helper.query()).expect("grants");
    assert_eq!(grants.verbs, [Verb::Veth, Verb::Bridge, Verb::Uplink]);
    expect_denied(asking(MALLORY, |helper| helper.query()));
    world.expect_logged("denied uid=1002 verb=query nothing is granted");
    expect_denied(asking(MALLORY, |helper| helper.gc()));
}

pub fn files_of_others_grant_nothing(world: &World) {
    let ask = || asking(ALICE, |helper| helper.query());
    let good = || world.grant(GRANTS);
    let refused = |words: &str| {
        expect_denied(ask());
        world.expect_logged(words);
        good();
    };
    for mode in [0o666, 0o664, 0o646] {
        set_mode(FILE, mode);
        refused("writable by group or others");
    }
    chown(FILE, Some(ALICE), None).expect("an owner");
    refused("owned by uid 1000");
    fs::rename(FILE, "/etc/mossnet/other").expect("renamed");
    symlink("/etc/mossnet/other", FILE).expect("a link");
    refused("grants.toml");
    fs::remove_file(FILE).expect("removed");
    fs::create_dir(FILE).expect("a directory");
    expect_denied(ask());
    world.expect_logged("not a regular file");
    fs::remove_dir(FILE).expect("removed");
    expect_denied(ask());
    good();
    world.grant(&format!("{GRANTS}\nsurprise = true\n"));
    refused("unknown field");
    world.grant("# nothing\n");
    refused("nothing is granted");
    set_mode("/etc/mossnet", 0o777);
    refused("writable by group or others");
    set_mode("/etc/mossnet", 0o755);
    // The directory beside it counts, and is held to the same.
    fs::create_dir("/etc/mossnet/grants.d").expect("a directory");
    fs::write(
        "/etc/mossnet/grants.d/a.toml",
        "[[grant]]\nuser = 1002\nverbs = ['veth']\n",
    )
    .expect("a file");
    fs::write("/etc/mossnet/grants.d/b.toml~", "not TOML").expect("a file");
    asking(MALLORY, |helper| helper.query()).expect("grants");
    set_mode("/etc/mossnet/grants.d/a.toml", 0o666);
    refused("writable");
    set_mode("/etc/mossnet/grants.d/a.toml", 0o644);
    fs::remove_file(FILE).expect("removed");
    asking(MALLORY, |helper| helper.query()).expect("the directory alone is enough");
    symlink("/etc/mossnet", "/etc/elsewhere").expect("a link");
    fs::rename("/etc/mossnet", "/etc/real").expect("renamed");
    symlink("/etc/real", "/etc/mossnet").expect("a link");
    expect_denied(ask());
    fs::remove_file("/etc/mossnet").expect("removed");
    fs::rename("/etc/real", "/etc/mossnet").expect("renamed");
    good();
    ask().expect("as before");
}

pub fn a_group_is_the_callers_own(world: &World) {
    world.grant("[[grant]]\ngroup = 'shared'\nverbs = ['veth']\n");
    let ask = |uid, groups: &[u32]| as_user(uid, groups, || helper().query());
    ask(ALICE, &[SHARED]).expect("grants");
    // What /etc/group says of who has not got the group is nothing.
    expect_denied(ask(ALICE, &[]));
    ask(MALLORY, &[5, SHARED]).expect("grants");
    // The group of the program's file is no group of the caller.
    world.grant("[[grant]]\ngroup = 990\nverbs = ['veth']\n");
    expect_denied(ask(ALICE, &[SHARED]));
    world.grant("[[grant]]\nuser = 'nobody-here'\nverbs = ['veth']\n");
    expect_denied(ask(ALICE, &[SHARED]));
}

pub fn requests_run_out(world: &World) {
    world.grant("[[grant]]\nuser = 1000\nverbs = ['veth']\nquota = { requests-per-minute = 5 }\n[[grant]]\nuser = 1001\nverbs = ['veth']\n");
    let granted = (0..12)
        .filter(|_| asking(ALICE, |helper| helper.query()).is_ok())
        .count();
    // On a slow machine one more comes back every 12 seconds.
    assert!((5..12).contains(&granted), "{granted} of 12");
    world.expect_logged("more than 5 requests in a minute");
    asking(BOB, |helper| helper.query()).expect("another's requests are another's");
}
