//! The doors beside the OpenAI surface that move money or reputation: refunds, claims that wait for gas, records of
//! service. Everything that comes in is bounded before it is read.

use std::sync::Arc;

use assay_openai::ApiError;
use assay_payments::x402::{self, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, Payload, PaymentPayload};
use assay_protocol::{ServiceRecord, Signed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::clock::random;
use crate::http::{Refused, api_error, insert, no_such_method, payment_required, read, refuse};
use crate::records;

/// x402's `refund`: the client asks what is wanted here with a bare GET, and sends its voucher with the next.
pub(crate) async fn refund(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let url = format!("{}{}", app.public_url, uri.path());
    let requirements = || app.till.requirements(app.till.terms.deposit_min);
    let Some(header) = headers.get(PAYMENT_SIGNATURE) else {
        let message = "POST a request here, or GET with an x402 refund of what a channel has left";
        return payment_required(&url, None, message.into(), requirements()).into_response();
    };
    let payment: PaymentPayload = match x402::decode(header.as_bytes()) {
        Ok(payment) => payment,
        Err(error) => {
            let message = format!("the header {PAYMENT_SIGNATURE} cannot be read: {error}");
            return payment_required(&url, Some("invalid_payload"), message, requirements())
                .into_response();
        }
    };
    let Payload::Refund(payload) = &payment.payload else {
        return no_such_method().await;
    };
    let asked = payload.amount.map(|amount| amount.0);
    let Ok(request_id) = random() else {
        let message = "the system gives no randomness: try again";
        return api_error(&ApiError::unavailable(message, 1_000));
    };
    // A client that leaves does not take a refund down half way.
    let till = Arc::clone(&app.till);
    let task = async move { till.refund(&payment, asked, request_id).await };
    match app.sessions.spawn(task).await {
        Ok(Ok((channel_id, response))) => {
            let body = json!({ "message": "refunded", "channelId": channel_id });
            let mut answer = Json(body).into_response();
            insert(&mut answer, PAYMENT_RESPONSE, x402::encode(&response));
            answer
        }
        Ok(Err(declined)) => refuse(&url, declined).into_response(),
        Err(_) => api_error(&ApiError::internal(
            "the refund broke off: look at the channel on the chain",
        )),
    }
}

/// Signed claims that nobody has paid the gas of. Whoever submits them moves money into this provider's vault, and
/// nowhere else, so everybody may have them.
pub(crate) async fn claims(State(app): State<Arc<App>>) -> Response {
    Json(app.board.waiting()).into_response()
}

/// Payers' records of service.
pub(crate) async fn records(State(app): State<Arc<App>>, body: Body) -> Response {
    match take_records(&app, body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn take_records(app: &Arc<App>, body: Body) -> Result<records::RecordsAnswer, Refused> {
    let body = read(app, body, records::MESSAGE_BYTES_MAX).await?;
    let records: Vec<Signed<ServiceRecord>> = serde_json::from_slice(&body).map_err(|error| {
        ApiError::malformed(format!("the body is no list of signed records: {error}"))
    })?;
    if records.len() > records::MESSAGE_MAX {
        let most = records::MESSAGE_MAX;
        let message = format!(
            "{} records, at most {most} are taken: send fewer",
            records.len()
        );
        return Err(ApiError::malformed(message).into());
    }
    records::take(app, records).await.map_err(|error| {
        tracing::error!(%error, "records could not be kept");
        ApiError::unavailable("the ledger cannot be written: try again", 1_000).into()
    })
}
