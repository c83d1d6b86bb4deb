//! What the CLI calls about networks: one method for each request of the API.

use super::call::{Call, parse};
use super::client::{Client, ClientError, encoded};
use super::network_types::{
    NetnsCreate, NetnsCreated, NetworkConnect, NetworkCreate, NetworkDisconnect, NetworkInfo,
    NetworkPrune, Pruned,
};
use super::types::Created;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl Client {
    /// `POST /v1/netns`.
    pub async fn create_netns(&self, request: &NetnsCreate) -> Result<NetnsCreated, ClientError> {
        self.post("/v1/netns".to_owned(), request).await
    }

    /// `POST /v1/networks`.
    pub async fn create_network(&self, request: &NetworkCreate) -> Result<Created, ClientError> {
        self.post("/v1/networks".to_owned(), request).await
    }

    /// `GET /v1/networks`.
    pub async fn networks(&self) -> Result<Vec<NetworkInfo>, ClientError> {
        self.get("/v1/networks".to_owned()).await
    }

    /// `GET /v1/networks/{network}`.
    pub async fn network(&self, network: &str) -> Result<NetworkInfo, ClientError> {
        self.get(of_network(network, "")).await
    }

    /// `DELETE /v1/networks/{network}`; with `force` together with the sandboxes on it.
    pub async fn remove_network(&self, network: &str, force: bool) -> Result<(), ClientError> {
        let path = of_network(network, &format!("?force={force}"));
        self.change(Call::new(Method::DELETE, path)).await
    }

    /// `POST /v1/networks/prune`.
    pub async fn prune_networks(&self, request: &NetworkPrune) -> Result<Pruned, ClientError> {
        self.post("/v1/networks/prune".to_owned(), request).await
    }

    /// `POST /v1/networks/{network}/connect`.
    pub async fn connect_network(
        &self,
        network: &str,
        request: &NetworkConnect,
    ) -> Result<(), ClientError> {
        let call = Call::post(of_network(network, "/connect")).with_body(request)?;
        self.change(call).await
    }

    /// `POST /v1/networks/{network}/disconnect`.
    pub async fn disconnect_network(
        &self,
        network: &str,
        request: &NetworkDisconnect,
    ) -> Result<(), ClientError> {
        let call = Call::post(of_network(network, "/disconnect")).with_body(request)?;
        self.change(call).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let call = Call::post(path).with_body(request)?;
        parse(&call, self.ask(&call).await?)
    }
}

fn of_network(network: &str, rest: &str) -> String {
    format!("/v1/networks/{}{rest}", encoded(network))
}
