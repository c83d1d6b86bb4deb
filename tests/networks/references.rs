//! What a sandbox or a network may be called: its name, its id, or a beginning of its id that is no
//! short word.

use crate::world::World;

/// Whole id of a sandbox.
fn id_of(world: &World, name: &str) -> String {
    let info = world.inspect(name);
    info["Id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_short_word_is_nobodys_id() {
    World::test(|world| {
        let network = world.network("create mynet").ok().trim().to_owned();
        world.sleeper("web", "");
        let id = id_of(world, "web");
        for digits in [1, 3] {
            let (short, net) = (&id[..digits], &network[..digits]);
            for line in [
                format!("stop {short}"),
                format!("rm -f {short} nobody-else"),
                format!("network connect mynet {short}"),
                format!("run --rm --network container:{short} -- true"),
                format!("run --rm --network mynet --link {short}:db -- true"),
                format!("exec {short} -- true"),
                format!("port {short}"),
            ] {
                let refused = world.line(&line).run();
                let silent = line.starts_with("rm -f");
                assert_eq!(refused.code == 0, silent, "{refused}");
                assert!(refused.stdout.is_empty(), "{refused}");
                if !silent {
                    refused.expect_text(&format!("no such sandbox: {short}"));
                }
            }
            let refused = world.refuses(&format!("network rm {net}"), "no such network");
            assert!(refused.stderr.contains("first 4 digits"), "{refused}");
            world.refuses(
                &format!("run --rm --network {net} -- true"),
                "no such network",
            );
        }
        let (short, net) = (&id[..4], &network[..4]);
        world.network(&format!("connect {net} {short}")).ok();
        assert!(world.endpoint(short, "mynet").is_object());
        for options in [
            format!("--network container:{short}"),
            format!("--network {net} --link {short}:db"),
        ] {
            world.line(&format!("run --rm {options} -- true")).ok();
        }
        world.network(&format!("disconnect {net} {short}")).ok();
        assert_eq!(world.line(&format!("rm -f {short}")).ok().trim(), short);
        assert_eq!(world.network(&format!("rm {net}")).ok().trim(), net);
    });
}

#[test]
fn a_name_wins_over_the_beginning_of_an_id() {
    World::test(|world| {
        world.sleeper("web", "");
        let id = id_of(world, "web");
        let short = &id[..6];
        world.network(&format!("create {short}")).ok();
        // A sandbox by the beginning of its id, unless a network has that very name.
        let shown = world.mossnet(["inspect", short]).ok();
        assert!(shown.contains("\"IPAM\""), "{shown}");
        world.sleeper(short, &format!("--network {short}"));
        assert_eq!(world.inspect(short)["Name"], short);
        assert_eq!(world.inspect(&id[..7])["Name"], "web");
        // Even a whole id may be a name: the id is whose it is.
        world.sleeper(&id, "");
        assert_eq!(world.inspect(&id)["Name"], "web");
        world.line("stop -t 0 web").ok();
        assert_eq!(world.inspect(&id)["State"], "exited");
        assert_eq!(world.line("rm web").ok().trim(), "web");
        assert_eq!(world.inspect(&id)["Name"], id.as_str());
        world.mossnet(["rm", "-f", &id, short]).ok();
        world.network(&format!("rm {short}")).ok();
    });
}

#[test]
fn predefined_networks_have_ids_too() {
    World::test(|world| {
        let listed = world
            .network("ls --no-trunc --format {{.Name}}={{.ID}}")
            .ok();
        for name in ["host", "none"] {
            let mut all = listed.lines().filter_map(|line| line.split_once('='));
            let (_, id) = all.find(|(known, _)| *known == name).expect("its line");
            for text in [name, id, &id[..12], &id[..4]] {
                assert_eq!(world.network_info(text)["Name"], name, "{text}");
                world.refuses(&format!("network rm {text}"), "pre-defined");
            }
            world.refuses(&format!("network inspect {}", &id[..3]), "no such network");
        }
    });
}
