//! One request over one connection, and what its answer means.

use super::client::ClientError;
use super::types::{ErrorBody, Exit, WaitEnd};
use crate::error::EXIT_FAILURE;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// One request.
pub(super) struct Call {
    method: Method,
    pub(super) path: String,
    body: Bytes,
}

impl Call {
    pub(super) fn new(method: Method, path: String) -> Self {
        let body = Bytes::new();
        Self { method, path, body }
    }

    pub(super) fn post(path: String) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn with_body(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        let text = serde_json::to_vec(body).map_err(|e| ClientError::Request(e.into()))?;
        self.body = Bytes::from(text);
        Ok(self)
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken {
            request: self.name(),
            source,
        }
    }

    /// The body of a successful answer.
    pub(super) async fn send(&self, sender: &mut Sender) -> Result<Bytes, ClientError> {
        let answer = self.head(sender).await?;
        self.body(answer).await
    }

    async fn body(&self, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = answer.into_body().collect().await;
        Ok(body.map_err(|source| self.broken(source))?.to_bytes())
    }

    pub(super) async fn wait_end(&self, answer: Response<Incoming>) -> Result<Exit, ClientError> {
        match parse(self, self.body(answer).await?)? {
            WaitEnd::Exit(exit) => Ok(exit),
            WaitEnd::Error { status, body } => Err(ClientError::Refused { status, body }),
        }
    }

    /// A successful answer whose body may still be to come.
    pub(super) async fn head(
        &self,
        sender: &mut Sender,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header("host", "mossnet")
            .header("content-type", "application/json")
            .body(Full::new(self.body.clone()))
            .map_err(|error| ClientError::Request(io::Error::other(error)))?;
        // After an answer the connection needs a moment before it takes the next request.
        sender.ready().await.map_err(|source| self.broken(source))?;
        let sent = sender.send_request(request).await;
        let answer = sent.map_err(|source| self.broken(source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = self.body(answer).await?;
        Err(ClientError::Refused {
            status: status.as_u16(),
            body: refusal(status, &body),
        })
    }
}

pub(super) fn refusal(status: StatusCode, body: &[u8]) -> ErrorBody {
    serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
        message: format!("the daemon answered {status}"),
        hint: None,
        exit_code: EXIT_FAILURE,
    })
}

pub(super) fn parse<T: DeserializeOwned>(call: &Call, body: Bytes) -> Result<T, ClientError> {
    serde_json::from_slice(&body).map_err(|source| ClientError::Answer {
        request: call.name(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_no_error_body_still_say_something() {
        let body = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(body.message, "the daemon answered 502 Bad Gateway");
    }
}
