//! `mossnet-helper check`: what a user may do, and which grant says so.
//!
//! Root asks about anybody, others about themselves, and learn no more than what is granted to them:
//! whether a file is there, or at fault, is root's to know.

use crate::accounts::Accounts;
use crate::audit::{self, Decision};
use crate::caller::Caller;
use crate::kernel::sysctl::{Family, forwards};
use crate::policy::{Grant, Holder, Policy};
use crate::request::Verb;
use std::fmt::Write;
use std::process::ExitCode;

pub fn run(caller: &Caller, user: Option<&str>) -> ExitCode {
    let loaded = Accounts::load().map_err(|error| error.to_string());
    let loaded = loaded.and_then(|accounts| {
        let policy = Policy::load(&accounts).map_err(|error| error.to_string())?;
        Ok((accounts, policy))
    });
    let answer = match &loaded {
        Ok((accounts, policy)) => answer(caller, user, accounts, policy),
        Err(error) if caller.uid == 0 => Err(format!("nobody is granted anything: {error}")),
        Err(_) => Err("denied".to_owned()),
    };
    match answer {
        Ok(text) => {
            audit::write(
                caller.uid,
                Decision::Granted,
                "check",
                &user.unwrap_or("self"),
            );
            super::print(&text)
        }
        Err(words) => {
            audit::write(
                caller.uid,
                Decision::Denied,
                "check",
                &user.unwrap_or("self"),
            );
            audit::tell(&words);
            ExitCode::FAILURE
        }
    }
}

fn answer(
    caller: &Caller,
    user: Option<&str>,
    accounts: &Accounts,
    policy: &Policy,
) -> Result<String, String> {
    let who = match user {
        None => caller.clone(),
        Some(user) => {
            let uid = user.parse().ok().or_else(|| accounts.uid(user));
            match uid {
                Some(uid) if uid == caller.uid => caller.clone(),
                Some(uid) if caller.uid == 0 => Caller {
                    uid,
                    gids: accounts.groups_of(uid),
                },
                None if caller.uid == 0 => return Err(format!("no user '{user}' in /etc/passwd")),
                Some(_) | None => return Err("denied".to_owned()),
            }
        }
    };
    let mut text = describe(&who, policy);
    if caller.uid == 0 {
        for grant in policy.void() {
            let (file, number) = &grant.place;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "warning: {file}, grant {number}, is {}'s",
                grant.holder
            );
        }
    }
    Ok(text)
}

fn describe(who: &Caller, policy: &Policy) -> String {
    let Some(rights) = policy.rights(who) else {
        return format!("uid {} is granted nothing\n", who.uid);
    };
    let mut text = String::new();
    for grant in policy.grants_of(who) {
        describe_grant(&mut text, who, grant);
    }
    let quota = rights.quota;
    let _ = writeln!(
        text,
        "together: {} interfaces, {} ports, {} published ports, {} requests a minute",
        quota.interfaces, quota.ports, quota.published, quota.requests_per_minute
    );
    for (family, name, setting) in [
        (Family::V4, "IPv4", "net.ipv4.ip_forward"),
        (Family::V6, "IPv6", "net.ipv6.conf.all.forwarding"),
    ] {
        if rights.allow(Verb::Uplink) && !forwards(family) {
            let _ = writeln!(text, "note: no uplink with {name} until {setting} is 1");
        }
    }
    text
}

fn describe_grant(text: &mut String, who: &Caller, grant: &Grant) {
    let (file, number) = &grant.place;
    let why = match &grant.holder {
        Holder::User(uid) => format!("to uid {uid}"),
        Holder::Group(gid) => format!("to gid {gid}, which uid {} is in", who.uid),
        Holder::Unknown { .. } => String::new(),
    };
    let _ = writeln!(text, "{file}, grant {number}, {why}:");
    for verb in &grant.verbs {
        let _ = match verb {
            Verb::Veth => writeln!(text, "  veth between namespaces of its own"),
            Verb::Bridge => {
                let bridges = grant.bridges.iter();
                let bridges = bridges.map(|(name, nets)| format!("{name} as {}", list(nets)));
                writeln!(text, "  bridge {}", bridges.collect::<Vec<_>>().join("; "))
            }
            Verb::Uplink => writeln!(text, "  uplink for subnets of {}", list(&grant.subnets)),
            Verb::Bind => {
                let ports = grant.ports.iter().map(ToString::to_string);
                writeln!(text, "  bind {}", ports.collect::<Vec<_>>().join(", "))
            }
        };
    }
}

fn list(prefixes: &[ipnet::IpNet]) -> String {
    if prefixes.is_empty() {
        return "no address".to_owned();
    }
    let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
