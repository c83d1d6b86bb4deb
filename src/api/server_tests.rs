//! The server over real unix sockets, with a `Control` that answers from memory.

use super::*;
use crate::api::network_types::NetnsAdopt;
use crate::api::types::ErrorBody;
use memory::{Memory, id};
use mossnet_helper::SandboxId;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

#[path = "server_memory.rs"]
mod memory;

struct Served {
    place: tempfile::TempDir,
    control: Arc<Memory>,
    activity: Activity,
    end: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

fn served() -> Served {
    let place = tempfile::tempdir().unwrap();
    let api = UnixListener::bind(place.path().join("api")).unwrap();
    let stdio = UnixListener::bind(place.path().join("stdio")).unwrap();
    let control = Arc::new(Memory::default());
    let activity = Activity::default();
    let (end, ended) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(
        api,
        stdio,
        Arc::clone(&control),
        activity.clone(),
        async {
            let _ = ended.await;
        },
    ));
    Served {
        place,
        control,
        activity,
        end: Some(end),
        task,
    }
}

impl Served {
    fn api(&self) -> PathBuf {
        self.place.path().join("api")
    }
    fn stdio(&self) -> PathBuf {
        self.place.path().join("stdio")
    }
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        ask(&self.api(), method, path, body).await
    }
    async fn refused(&self, method: &str, path: &str, body: &str) -> (u16, ErrorBody) {
        let (status, answer) = self.ask(method, path, body).await;
        let parsed = serde_json::from_str(&answer);
        (
            status,
            parsed.unwrap_or_else(|_| panic!("not an ErrorBody: {answer}")),
        )
    }
}

/// One request by hand, so that the server is not tested by a client with the same mistakes.
async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn every_route_answers_and_is_documented() {
    let served = served();
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    let mut documented = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if method != "parameters" {
                documented.push((method.clone(), path.clone()));
            }
        }
    }
    for (method, path) in super::super::routes::ROUTES {
        let entry = ((*method).to_owned(), (*path).to_owned());
        assert!(documented.contains(&entry), "{method} {path} undocumented");
        documented.retain(|known| *known != entry);
        if *path == "/v1/hold" {
            // Answers at the end only: `who_holds_the_daemon_keeps_it`.
            continue;
        }
        let asked = path
            .replace("{sandbox}", "a")
            .replace("{network}", "bridge")
            .replace("{id}", id().as_str());
        let (status, answer) = served.ask(&method.to_uppercase(), &asked, "").await;
        assert_ne!(status, 405, "{method} {path}");
        assert!(!answer.contains("no such path"), "{method} {path}");
    }
    assert!(documented.is_empty(), "documented only: {documented:?}");
}

