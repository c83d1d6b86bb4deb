//! Names of users and groups, from /etc/passwd and /etc/group and nowhere else: no name service is asked
//! with privilege. Who is known only to one (LDAP, say) is granted by number.
//!
//! Sources: passwd(5), group(5).

use crate::trusted::{Directory, Untrusted};
use std::collections::{BTreeMap, BTreeSet};

/// Users and groups of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Those of the machine.
    pub fn load() -> Result<Self, Untrusted> {
        let etc = Directory::open("/etc")?;
        Ok(Self::parse(&etc.read("passwd")?, &etc.read("group")?))
    }

    /// Lines that are none are passed over, and of two with the same name the first counts, as for
    /// everybody else.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let mut accounts = Self::default();
        for fields in passwd.lines().map(fields) {
            if let [name, _, uid, gid, ..] = fields.as_slice()
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                let entry = accounts.users.entry((*name).to_owned());
                entry.or_insert(User { uid, gid });
            }
        }
        for fields in group.lines().map(fields) {
            if let [name, _, gid, members, ..] = fields.as_slice()
                && let Ok(gid) = gid.parse()
            {
                let members = members.split(',').filter(|member| !member.is_empty());
                let members = members.map(str::to_owned).collect();
                let entry = accounts.groups.entry((*name).to_owned());
                entry.or_insert(Group { gid, members });
            }
        }
        accounts
    }

    /// The number of a user.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users.get(name).map(|user| user.uid)
    }

    /// The number of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.get(name).map(|group| group.gid)
    }

    /// The groups that a user gets at log-in.
    pub fn groups_of(&self, uid: u32) -> BTreeSet<u32> {
        let mut gids = BTreeSet::new();
        for (name, user) in self.users.iter().filter(|(_, user)| user.uid == uid) {
            gids.insert(user.gid);
            let groups = self.groups.values();
            let with_user = groups.filter(|group| group.members.contains(name));
            gids.extend(with_user.map(|group| group.gid));
        }
        gids
    }
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_own_group_and_those_that_list_them() {
        let passwd =
            "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:\nalice:x:7:7::/:\nbroken\nbob:x:-1:5:\n";
        let group = "net:x:50:alice,bob\nalice:x:1000:\nother:x:51:bob\nbad:x:x:alice\n";
        let accounts = Accounts::parse(passwd, group);
        assert_eq!(accounts.uid("alice"), Some(1000));
        assert_eq!(accounts.uid("bob"), None);
        assert_eq!(accounts.gid("net"), Some(50));
        assert_eq!(accounts.groups_of(1000), BTreeSet::from([50, 1000]));
        assert_eq!(accounts.groups_of(1234), BTreeSet::new());
    }
}
