//! How fast a stream is, as iperf3 sees it.

use super::Cmd;
use serde_json::Value;

/// Bits per second that arrive from `client` at `server`; with `-R`
/// among the options the other way round. Both lead to a place where iperf3 is started.
#[track_caller]
pub fn rate(server: Cmd, client: Cmd, to: &str, options: &str) -> f64 {
    let server = server.then(["iperf3", "-s", "-1", "--forceflush"]);
    let mut server = server.start();
    server.expect("listening");
    let client = client.then(["iperf3", "-J", "-t", "2", "-c", to]);
    let report = client.then(options.split_whitespace()).ok();
    server.wait().expect_code(0);
    let report: Value = serde_json::from_str(&report).expect("JSON from iperf3");
    let rate = &report["end"]["sum_received"]["bits_per_second"];
    rate.as_f64()
        .unwrap_or_else(|| panic!("no rate in {report}"))
}

/// Never above `limit`, but for what was saved up before; on a busy machine perhaps below.
#[track_caller]
pub fn is_held_to(limit: f64, measure: impl Fn() -> f64) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let rate = measure();
        println!("{:.2} Mbit/s, held to {:.0}", rate / 1e6, limit / 1e6);
        assert!(rate < limit * 1.4, "{rate} is more than {limit}");
        if rate > limit * 0.5 {
            return;
        }
        seen.push(rate);
    }
    panic!("{seen:?} are far below {limit}");
}
