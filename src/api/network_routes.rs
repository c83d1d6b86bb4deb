//! The paths of the API about networks, each to one method of [`Control`].

use super::control::{Control, Refusal};
use super::network_types::{
    NetnsCreate, NetnsCreated, NetworkConnect, NetworkCreate, NetworkDisconnect, NetworkInfo,
    NetworkPrune, Pruned,
};
use super::routes::{Answered, Api, At, Body, Done, Force, In, done};
use super::types::Created;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

pub(super) fn routes<C: Control>() -> Router<Api<C>> {
    Router::new()
        .route("/v1/netns", post(create_netns::<C>))
        .route("/v1/networks", get(networks::<C>).post(create::<C>))
        .route("/v1/networks/prune", post(prune::<C>))
        .route(
            "/v1/networks/{network}",
            get(network::<C>).delete(remove::<C>),
        )
        .route("/v1/networks/{network}/connect", post(connect::<C>))
        .route("/v1/networks/{network}/disconnect", post(disconnect::<C>))
}

async fn create_netns<C: Control>(
    State(api): State<Api<C>>,
    Body(request): Body<NetnsCreate>,
) -> Result<(StatusCode, Json<NetnsCreated>), Refusal> {
    let created = api
        .change(|control| async move { control.create_netns(request).await })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn networks<C: Control>(State(api): State<Api<C>>) -> Answered<Vec<NetworkInfo>> {
    api.control.networks().await.map(Json)
}

async fn create<C: Control>(
    State(api): State<Api<C>>,
    Body(request): Body<NetworkCreate>,
) -> Result<(StatusCode, Json<Created>), Refusal> {
    let created = api
        .change(|control| async move { control.create_network(request).await })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn network<C: Control>(State(api): State<Api<C>>, At(name): At) -> Answered<NetworkInfo> {
    api.control.network(&name).await.map(Json)
}

async fn remove<C: Control>(State(api): State<Api<C>>, At(name): At, In(query): In<Force>) -> Done {
    done(
        api.change(|control| async move { control.remove_network(&name, query.force).await })
            .await,
    )
}

async fn prune<C: Control>(
    State(api): State<Api<C>>,
    Body(request): Body<NetworkPrune>,
) -> Answered<Pruned> {
    api.change(|control| async move { control.prune_networks(request).await })
        .await
        .map(Json)
}

async fn connect<C: Control>(
    State(api): State<Api<C>>,
    At(name): At,
    Body(request): Body<NetworkConnect>,
) -> Done {
    done(
        api.change(|control| async move { control.connect_network(&name, request).await })
            .await,
    )
}

async fn disconnect<C: Control>(
    State(api): State<Api<C>>,
    At(name): At,
    Body(request): Body<NetworkDisconnect>,
) -> Done {
    done(
        api.change(|control| async move { control.disconnect_network(&name, request).await })
            .await,
    )
}
