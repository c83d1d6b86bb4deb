//! A sandbox as an ordered list of helper requests, each with the request that undoes it.
//!
//! Path: `daemon::session` builds it, `daemon::apply` performs it. Invariant: every undo is safe to
//! repeat and succeeds on what is already gone, so a plan that broke off anywhere can be undone
//! whole.

use super::model::Endpoint;
use super::routes::{default_gateways, default_routes};
use super::sandbox::{NetworkModeRecord, Sandbox};
use mossnet_helper::SandboxId;
use mossnet_helper::request::{
    Bind, EndpointSpec, ExecSpec, ProcessSpec, Request, SandboxNetns, SandboxSpec,
};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// One request and its undo.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// To perform.
    pub request: Request,
    /// Takes it back.
    pub undo: Option<Request>,
}

/// Steps in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
}

/// What a sandbox's plan needs besides its record.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Directory with its `hosts`, `resolv.conf` and `hostname`; another sandbox's for
    /// `container:`.
    pub etc: &'a Path,
    /// The runtime directory, hidden inside.
    pub runtime: &'a Path,
}

/// Makes the namespaces, then joins them to the networks.
pub fn sandbox_plan(sandbox: &Sandbox, places: Places<'_>) -> Plan {
    let id = sandbox.id.clone();
    let create = Step {
        request: Request::CreateSandbox(Box::new(sandbox_spec(sandbox, places))),
        undo: Some(Request::Forget { id }),
    };
    let attach = sandbox.endpoints.iter().map(|endpoint| {
        let routes = default_gateways(&sandbox.endpoints, endpoint);
        attach_step(&sandbox.id, endpoint, routes)
    });
    Plan {
        steps: std::iter::once(create).chain(attach).collect(),
    }
}

/// Joins a made sandbox to the network of one of its endpoints, and moves the default routes if that
/// changes them.
pub fn connect_plan(sandbox: &Sandbox, endpoint: &Endpoint) -> Plan {
    let others: Vec<_> = (sandbox.endpoints.iter())
        .filter(|other| other.id != endpoint.id)
        .cloned()
        .collect();
    let attach = attach_step(&sandbox.id, endpoint, Vec::new());
    let moved = move_routes(&sandbox.id, &others, &sandbox.endpoints);
    Plan {
        steps: std::iter::once(attach).chain(moved).collect(),
    }
}

/// Takes a made sandbox off the network of one of its endpoints; the default routes move to what is
/// left.
pub fn disconnect_plan(sandbox: &Sandbox, endpoint: &Endpoint) -> Plan {
    let left: Vec<_> = (sandbox.endpoints.iter())
        .filter(|other| other.id != endpoint.id)
        .cloned()
        .collect();
    let routes = default_gateways(&sandbox.endpoints, endpoint);
    let attach = attach_step(&sandbox.id, endpoint, routes);
    let detach = Step {
        request: detach(endpoint),
        undo: Some(attach.request),
    };
    let moved = move_routes(&sandbox.id, &sandbox.endpoints, &left);
    Plan {
        steps: std::iter::once(detach).chain(moved).collect(),
    }
}

/// The default routes of a sandbox, as they should be.
pub fn routes_request(sandbox: &SandboxId, endpoints: &[Endpoint]) -> Request {
    Request::DefaultRoutes {
        sandbox: sandbox.clone(),
        routes: default_routes(endpoints),
    }
}

fn move_routes(sandbox: &SandboxId, from: &[Endpoint], to: &[Endpoint]) -> Option<Step> {
    if default_routes(from) == default_routes(to) {
        return None;
    }
    Some(Step {
        request: routes_request(sandbox, to),
        undo: Some(routes_request(sandbox, from)),
    })
}

fn attach_step(sandbox: &SandboxId, endpoint: &Endpoint, routes: Vec<IpAddr>) -> Step {
    Step {
        request: attach(sandbox, endpoint, routes),
        undo: Some(detach(endpoint)),
    }
}

/// Joins a sandbox to a bridge, with these default routes.
pub fn attach(sandbox: &SandboxId, endpoint: &Endpoint, default_routes: Vec<IpAddr>) -> Request {
    Request::Attach(EndpointSpec {
        sandbox: sandbox.clone(),
        bridge: endpoint.bridge.clone(),
        router_ifname: endpoint.router_ifname.clone(),
        ifname: endpoint.ifname.clone(),
        mac: endpoint.mac,
        mtu: endpoint.mtu,
        addresses: endpoint.addresses.clone(),
        default_routes,
        bandwidth: endpoint.bandwidth,
    })
}

