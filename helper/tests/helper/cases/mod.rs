//! The tests.

mod bare;
mod endpoints;
mod lifetime;
mod listeners;
mod network;
mod requests;
mod scale;
mod spoofing;

use crate::client::Client;
use crate::world::*;
use mossnet_helper::request::{Failure, FailureKind, Request};

/// Needs a /dev/net/tun that everyone may use.
pub const EXTERNAL: &str = "external_uplinks";
/// Needs an administrator who forbids user namespaces.
pub const FORBIDDEN: &str = "user_namespaces_forbidden";

pub const ALL: &[(&str, fn())] = &[
    ("sandboxes_on_a_bridge", network::sandboxes_on_a_bridge),
    (
        "root_in_a_sandbox_has_no_power_over_the_router",
        network::no_power_over_the_router,
    ),
    ("networks_are_isolated", network::networks_are_isolated),
    (
        "networks_leave_by_the_hosts_link",
        network::networks_leave_by_the_hosts_link,
    ),
    ("requests_repeat_safely", requests::requests_repeat_safely),
    ("failures_leave_nothing", requests::failures_leave_nothing),
    ("uplinks_that_fail", requests::uplinks_that_fail),
    (EXTERNAL, requests::external_uplinks),
    (FORBIDDEN, lifetime::user_namespaces_forbidden),
    (
        "bad_requests_are_answered",
        requests::bad_requests_are_answered,
    ),
    ("bridges_change_in_place", network::bridges_change_in_place),
    (
        "relay_is_started_and_restarted",
        lifetime::relay_is_started_and_restarted,
    ),
    (
        "listeners_are_kept_for_every_relay",
        listeners::listeners_are_kept_for_every_relay,
    ),
    (
        "relays_know_where_endpoints_are",
        endpoints::relays_know_where_endpoints_are,
    ),
    (
        "a_new_daemon_finds_everything",
        lifetime::a_new_daemon_finds_everything,
    ),
    (
        "one_helper_for_each_socket",
        lifetime::one_helper_for_each_socket,
    ),
    ("sigterm_ends_everything", lifetime::sigterm_ends_everything),
    ("death_ends_everything", lifetime::death_ends_everything),
    (
        "capabilities_are_trimmed",
        lifetime::capabilities_are_trimmed,
    ),
    ("many_sandboxes", network::many_sandboxes),
    ("bare_sandboxes", bare::bare_sandboxes),
    ("adopted_sandboxes", bare::adopted_sandboxes),
    (
        "endpoints_of_running_sandboxes",
        bare::endpoints_of_running_sandboxes,
    ),
    (
        "links_go_whoever_removes_them",
        bare::links_go_whoever_removes_them,
    ),
    ("default_routes_move", bare::default_routes_move),
    ("isolation_and_vlans", bare::isolation_and_vlans),
    (
        "only_own_addresses_are_sent",
        spoofing::only_own_addresses_are_sent,
    ),
    (
        "multi_homed_sandboxes_do_not_forward",
        spoofing::multi_homed_sandboxes_do_not_forward,
    ),
    (
        "several_prefixes_are_isolated",
        spoofing::several_prefixes_are_isolated,
    ),
    (
        "more_endpoints_than_ports",
        scale::more_endpoints_than_ports,
    ),
];

fn with_bridge() -> (World, Client) {
    let world = World::new();
    let mut client = world.connect();
    client.done(Request::Bridge(bridge()));
    client.done(Request::Ruleset {
        networks: vec![network(false)],
    });
    (world, client)
}

fn shut_down(world: World, mut client: Client) {
    client.done(Request::Shutdown);
    assert_eq!(client.frame(), None);
    world.ended();
}

fn refused(client: &mut Client, request: Request, kind: FailureKind) -> Failure {
    let what = format!("{request:?}");
    let failure = client.ask(request).expect_err(&what);
    assert_eq!(failure.kind, kind, "{what}: {failure}");
    failure
}
