//! Each path of the API to one method of [`Control`]; every refusal is an [`ErrorBody`].
//!
//! [`ROUTES`] is what `docs/openapi.json` is checked against.

use super::control::{Answer, Control, Refusal};
use super::hold::Held;
use super::network_routes;
use super::port_routes;
use super::server::Activity;
use super::types::{
    Created, ErrorBody, ExecCreate, Exit, Info, LogFile, Ping, SandboxCreate, SandboxInfo, WaitEnd,
};
use axum::body::{Body as AxumBody, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use mossnet_helper::SandboxId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::watch;

/// Largest request body, bytes: the same as one frame to the helper.
const MAX_BODY: usize = mossnet_helper::request::MAX_FRAME;

/// Every method and path.
#[cfg(test)]
pub(super) const ROUTES: &[(&str, &str)] = &[
    ("get", "/v1/ping"),
    ("get", "/v1/info"),
    ("get", "/v1/hold"),
    ("post", "/v1/router"),
    ("post", "/v1/shutdown"),
    ("get", "/v1/sandboxes"),
    ("post", "/v1/sandboxes"),
    ("get", "/v1/sandboxes/{sandbox}"),
    ("delete", "/v1/sandboxes/{sandbox}"),
    ("post", "/v1/sandboxes/{sandbox}/start"),
    ("post", "/v1/sandboxes/{sandbox}/stop"),
    ("post", "/v1/sandboxes/{sandbox}/kill"),
    ("get", "/v1/sandboxes/{sandbox}/wait"),
    ("get", "/v1/sandboxes/{sandbox}/logs"),
    ("post", "/v1/sandboxes/{sandbox}/exec"),
    ("get", "/v1/sandboxes/{sandbox}/ports"),
    ("post", "/v1/sandboxes/{sandbox}/ports"),
    ("delete", "/v1/sandboxes/{sandbox}/ports"),
    ("get", "/v1/sandboxes/{sandbox}/ports/total"),
    ("post", "/v1/exec/{id}/start"),
    ("post", "/v1/exec/{id}/kill"),
    ("get", "/v1/exec/{id}/wait"),
    ("post", "/v1/netns"),
    ("get", "/v1/networks"),
    ("post", "/v1/networks"),
    ("post", "/v1/networks/prune"),
    ("get", "/v1/networks/{network}"),
    ("delete", "/v1/networks/{network}"),
    ("post", "/v1/networks/{network}/connect"),
    ("post", "/v1/networks/{network}/disconnect"),
];

/// What every handler can reach.
pub(super) struct Api<C> {
    pub(super) control: Arc<C>,
    pub(super) activity: Activity,
    /// Becomes true when the daemon ends.
    pub(super) ending: watch::Receiver<bool>,
}

impl<C> Clone for Api<C> {
    fn clone(&self) -> Self {
        Self {
            control: Arc::clone(&self.control),
            activity: self.activity.clone(),
            ending: self.ending.clone(),
        }
    }
}

impl<C: Control> Api<C> {
    /// Makes a change to its end, even where the client leaves meanwhile and the handler with it.
    pub(super) async fn change<T, F>(&self, change: impl FnOnce(Arc<C>) -> F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let busy = self.activity.enter();
        let change = change(Arc::clone(&self.control));
        let task = tokio::spawn(async move {
            let _busy = busy;
            change.await
        });
        task.await
            .unwrap_or_else(|error| Err(Refusal::new(500, format!("the daemon failed: {error}"))))
    }
}

pub(super) fn router<C: Control>(api: Api<C>) -> Router {
    Router::new()
        .route("/v1/ping", get(ping))
        .route("/v1/info", get(info::<C>))
        .route("/v1/hold", get(hold::<C>))
        .route("/v1/router", post(start_router::<C>))
        .route("/v1/shutdown", post(shutdown::<C>))
        .route("/v1/sandboxes", get(list::<C>).post(create::<C>))
        .route(
            "/v1/sandboxes/{sandbox}",
            get(inspect::<C>).delete(remove::<C>),
        )
        .route("/v1/sandboxes/{sandbox}/start", post(start::<C>))
        .route("/v1/sandboxes/{sandbox}/stop", post(stop::<C>))
        .route("/v1/sandboxes/{sandbox}/kill", post(kill::<C>))
        .route("/v1/sandboxes/{sandbox}/wait", get(wait::<C>))
        .route("/v1/sandboxes/{sandbox}/logs", get(logs::<C>))
        .route("/v1/sandboxes/{sandbox}/exec", post(exec::<C>))
        .route("/v1/exec/{id}/start", post(exec_start::<C>))
        .route("/v1/exec/{id}/kill", post(exec_kill::<C>))
        .route("/v1/exec/{id}/wait", get(exec_wait::<C>))
        .merge(network_routes::routes())
        .merge(port_routes::routes())
        .fallback(async || Refusal::new(404, "no such path in this API"))
        .method_not_allowed_fallback(async || {
            Refusal::new(405, "this path does not take that method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

pub(super) type Answered<T> = Result<Json<T>, Refusal>;
/// 204 where there is nothing to tell.
pub(super) type Done = Result<StatusCode, Refusal>;

async fn ping() -> Json<Ping> {
    Json(Ping {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn info<C: Control>(State(api): State<Api<C>>) -> Answered<Info> {
    api.control.info().await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    #[serde(default)]
    all: bool,
}

/// Answers when the daemon ends. Until then, or until the client leaves, the daemon is in use.
async fn hold<C: Control>(State(mut api): State<Api<C>>) -> StatusCode {
    ended(&mut api.ending).await;
    StatusCode::NO_CONTENT
}

async fn start_router<C: Control>(State(api): State<Api<C>>) -> Answered<Info> {
    api.change(|control| async move { control.router().await })
        .await
        .map(Json)
}

async fn shutdown<C: Control>(State(api): State<Api<C>>, In(query): In<All>) -> Done {
    done(
        api.change(|control| async move { control.shutdown(query.all).await })
            .await,
    )
}

async fn list<C: Control>(
    State(api): State<Api<C>>,
    In(query): In<All>,
) -> Answered<Vec<SandboxInfo>> {
    api.control.list(query.all).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    /// Remove it when this connection closes, unless it has been started.
    #[serde(default)]
    hold: bool,
}

async fn create<C: Control>(
    State(api): State<Api<C>>,
    Extension(held): Extension<Held>,
    In(query): In<Hold>,
    Body(request): Body<SandboxCreate>,
) -> Result<(StatusCode, Json<Created>), Refusal> {
    let created = api
        .change(|control| async move {
            let created = control.create(request).await?;
            if query.hold {
                held.add(created.id.clone(), control.as_ref()).await;
            }
            Ok(created)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn inspect<C: Control>(State(api): State<Api<C>>, At(name): At) -> Answered<SandboxInfo> {
    api.control.inspect(&name).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Force {
    #[serde(default)]
    pub(super) force: bool,
}

async fn remove<C: Control>(State(api): State<Api<C>>, At(name): At, In(query): In<Force>) -> Done {
    done(
        api.change(|control| async move { control.remove(&name, query.force).await })
            .await,
    )
}

async fn start<C: Control>(State(api): State<Api<C>>, At(name): At) -> Done {
    done(
        api.change(|control| async move { control.start(&name).await })
            .await,
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timeout {
    /// Seconds.
    timeout: Option<u64>,
}

async fn stop<C: Control>(State(api): State<Api<C>>, At(name): At, In(query): In<Timeout>) -> Done {
    let seconds = query.timeout.unwrap_or(super::types::STOP_TIMEOUT_SECONDS);
    done(
        api.change(|control| async move { control.stop(&name, seconds).await })
            .await,
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    signal: i32,
}

impl Signal {
    fn checked(self) -> Answer<i32> {
        if (1..=64).contains(&self.signal) {
            return Ok(self.signal);
        }
        let signal = self.signal;
        Err(Refusal::new(400, format!("signal {signal} is not 1 to 64")))
    }
}

async fn kill<C: Control>(State(api): State<Api<C>>, At(name): At, In(query): In<Signal>) -> Done {
    let signal = query.checked()?;
    done(
        api.change(|control| async move { control.kill(&name, signal).await })
            .await,
    )
}

async fn wait<C: Control>(State(mut api): State<Api<C>>, At(name): At) -> Response {
    let exit = async move {
        tokio::select! {
            exit = api.control.wait(&name) => exit,
            () = ended(&mut api.ending) => Err(come_again()),
        }
    };
    head_first(exit).await
}

async fn logs<C: Control>(State(api): State<Api<C>>, At(name): At) -> Answered<LogFile> {
    let path = api.control.log_path(&name).await?;
    Ok(Json(LogFile { path }))
}

async fn exec<C: Control>(
    State(api): State<Api<C>>,
    At(name): At,
    Body(request): Body<ExecCreate>,
) -> Result<(StatusCode, Json<Created>), Refusal> {
    let created = api
        .change(|control| async move { control.exec(&name, request).await })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn exec_start<C: Control>(State(api): State<Api<C>>, At(id): At) -> Done {
    let id = exec_id(id)?;
    done(
        api.change(|control| async move { control.exec_start(id).await })
            .await,
    )
}

async fn exec_kill<C: Control>(
    State(api): State<Api<C>>,
    At(id): At,
    In(query): In<Signal>,
) -> Done {
    let (id, signal) = (exec_id(id)?, query.checked()?);
    done(
        api.change(|control| async move { control.exec_kill(id, signal).await })
            .await,
    )
}

async fn exec_wait<C: Control>(
    State(mut api): State<Api<C>>,
    At(id): At,
) -> Result<Response, Refusal> {
    let id = exec_id(id)?;
    let exit = async move {
        tokio::select! {
            exit = api.control.exec_wait(id) => exit,
            () = ended(&mut api.ending) => Err(come_again()),
        }
    };
    Ok(head_first(exit).await)
}

/// Answers at once where `exit` is known or refused at once; else sends the head now, so that the
/// client knows that a start from now on cannot end unseen, and the body when it is known.
async fn head_first(exit: impl Future<Output = Answer<Exit>> + Send + 'static) -> Response {
    let mut exit = Box::pin(exit);
    match futures_util::poll!(exit.as_mut()) {
        Poll::Ready(answer) => answer.map(Json).into_response(),
        Poll::Pending => {
            let body = futures_util::stream::once(async move {
                let text = match exit.await {
                    Ok(exit) => serde_json::to_vec(&WaitEnd::Exit(exit)),
                    Err(Refusal { status, body }) => {
                        serde_json::to_vec(&WaitEnd::Error { status, body })
                    }
                };
                text.map(Bytes::from)
            });
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, AxumBody::from_stream(body)).into_response()
        }
    }
}

pub(super) fn done(answer: Answer<()>) -> Done {
    answer.map(|()| StatusCode::NO_CONTENT)
}

fn exec_id(id: String) -> Answer<SandboxId> {
    SandboxId::try_from(id).map_err(|error| Refusal::new(400, error.to_string()))
}

/// Resolves when the daemon ends.
pub(super) async fn ended(ending: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: the same.
    let _ = ending.wait_for(|&ending| ending).await;
}

/// 503: the client asks the next daemon.
fn come_again() -> Refusal {
    Refusal::new(503, "the daemon ended while waiting")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json::<ErrorBody>(self.body)).into_response()
    }
}

/// A JSON body, whatever its content type; what is wrong with it is said.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|error: BytesRejection| {
                    Refusal::new(error.status().as_u16(), error.body_text())
                })?;
        serde_json::from_slice(&bytes)
            .map(Body)
            .map_err(|error| Refusal::new(400, format!("malformed request: {error}")))
    }
}

/// The query string.
pub(super) struct In<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for In<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(query)| Self(query))
            .map_err(|error: QueryRejection| Refusal::new(400, error.body_text()))
    }
}

/// The one variable part of a path.
pub(super) struct At(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(name)| Self(name))
            .map_err(|error: PathRejection| {
                Refusal::new(error.status().as_u16(), error.body_text())
            })
    }
}