/// Takes a sandbox out of the kernel, whatever of it is there.
///
/// The namespace goes last: while the kernel takes one down, whoever removes a link waits for it.
pub fn teardown(sandbox: &SandboxId, endpoints: &[Endpoint]) -> Vec<Request> {
    let id = sandbox.clone();
    let detach = endpoints.iter().map(detach);
    detach.chain([Request::Forget { id }]).collect()
}

/// Removes an endpoint's veth pair.
pub fn detach(endpoint: &Endpoint) -> Request {
    Request::Detach {
        router_ifname: endpoint.router_ifname.clone(),
    }
}

fn sandbox_spec(sandbox: &Sandbox, places: Places<'_>) -> SandboxSpec {
    let etc_file = |name: &str| Bind {
        source: places.etc.join(name),
        target: PathBuf::from("/etc").join(name),
    };
    let binds = match sandbox.bare {
        true => Vec::new(),
        false => ["hosts", "resolv.conf", "hostname"].map(etc_file).to_vec(),
    };
    SandboxSpec {
        id: sandbox.id.clone(),
        hostname: sandbox.hostname.clone(),
        netns: match &sandbox.mode {
            _ if sandbox.adopted.is_some() => SandboxNetns::Given,
            NetworkModeRecord::Network(_) | NetworkModeRecord::None => SandboxNetns::Own,
            NetworkModeRecord::Host => SandboxNetns::Host,
            NetworkModeRecord::Container { id, .. } => SandboxNetns::Join(id.clone()),
        },
        rootfs: sandbox.rootfs.clone(),
        binds,
        masks: (!sandbox.bare)
            .then(|| places.runtime.to_path_buf())
            .into_iter()
            .collect(),
        capabilities: sandbox.capabilities.clone(),
        process: (!sandbox.bare).then(|| ProcessSpec {
            argv: sandbox.command.clone(),
            env: sandbox.env.clone(),
            workdir: sandbox.workdir.clone(),
            tty: sandbox.tty,
        }),
    }
}

