//! mossnet's command line, in its two ways to put something on a network: a network namespace that
//! is made with an endpoint, and an endpoint for a sandbox that runs.

use crate::Contender;
use crate::caller::Caller;
use crate::world::{ROOT, World};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// A network namespace with an endpoint.
pub const NETNS: &str = "mossnet netns create, rm";
/// An endpoint for one that is there.
pub const CONNECT: &str = "mossnet network connect, disconnect";
/// A thousand published ports for a sandbox that runs: netavark has nothing like it.
pub const PORTS: &str = "mossnet port add, rm of 1,000 ports";

struct Mossnet {
    name: &'static str,
    up: &'static [&'static str],
    down: &'static [&'static str],
    caller: Rc<RefCell<Caller>>,
}

/// Both ways, on one network that has a sandbox already; and many ports.
pub fn all(world: &World) -> Vec<Box<dyn Contender>> {
    world
        .mossnet("network create --subnet 10.87.0.0/24 mynet".split(' '))
        .ok();
    world
        .mossnet("run -d --name resident --network mynet -- sleep 100000".split(' '))
        .ok();
    world
        .mossnet("run -d --name box -- sleep 100000".split(' '))
        .ok();
    let prefix = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--"];
    let caller = Rc::new(RefCell::new(Caller::start(&prefix)));
    let make = |name, up, down| -> Box<dyn Contender> {
        let caller = Rc::clone(&caller);
        Box::new(Mossnet {
            name,
            up,
            down,
            caller,
        })
    };
    vec![
        make(
            NETNS,
            &["netns", "create", "guest", "--network", "mynet"],
            &["rm", "-f", "guest"],
        ),
        make(
            CONNECT,
            &["network", "connect", "mynet", "box"],
            &["network", "disconnect", "mynet", "box"],
        ),
        make(
            PORTS,
            &["port", "add", "resident", "20000-20999:20000-20999"],
            &["port", "rm", "resident", "20000-20999:20000-20999"],
        ),
    ]
}

/// Ends what was started.
pub fn clean_up(world: &World) {
    world.mossnet(["rm", "-f", "resident", "box"]).ok();
    world.mossnet(["network", "rm", "mynet"]).ok();
}

impl Mossnet {
    fn call(&self, words: &[&str]) -> Duration {
        let head = ["/run/world/bin/mossnet", "--root", ROOT];
        let argv: Vec<&str> = head.into_iter().chain(words.iter().copied()).collect();
        self.caller.borrow_mut().call(&argv, "")
    }
}

impl Contender for Mossnet {
    fn name(&self) -> &'static str {
        self.name
    }

    fn set_up(&mut self) -> Duration {
        self.call(self.up)
    }

    fn tear_down(&mut self) -> Duration {
        self.call(self.down)
    }
}
