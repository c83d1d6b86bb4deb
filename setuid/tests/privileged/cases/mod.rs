//! The tests.

mod bind;
mod bridge;
mod check;
mod crash;
mod hostile;
mod namespaces;
mod policy;
mod ports;
mod uplink;

use crate::world::World;

type Case = (&'static str, fn(&World));

/// Every test.
pub const ALL: &[Case] = &[
    (
        "privileged::policy::what_is_granted_is_told",
        policy::what_is_granted_is_told,
    ),
    (
        "privileged::policy::files_of_others_grant_nothing",
        policy::files_of_others_grant_nothing,
    ),
    (
        "privileged::policy::a_group_is_the_callers_own",
        policy::a_group_is_the_callers_own,
    ),
    (
        "privileged::policy::requests_run_out",
        policy::requests_run_out,
    ),
    (
        "privileged::check::tells_who_may_do_what",
        check::tells_who_may_do_what,
    ),
    (
        "privileged::namespaces::veth_joins_own_namespaces",
        namespaces::veth_joins_own_namespaces,
    ),
    (
        "privileged::namespaces::others_are_refused",
        namespaces::others_are_refused,
    ),
    (
        "privileged::namespaces::release_is_for_owners",
        namespaces::release_is_for_owners,
    ),
    (
        "privileged::bind::granted_ports_only",
        bind::granted_ports_only,
    ),
    (
        "privileged::bind::one_slot_for_two_hundred",
        bind::one_slot_for_two_hundred,
    ),
    ("privileged::bridge::refusals", bridge::refusals),
    (
        "privileged::bridge::a_port_sends_as_itself_only",
        bridge::a_port_sends_as_itself_only,
    ),
    (
        "privileged::bridge::ports_are_isolated",
        bridge::ports_are_isolated,
    ),
    (
        "privileged::uplink::containers_reach_the_world",
        uplink::containers_reach_the_world,
    ),
    (
        "privileged::uplink::nobody_reaches_anothers_containers",
        uplink::nobody_reaches_anothers_containers,
    ),
    (
        "privileged::uplink::subnets_are_checked",
        uplink::subnets_are_checked,
    ),
    (
        "privileged::uplink::what_is_missing_is_told",
        uplink::what_is_missing_is_told,
    ),
    ("privileged::uplink::subnets_change", uplink::subnets_change),
    (
        "privileged::uplink::dead_owners_leave_nothing",
        uplink::dead_owners_leave_nothing,
    ),
    (
        "privileged::ports::clients_keep_their_address",
        ports::clients_keep_their_address,
    ),
    (
        "privileged::ports::a_port_must_be_held",
        ports::a_port_must_be_held,
    ),
    (
        "privileged::crash::kill_leaks_nothing",
        crash::kill_leaks_nothing,
    ),
    (
        "privileged::crash::a_damaged_record_grants_nothing",
        crash::a_damaged_record_grants_nothing,
    ),
    ("privileged::hostile::starts", hostile::starts),
    ("privileged::hostile::requests", hostile::requests),
    (
        "privileged::hostile::not_in_a_container",
        hostile::not_in_a_container,
    ),
    (
        "privileged::hostile::setuid_root_is_the_same",
        hostile::setuid_root_is_the_same,
    ),
];