/// A further process in a running sandbox: its environment with `env` on top.
pub fn exec_spec(
    sandbox: &Sandbox,
    id: SandboxId,
    command: Vec<String>,
    env: Vec<(String, String)>,
    workdir: Option<PathBuf>,
    tty: bool,
) -> ExecSpec {
    let mut whole = sandbox.env.clone();
    if tty && !whole.iter().any(|(name, _)| name == "TERM") {
        whole.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    merge_env(&mut whole, env);
    ExecSpec {
        id,
        sandbox: sandbox.id.clone(),
        process: ProcessSpec {
            argv: command,
            env: whole,
            workdir: workdir.or_else(|| sandbox.workdir.clone()),
            tty,
        },
    }
}

/// Sets each of `added` in `env`; a name occurs once.
pub fn merge_env(env: &mut Vec<(String, String)>, added: Vec<(String, String)>) {
    for (name, value) in added {
        match env.iter_mut().find(|(have, _)| *have == name) {
            Some(entry) => entry.1 = value,
            None => env.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    fn plan_of(sandbox: &Sandbox) -> Plan {
        let places = Places {
            etc: Path::new("/run/m/sandboxes/1"),
            runtime: Path::new("/run/m"),
        };
        sandbox_plan(sandbox, places)
    }

    #[test]
    fn namespaces_come_before_endpoints_and_each_step_has_an_undo() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        let plan = plan_of(&sandbox);
        let [create, attach] = &plan.steps[..] else {
            panic!("{plan:?}")
        };
        let Request::CreateSandbox(spec) = &create.request else {
            panic!("{create:?}")
        };
        assert_eq!(spec.netns, SandboxNetns::Own);
        assert_eq!(
            spec.binds[1].source,
            Path::new("/run/m/sandboxes/1/resolv.conf")
        );
        assert_eq!(spec.binds[1].target, Path::new("/etc/resolv.conf"));
        assert_eq!(spec.masks, [Path::new("/run/m")]);
        assert!(matches!(&attach.request, Request::Attach(e) if e.ifname.as_str() == "eth0"));
        assert!(matches!(create.undo, Some(Request::Forget { .. })));
        assert!(matches!(attach.undo, Some(Request::Detach { .. })));
        let torn = teardown(&sandbox.id, &sandbox.endpoints);
        assert!(matches!(
            torn[..],
            [Request::Detach { .. }, Request::Forget { .. }]
        ));
    }

    /// On two networks that both lead outside.
    fn multihomed() -> Sandbox {
        let first = samples::network("first", 1, "10.89.3.0/24");
        let second = samples::network("second", 3, "10.89.4.0/24");
        let mut web = samples::sandbox("web", 2, &first, "10.89.3.2/24");
        let endpoint = samples::endpoint(0x77, &second, "10.89.4.2/24", 1);
        web.endpoints.push(endpoint);
        web
    }

    fn words(plan: &Plan) -> Vec<String> {
        let word = |request: &Request| match request {
            Request::CreateSandbox(_) => "create".to_owned(),
            Request::Attach(spec) => format!("attach {} {:?}", spec.ifname, spec.default_routes),
            Request::Detach { .. } => "detach".to_owned(),
            Request::DefaultRoutes { routes, .. } => {
                let names: Vec<_> = routes.iter().map(|route| route.ifname.as_str()).collect();
                format!("routes {}", names.join(","))
            }
            other => format!("{other:?}"),
        };
        plan.steps.iter().map(|step| word(&step.request)).collect()
    }

    #[test]
    fn a_sandbox_on_several_networks_is_made_with_one_default_route() {
        let expected = ["create", "attach eth0 [10.89.3.1]", "attach eth1 []"];
        assert_eq!(words(&plan_of(&multihomed())), expected);
    }

    #[test]
    fn the_default_route_moves_only_where_it_must() {
        let mut web = multihomed();
        let later = web.endpoints[1].clone();
        assert_eq!(words(&connect_plan(&web, &later)), ["attach eth1 []"]);
        assert_eq!(words(&disconnect_plan(&web, &later)), ["detach"]);
        let first = web.endpoints[0].clone();
        assert_eq!(
            words(&disconnect_plan(&web, &first)),
            ["detach", "routes eth1"]
        );
        web.endpoints[1].gw_priority = 1;
        let later = web.endpoints[1].clone();
        let plan = connect_plan(&web, &later);
        assert_eq!(words(&plan), ["attach eth1 []", "routes eth1"]);
        let undone = plan.steps[1].undo.clone().unwrap();
        assert_eq!(undone, routes_request(&web.id, &web.endpoints[..1]));
        web.endpoints.truncate(1);
        let last = web.endpoints[0].clone();
        assert_eq!(words(&disconnect_plan(&web, &last)), ["detach", "routes "]);
    }

    #[test]
    fn a_bare_sandbox_has_no_process_and_nothing_to_hide() {
        let mut bare = multihomed();
        bare.bare = true;
        let plan = plan_of(&bare);
        assert!(
            matches!(&plan.steps[0].request, Request::CreateSandbox(spec)
                if spec.process.is_none() && spec.binds.is_empty() && spec.masks.is_empty())
        );
    }

    #[test]
    fn modes_choose_the_netns() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let mut sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        sandbox.endpoints.clear();
        let other = SandboxId::from([9; 32]);
        let join = NetworkModeRecord::Container {
            id: other.clone(),
            name: "o".parse().unwrap(),
        };
        for (mode, netns) in [
            (NetworkModeRecord::None, SandboxNetns::Own),
            (NetworkModeRecord::Host, SandboxNetns::Host),
            (join, SandboxNetns::Join(other)),
        ] {
            sandbox.mode = mode;
            let plan = plan_of(&sandbox);
            assert!(
                matches!(&plan.steps[..], [Step { request: Request::CreateSandbox(s), .. }] if s.netns == netns)
            );
        }
    }

    #[test]
    fn exec_adds_to_the_environment() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let mut sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        sandbox.env = vec![("A".into(), "1".into()), ("B".into(), "2".into())];
        let added = vec![("B".into(), "3".into())];
        let spec = exec_spec(
            &sandbox,
            SandboxId::from([7; 32]),
            vec!["x".into()],
            added,
            None,
            true,
        );
        let env: Vec<_> = spec
            .process
            .env
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(env, ["A=1", "B=3", "TERM=xterm"]);
    }
}
