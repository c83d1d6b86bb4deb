//! The `tracing` subscriber, one for each of our processes, and what fields are called.
//!
//! A log message is constant text; what varies stands in dotted fields: `sandbox.id`,
//! `network.name`, `endpoint.ifname`, `flow.client`, `flow.destination`, `request`, `error`.

/// Sends events of this process to stderr. `MOSSNET_LOG` selects them (default `info`), in the
/// syntax of `tracing_subscriber::EnvFilter`.
pub fn init() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOSSNET_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second call (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
