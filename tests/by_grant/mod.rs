//! What an administrator grants, used by mossnet: the way through the host's kernel, low ports. As root,
//! since real file capabilities count in the machine's own user namespace only; mossnet itself is run
//! by an unprivileged user, as everywhere.

mod ports;
mod uplink;

use crate::world::{Builder, World};

/// All that these tests need.
const GRANTS: &str = r#"
[[grant]]
user = 1000
verbs = ["uplink", "bind"]
subnets = ["10.200.0.0/16", "fd00:200::/48"]
ports = ["53/udp", "80/tcp"]
"#;

fn world() -> Builder {
    World::builder().privileged()
}
