//! The embedded chain as an alloy transport: requests are answered in-process, on a thread that
//! may block. No socket is opened.

use std::sync::Arc;
use std::task::{Context, Poll};

use alloy::rpc::json_rpc::{
    ErrorPayload, RequestPacket, Response, ResponsePacket, ResponsePayload, SerializedRequest,
};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::Inner;
use super::rpc::{Fault, answer};

/// Clones share the chain.
#[derive(Clone)]
pub struct InProcess(pub(super) Arc<Inner>);

impl tower::Service<RequestPacket> for InProcess {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || match packet {
                RequestPacket::Single(request) => {
                    respond(&inner, &request).map(ResponsePacket::Single)
                }
                RequestPacket::Batch(requests) => requests
                    .iter()
                    .map(|request| respond(&inner, request))
                    .collect::<Result<_, _>>()
                    .map(ResponsePacket::Batch),
            })
            .await
            .map_err(TransportErrorKind::custom)?
        })
    }
}

fn respond(inner: &Inner, request: &SerializedRequest) -> Result<Response, TransportError> {
    let params: Value = match request.params() {
        Some(raw) => serde_json::from_str(raw.get()).map_err(TransportErrorKind::custom)?,
        None => Value::Null,
    };
    let payload = match answer(inner, request.method(), &params) {
        Ok(value) => ResponsePayload::Success(raw(&value)?),
        Err(fault) => ResponsePayload::Failure(failure(fault)?),
    };
    Ok(Response {
        id: request.id().clone(),
        payload,
    })
}

fn failure(fault: Fault) -> Result<ErrorPayload, TransportError> {
    let data = match fault.data {
        Some(data) => Some(raw(&data)?),
        None => None,
    };
    Ok(ErrorPayload {
        code: fault.code,
        message: fault.message.into(),
        data,
    })
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, TransportError> {
    to_raw_value(value).map_err(TransportErrorKind::custom)
}
