//! Ports below ip_unprivileged_port_start.
