//! Paths of the API that are about published ports.

use super::control::Control;
use super::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove, PortsTotal};
use super::routes::{Answered, Api, At, Body, Done, done};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

pub(super) fn routes<C: Control>() -> Router<Api<C>> {
    let ports = get(list::<C>).post(add::<C>).delete(remove::<C>);
    Router::new()
        .route("/v1/sandboxes/{sandbox}/ports", ports)
        .route("/v1/sandboxes/{sandbox}/ports/total", get(total::<C>))
}

async fn list<C: Control>(State(api): State<Api<C>>, At(name): At) -> Answered<Vec<PortStatus>> {
    api.control.ports(&name).await.map(Json)
}

async fn total<C: Control>(State(api): State<Api<C>>, At(name): At) -> Answered<PortsTotal> {
    let ports = api.control.ports(&name).await?;
    Ok(Json(PortsTotal::of(&ports)))
}

async fn add<C: Control>(
    State(api): State<Api<C>>,
    At(name): At,
    Body(request): Body<PortsPublish>,
) -> Answered<Vec<PortInfo>> {
    api.change(|control| async move { control.add_ports(&name, request).await })
        .await
        .map(Json)
}

async fn remove<C: Control>(
    State(api): State<Api<C>>,
    At(name): At,
    Body(request): Body<PortsRemove>,
) -> Done {
    done(
        api.change(|control| async move { control.remove_ports(&name, request).await })
            .await,
    )
}
