//! What the CLI calls about published ports: one method for each request of the API.

use super::call::{Call, parse};
use super::client::{Client, ClientError, encoded};
use super::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove, PortsTotal};
use hyper::Method;

impl Client {
    /// `GET /v1/sandboxes/{sandbox}/ports`.
    pub async fn ports(&self, sandbox: &str) -> Result<Vec<PortStatus>, ClientError> {
        self.get(ports_of(sandbox)).await
    }

    /// `GET /v1/sandboxes/{sandbox}/ports/total`.
    pub async fn ports_total(&self, sandbox: &str) -> Result<PortsTotal, ClientError> {
        self.get(ports_of(sandbox) + "/total").await
    }

    /// `POST /v1/sandboxes/{sandbox}/ports`.
    pub async fn add_ports(
        &self,
        sandbox: &str,
        request: &PortsPublish,
    ) -> Result<Vec<PortInfo>, ClientError> {
        let call = Call::post(ports_of(sandbox)).with_body(request)?;
        parse(&call, self.ask(&call).await?)
    }

    /// `DELETE /v1/sandboxes/{sandbox}/ports`.
    pub async fn remove_ports(
        &self,
        sandbox: &str,
        request: &PortsRemove,
    ) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, ports_of(sandbox)).with_body(request)?;
        self.change(call).await
    }
}

fn ports_of(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/ports", encoded(sandbox))
}
