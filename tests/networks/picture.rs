//! What shows networks: the graph, completion of names, formats.

use crate::world::{World, installed};

#[test]
fn the_graph_shows_who_is_where() {
    World::test(|world| {
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world
            .network("create --internal --subnet 172.31.2.0/24 vault")
            .ok();
        world.sleeper("web", "--network mynet --network vault");
        world.sleeper("db", "--network vault:ip=172.31.2.77");
        for format in ["text", "dot", "mermaid", "svg"] {
            let picture = world.network(&format!("graph --format {format}")).ok();
            for word in [
                "mynet",
                "vault",
                "web",
                "db",
                "172.31.1.2",
                "172.31.2.77",
                "bridge",
            ] {
                assert!(picture.contains(word), "{word} in {format}: {picture}");
            }
        }
        let text = world.network("graph").ok();
        assert_eq!(text, world.network("graph --format text").ok());
        let svg = world.network("graph --format svg").ok();
        let script = "import sys,xml.dom.minidom as m; print(m.parseString(sys.stdin.read()).documentElement.tagName)";
        let root = world.user(["python3", "-c", script]).stdin(svg).ok();
        assert_eq!(root.trim(), "svg");
        world.network("disconnect vault web").ok();
        let less = world.network("graph").ok();
        assert_eq!(
            less.matches("web").count() + 1,
            text.matches("web").count(),
            "{less}"
        );
        world.mossnet(["rm", "-f", "web", "db"]).ok();
    });
}

/// What bash offers after `line`, with the completion script that mossnet prints.
fn offered(world: &World, line: &str) -> String {
    let script = format!(
        "source <(mossnet completion bash)\n\
         COMP_WORDS=({line}) COMP_LINE={line:?} COMP_POINT=${{#COMP_LINE}} COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)) COMP_TYPE=9\n\
         complete=$(complete -p mossnet | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
         $complete mossnet \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" >/dev/null\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    world.user(["bash", "-c", &script]).ok()
}

#[test]
fn completion_knows_networks_and_sandboxes() {
    World::test(|world| {
        if !installed("bash") {
            return;
        }
        world.network("create mynet").ok();
        world.network("create other").ok();
        world.sleeper("mybox", "--network mynet");
        let root = crate::world::ROOT;
        let rm = offered(world, &format!("mossnet --root {root} network rm my"));
        assert!(rm.contains("mynet") && !rm.contains("other"), "{rm}");
        let stop = offered(world, &format!("mossnet --root {root} stop my"));
        assert!(stop.contains("mybox") && !stop.contains("mynet"), "{stop}");
        let connect = offered(world, &format!("mossnet --root {root} network connect oth"));
        assert!(connect.contains("other"), "{connect}");
        let connect = offered(
            world,
            &format!("mossnet --root {root} network connect other my"),
        );
        assert!(connect.contains("mybox"), "{connect}");
        world.mossnet(["rm", "-f", "mybox"]).ok();
    });
}
