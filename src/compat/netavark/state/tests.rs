//! What is remembered, and what rules follow from it.

use super::*;
use crate::compat::netavark::plan::plan;
use crate::compat::netavark::ports::ports;
use crate::compat::netavark::tests::{request, whole};
use std::path::Path;

fn container(id: &str, netns: &str) -> Container {
    let mut value = whole();
    value["container_id"] = id.into();
    let request = request(&value);
    let plans = plan(&request).unwrap();
    let ports = ports(request.port_mappings.as_deref().unwrap()).unwrap();
    Container::of(id, (Path::new(netns), 7), &plans, ports)
}

#[test]
fn the_record_survives_and_an_empty_one_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("networks");
    let mut state = State::open(&place).unwrap();
    assert_eq!(state.record, Record::default());
    assert_eq!(state.record.add(container("a", "/n/a")), None);
    state.save().unwrap();
    let saved = state.record.clone();
    drop(state);
    let mut state = State::open(&place).unwrap();
    assert_eq!(state.record, saved);
    state.record.remove("a", ["front", "back"].into_iter());
    state.save().unwrap();
    assert!(!place.join(FILE).exists());
    fs::write(place.join(FILE), "{torn").unwrap();
    drop(state);
    assert_eq!(State::open(&place).unwrap().record, Record::default());
}

#[test]
fn the_first_of_two_has_the_port_and_targets_follow_the_networks() {
    let mut record = Record::default();
    record.add(container("a", "/n/a"));
    record.add(container("b", "/n/b"));
    let forwards = record.forwards();
    // Two ports, two protocols, two families, two containers.
    assert_eq!(forwards.len(), 16);
    assert_eq!(forwards[0].target, "10.77.0.5:80".parse().unwrap());
    assert_eq!(record.segments().len(), 2);
    // The internal network is no target.
    record.remove("a", ["front"].into_iter());
    assert_eq!(record.forwards().len(), 8);
    assert_eq!(record.containers[0].networks.len(), 1);
}

#[test]
fn lives_follow_one_another() {
    let mut record = Record::default();
    record.add(container("a", "/n/a"));
    assert_eq!(record.add(container("a", "/n/a")), None, "the same again");
    assert_eq!(record.containers.len(), 1);
    let former = record.add(container("a", "/n/new")).unwrap();
    assert_eq!(former.netns, Path::new("/n/a"));
    let mut other = container("a", "/n/new");
    other.inode = 8;
    assert!(record.add(other).is_some(), "another one at the same place");
    let dead = record.forget_the_dead(|container| container.netns != Path::new("/n/new"));
    assert_eq!((dead.len(), record.containers.len()), (1, 0));
}

#[test]
fn a_name_server_at_another_port_is_led_to() {
    let mut record = Record::default();
    let mut with = container("a", "/n/a");
    with.ports.clear();
    with.dns_port = Some(5300);
    record.add(with);
    let forwards = record.forwards();
    assert_eq!(forwards.len(), 4, "both gateways, both protocols");
    assert_eq!(forwards[0].host_addr, Some("10.77.0.1".parse().unwrap()));
    assert_eq!(forwards[0].target, "10.77.0.1:5300".parse().unwrap());
}
