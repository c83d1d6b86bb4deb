//! Ports below ip_unprivileged_port_start.

use super::uplink::prepared;
use super::world;
use crate::publish::ports::{tell, told};
use crate::publish::{HOST, HOST6, at, udp_client, udp_seen};
use crate::world::{eventually, seconds};

#[test]
fn low_ports_come_from_the_helper() {
    world().test(|world| {
        let flags = ["-p", "80:80", "-p", "53:53/udp"];
        let run = ["run", "-d", "--name", "web", "-p", "80:80", "--", "true"];
        let refused = world.mossnet(run).fails(125).expect_one_clear_line();
        refused
            .expect_text("ip_unprivileged_port_start")
            .expect_text("/etc/mossnet/grants.toml")
            .expect_text("publish 8080");
        prepared(world);
        let doctor = world.mossnet(["doctor"]).ok();
        for part in [
            "/usr/libexec/mossnet-helper, cap_net_bind_service,cap_net_admin",
            "--uplink kernel for 10.200.0.0/16, fd00:200::/48",
            "mossnet-helper grants 53/udp, 80/tcp",
        ] {
            assert!(doctor.contains(part), "{doctor}");
        }
        tell(world, "web", &flags);
        let served = || {
            for host in [HOST, HOST6] {
                let (seen, stream) = told("server", at(host, 80));
                assert_eq!(seen, stream.local_addr().unwrap());
                let socket = udp_client("server", 0, at(host, 53));
                assert_eq!(udp_seen(&socket), socket.local_addr().unwrap());
            }
        };
        served();
        let other = ["run", "--rm", "-p", "443:80", "--", "true"];
        let refused = world.mossnet(other).fails(125).expect_one_clear_line();
        refused.expect_text("port 443");
        world.mossnet(["stop", "-t", "0", "web"]).ok();
        world.mossnet(["start", "web"]).ok();
        eventually(seconds(20), "the service to listen again", || {
            let logs = world.mossnet(["logs", "web"]).ok();
            logs.matches("serves").count() == 2
        });
        served();
        world.mossnet(["port", "rm", "web", "80:80"]).ok();
        let listed = world.mossnet(["port", "ls", "web"]).ok();
        assert!(!listed.contains("80/tcp"), "{listed}");
    });
}
