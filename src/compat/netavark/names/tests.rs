//! The name server's files.

use super::*;

fn names(address: &str, names: &[&str], servers: &[&str]) -> NamesPlan {
    NamesPlan {
        gateways: vec!["10.77.0.1".parse().unwrap(), "fd00:77::1".parse().unwrap()],
        network_servers: Vec::new(),
        addresses: vec![address.parse().unwrap()],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        servers: servers
            .iter()
            .map(|server| server.parse().unwrap())
            .collect(),
        internal: false,
    }
}

#[test]
fn files_are_what_netavark_writes() {
    let directory = tempfile::tempdir().unwrap();
    let server = NameServer::new(directory.path(), None, 53);
    let file = directory.path().join("aardvark-dns/net");
    let text = || fs::read_to_string(&file).unwrap();
    server
        .add("net", "abc", &names("10.77.0.5", &["web", "www"], &[]))
        .unwrap();
    server
        .add(
            "net",
            "abcd",
            &names("fd00:77::6", &["db"], &["192.0.2.1", "192.0.2.2"]),
        )
        .unwrap();
    let both =
        "10.77.0.1,fd00:77::1\nabc 10.77.0.5  web,www\nabcd  fd00:77::6 db 192.0.2.1,192.0.2.2\n";
    assert_eq!(text(), both);
    // Again is instead.
    server
        .add("net", "abc", &names("10.77.0.7", &["web"], &[]))
        .unwrap();
    assert!(text().ends_with("abc 10.77.0.7  web\n") && text().lines().count() == 3);
    server
        .set_servers("net", &["192.0.2.9".parse().unwrap()])
        .unwrap();
    assert!(text().starts_with("10.77.0.1,fd00:77::1 192.0.2.9\n"));
    server.set_servers("net", &[]).unwrap();
    assert!(text().starts_with("10.77.0.1,fd00:77::1\n"));
    // An id that begins like another one is another one.
    assert!(server.remove("net", "abc").unwrap());
    assert!(!server.remove("net", "abc").unwrap());
    assert_eq!(text().lines().count(), 2);
    assert!(server.remove("net", "abcd").unwrap());
    assert!(!file.exists());
    let error = server.set_servers("net", &[]).unwrap_err().to_string();
    assert!(error.contains("'net' has no name server"), "{error}");
}

#[test]
fn a_process_that_is_no_name_server_gets_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let server = NameServer::new(directory.path(), None, 53);
    fs::create_dir(directory.path().join(PROGRAM)).unwrap();
    let pid = directory.path().join(PROGRAM).join(PID_FILE);
    for text in ["", "x", "1", "0", "-1", &std::process::id().to_string()] {
        fs::write(&pid, text).unwrap();
        assert_eq!(server.pid(), None, "{text}");
        server.tell(false).unwrap();
    }
}