#[tokio::test]
async fn requests_reach_the_daemon_with_their_arguments() {
    let served = served();
    let (status, body) = served.ask("GET", "/v1/sandboxes?all=true", "").await;
    assert_eq!((status, body.as_str()), (200, "[]"));
    served.ask("GET", "/v1/sandboxes", "").await;
    assert_eq!(
        served.ask("POST", "/v1/sandboxes/a%20b/stop", "").await.0,
        204
    );
    served
        .ask("POST", "/v1/sandboxes/a/stop?timeout=3", "")
        .await;
    served
        .ask("POST", "/v1/sandboxes/a/kill?signal=9", "")
        .await;
    served.ask("DELETE", "/v1/sandboxes/a?force=true", "").await;
    let (_, exit) = served.ask("GET", "/v1/sandboxes/a/wait", "").await;
    assert_eq!(exit, r#"{"code":3}"#);
    for (method, body) in [("POST", "8080:80"), ("DELETE", "80")] {
        let body = format!("{{\"ports\":[\"{body}\"]}}");
        served.ask(method, "/v1/sandboxes/a/ports", &body).await;
    }
    served.ask("POST", "/v1/shutdown?all=true", "").await;
    served.ask("POST", "/v1/networks", "{\"name\":\"n\"}").await;
    let connect = "{\"sandbox\":\"b\",\"ip\":\"10.9.0.9\"}";
    served.ask("POST", "/v1/networks/n/connect", connect).await;
    served
        .ask("POST", "/v1/networks/n/disconnect", "{\"sandbox\":\"b\"}")
        .await;
    let filters = "{\"filters\":[[\"label\",\"a\"]]}";
    served.ask("POST", "/v1/networks/prune", filters).await;
    served.ask("DELETE", "/v1/networks/n?force=true", "").await;
    served.ask("POST", "/v1/netns", "{}").await;
    let expected = [
        "list true",
        "list false",
        "stop a b 10",
        "stop a 3",
        "kill a 9",
        "remove a true",
        "wait a",
        "add_ports a 8080:80/tcp",
        "remove_ports a 80/tcp",
        "shutdown true",
        "create_network n",
        "connect n b Some(10.9.0.9)",
        "disconnect n b false",
        "prune_networks [(\"label\", \"a\")]",
        "remove_network n true",
        "create_netns None",
    ];
    assert_eq!(served.control.asked(), expected);
}

#[tokio::test]
async fn malformed_requests_say_what_is_wrong() {
    let served = served();
    for (method, path, body, status, word) in [
        ("POST", "/v1/sandboxes", "{", 400, "EOF"),
        ("POST", "/v1/sandboxes", "{\"nonsense\":1}", 400, "nonsense"),
        ("POST", "/v1/sandboxes/a/exec", "[]", 400, "malformed"),
        ("GET", "/v1/sandboxes?all=perhaps", "", 400, "true"),
        ("GET", "/v1/sandboxes?al=true", "", 400, "al"),
        ("POST", "/v1/sandboxes/a/kill?signal=99", "", 400, "99"),
        ("POST", "/v1/sandboxes/a/kill", "", 400, "signal"),
        ("POST", "/v1/exec/xyz/start", "", 400, "xyz"),
        ("GET", "/v1/sandboxes/%ff", "", 400, "UTF-8"),
        ("GET", "/nothing", "", 404, "path"),
        ("PUT", "/v1/info", "", 405, "method"),
        ("GET", "/v1/networks/nope", "", 404, "nope"),
        ("POST", "/v1/networks", "{\"nam\":\"a\"}", 400, "nam"),
        (
            "POST",
            "/v1/networks/a/connect",
            "{\"sandbox\":\"b\",\"ipp\":1}",
            400,
            "ipp",
        ),
        ("DELETE", "/v1/networks/a?force=1", "", 400, "true"),
        ("GET", "/v1/sandboxes/gone", "", 404, "gone"),
    ] {
        let (got, error) = served.refused(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {error:?}");
        assert!(error.message.contains(word), "{method} {path}: {error:?}");
    }
    let (status, _) = served
        .refused("POST", "/v1/sandboxes", &" ".repeat((4 << 20) + 1))
        .await;
    assert_eq!(status, 413);
    assert_eq!(served.control.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn descriptors_really_pass() {
    let served = served();
    let (reader, writer) = io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let socket = served.stdio();
    let sent = tokio::task::spawn_blocking(move || {
        stdio::send(
            &socket,
            &id(),
            [writer.as_fd(), writer.as_fd(), writer.as_fd()],
        )
    });
    sent.await.unwrap().unwrap();
    let taken = std::mem::take(&mut *served.control.taken.lock().unwrap());
    assert_eq!(taken.len(), 3);
    for fd in taken {
        std::fs::File::from(fd).write_all(b"x").unwrap();
    }
    // All writers are closed: the daemon kept no copy.
    let mut text = String::new();
    std::fs::File::from(OwnedFd::from(reader))
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "xxx");
}

#[tokio::test]
async fn a_network_namespace_is_handed_over() {
    let served = served();
    let socket = served.stdio();
    let adopted = tokio::task::spawn_blocking(move || {
        let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
        let mut request = NetnsAdopt::default();
        request.netns.name = Some("box".to_owned());
        stdio::adopt(&socket, &request, netns.as_fd())
    });
    let adopted = adopted.await.unwrap().unwrap();
    assert_eq!(adopted.id, id());
    assert_eq!(served.control.asked(), ["adopt_netns Some(\"box\")"]);
}

#[tokio::test]
async fn wrong_descriptor_messages_are_refused_and_closed() {
    let served = served();
    for (line, count, word) in [
        (format!("\"{}\"\n", id()), 0, "0 descriptors"),
        (format!("\"{}\"\n", id()), 2, "2 descriptors"),
        ("{\"netns\":{}}\n".to_owned(), 0, "one is needed"),
        ("{\"netns\":{}}\n".to_owned(), 3, "one is needed"),
        ("{\"netns\":1}\n".to_owned(), 1, "malformed request"),
        (format!("\"{}\"\n", id()), 200, "200 descriptors"),
        ("\"short\"\n".to_owned(), 3, "malformed id"),
        ("\n".to_owned(), 3, "malformed id"),
        ("x".repeat(4096), 3, "one line"),
        ("x".repeat(100), 253, "more than three"),
        (
            format!("\"{}\"\n", SandboxId::from([9; 32])),
            3,
            "does not exist",
        ),
    ] {
        let (reader, writer) = io::pipe().unwrap();
        let socket = served.stdio();
        let answer = tokio::task::spawn_blocking(move || {
            let writer = OwnedFd::from(writer);
            let fds = vec![writer.as_fd(); count];
            let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            stdio::send_raw(&stream, line.as_bytes(), &fds).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            (&stream).read_to_string(&mut answer).map(|_| answer)
        });
        let answer = answer.await.unwrap();
        // Reading EOF proves that every copy of the writer has been closed.
        let mut left = Vec::new();
        std::fs::File::from(OwnedFd::from(reader))
            .read_to_end(&mut left)
            .unwrap();
        // The server may close before it has read all of an overlong line: reset, not an answer.
        if let Ok(answer) = answer {
            let body: ErrorBody = serde_json::from_str(&answer).unwrap();
            assert!(body.message.contains(word), "{word}: {body:?}");
        }
    }
    assert!(served.control.taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_end_finishes_what_is_served_and_sends_waiters_away() {
    let mut served = served();
    assert!(served.activity.idle_since().is_some());
    let api = served.api();
    let waiter =
        tokio::spawn(async move { ask(&api, "GET", "/v1/sandboxes/forever/wait", "").await });
    while served.control.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(served.activity.idle_since().is_none());
    served.end.take().unwrap().send(()).unwrap();
    // The head went out before the end was known, so that the status stands in the body.
    let (status, body) = waiter.await.unwrap();
    assert_eq!(status, 200);
    assert!(body.contains("\"status\":503"), "{body}");
    (&mut served.task).await.unwrap().unwrap();
    assert!(served.activity.idle_since().is_some());
    let refused = UnixStream::connect(served.api()).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}

#[tokio::test]
async fn a_daemon_that_ends_of_idleness_answers_nobody() {
    let served = served();
    let mut first = UnixStream::connect(served.api()).await.unwrap();
    first
        .write_all(b"GET /v1/ping HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    first.read_u8().await.unwrap();
    assert!(!served.activity.close_if_unused_since(Instant::now()));
    drop(first);
    while served.activity.idle_since().is_none() {
        tokio::task::yield_now().await;
    }
    let long_ago = Instant::now() - Duration::from_secs(1);
    assert!(!served.activity.close_if_unused_since(long_ago));
    assert!(served.activity.close_if_unused_since(Instant::now()));
    let mut late = UnixStream::connect(served.api()).await.unwrap();
    assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let served = served();
    let mut stream = UnixStream::connect(served.api()).await.unwrap();
    stream
        .write_all(b"GET /v1/sandboxes/forever/wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    while served.control.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while served.activity.idle_since().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_holds_the_daemon_keeps_it() {
    let mut served = served();
    for leaves in [true, false] {
        let mut holder = UnixStream::connect(served.api()).await.unwrap();
        let hold = b"GET /v1/hold HTTP/1.1\r\nhost: x\r\n\r\n";
        holder.write_all(hold).await.unwrap();
        assert_eq!(served.ask("GET", "/v1/ping", "").await.0, 200);
        assert!(!served.activity.close_if_unused_since(Instant::now()));
        if leaves {
            drop(holder);
            while served.activity.idle_since().is_none() {
                tokio::task::yield_now().await;
            }
            continue;
        }
        served.end.take().unwrap().send(()).unwrap();
        // At once, not when the daemon's patience with what it serves is over.
        let ended = tokio::time::timeout(Duration::from_secs(5), &mut served.task);
        ended.await.unwrap().unwrap().unwrap();
    }
}
