//! The loads of a round, and the rows that each gives.

use crate::results::Better;

/// One load of one contender.
pub struct Measure {
    /// As the user chooses it.
    pub group: &'static str,
    /// Name of its first row, and beginning of the names of the others.
    pub title: &'static str,
    /// Of the load generator, with its number.
    pub load: (&'static str, usize),
    /// In the container the congestion control of the host instead of reno.
    pub hosts_control: bool,
    /// While a bulk stream goes out beside it.
    pub loaded: bool,
    /// For contenders of the stream rows, too.
    pub streams: bool,
    /// Its rows.
    pub rows: &'static [Row],
}

/// How a row comes out of a load.
pub struct Row {
    /// After the title.
    pub suffix: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub source: Source,
}

pub enum Source {
    /// As the load generator names it.
    Value(&'static str),
    /// Seconds of the carrying processes for so many of what it names.
    Processor(&'static str, f64),
}

use Better::{Higher, Lower};
use Source::{Processor, Value};

const fn row(suffix: &'static str, unit: &'static str, better: Better, source: Source) -> Row {
    Row {
        suffix,
        unit,
        better,
        source,
    }
}

const RATE: Row = row("", "1/s", Higher, Value("rate"));
const P50: Row = row(", p50", "µs", Lower, Value("p50"));
const P99: Row = row(", p99", "µs", Lower, Value("p99"));
const LOST: Row = row(", lost", "%", Lower, Value("lost"));

const STREAM: &[Row] = &[row("", "Gbit/s", Higher, Value("rate"))];
const STREAM_AND_CPU: &[Row] = &[
    row("", "Gbit/s", Higher, Value("rate")),
    row(
        ", CPU of the helper",
        "s/GB",
        Lower,
        Processor("bytes", 1e9),
    ),
];
const EXCHANGE: &[Row] = &[RATE, P50, P99];
const CONNECT: &[Row] = &[
    RATE,
    P50,
    P99,
    row(
        ", CPU of the helper",
        "s/10,000",
        Lower,
        Processor("done", 1e4),
    ),
];
const LATENCY: &[Row] = &[P50, P99];
const FLOOD: &[Row] = &[RATE, row(", bits", "Gbit/s", Higher, Value("gbit")), LOST];
const SEGMENTS: &[Row] = &[
    row("", "Gbit/s", Higher, Value("gbit")),
    LOST,
    row(
        ", CPU of the helper",
        "s/GB",
        Lower,
        Processor("bytes", 1e9),
    ),
];
const NAMES: &[Row] = &[RATE, LOST];

const fn measure(
    group: &'static str,
    title: &'static str,
    load: (&'static str, usize),
    rows: &'static [Row],
) -> Measure {
    Measure {
        group,
        title,
        load,
        hosts_control: false,
        loaded: false,
        streams: false,
        rows,
    }
}

const fn stream(title: &'static str, load: (&'static str, usize), rows: &'static [Row]) -> Measure {
    Measure {
        streams: true,
        ..measure("tcp", title, load, rows)
    }
}

const fn hosts(measure: Measure) -> Measure {
    Measure {
        hosts_control: true,
        ..measure
    }
}

const fn loaded(title: &'static str, load: (&'static str, usize)) -> Measure {
    Measure {
        loaded: true,
        ..measure("latency", title, load, LATENCY)
    }
}

/// Added to the title of a stream whose container has the host's congestion control.
pub const HOSTS_CONTROL: &str = ", host's control inside";

/// All of them.
pub const ALL: &[Measure] = &[
    stream("TCP out, 1 stream", ("stream-out", 1), STREAM_AND_CPU),
    stream("TCP in, 1 stream", ("stream-in", 1), STREAM_AND_CPU),
    stream("TCP out, 4 streams", ("stream-out", 4), STREAM),
    stream("TCP in, 4 streams", ("stream-in", 4), STREAM),
    hosts(stream(
        "TCP out, 1 stream, host's control inside",
        ("stream-out", 1),
        STREAM,
    )),
    hosts(stream(
        "TCP out, 4 streams, host's control inside",
        ("stream-out", 4),
        STREAM,
    )),
    measure(
        "requests",
        "requests, 1 connection",
        ("requests", 1),
        EXCHANGE,
    ),
    measure(
        "requests",
        "requests, 32 connections",
        ("requests", 32),
        EXCHANGE,
    ),
    measure(
        "requests",
        "requests, 256 connections",
        ("requests", 256),
        EXCHANGE,
    ),
    measure(
        "connections",
        "connections, 1 at once",
        ("connections", 1),
        CONNECT,
    ),
    measure(
        "connections",
        "connections, 32 at once",
        ("connections", 32),
        CONNECT,
    ),
    measure(
        "connections",
        "connections, 256 at once",
        ("connections", 256),
        CONNECT,
    ),
    loaded(
        "requests beside a stream out, 1 connection",
        ("requests", 1),
    ),
    loaded(
        "connections beside a stream out, 1 at once",
        ("connections", 1),
    ),
    loaded("UDP echoes beside a stream out, 1 flow", ("echoes", 1)),
    measure("udp", "UDP out, 64 bytes", ("flood-out", 64), FLOOD),
    measure("udp", "UDP in, 64 bytes", ("flood-in", 64), FLOOD),
    measure("udp", "UDP out, 1,400 bytes", ("flood-out", 1400), FLOOD),
    measure("udp", "UDP in, 1,400 bytes", ("flood-in", 1400), FLOOD),
    measure(
        "quic",
        "UDP out, GSO sender",
        ("segments-out", 1400),
        SEGMENTS,
    ),
    measure("dns", "DNS queries", ("names", 32), NAMES),
];
