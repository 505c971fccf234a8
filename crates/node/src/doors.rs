//! The doors beside the OpenAI surface that move money or reputation: refunds, claims that wait for gas, records of
//! service, proofs and their price. Everything that comes in is bounded before it is read.

use std::sync::Arc;

use assay_openai::ApiError;
use assay_payments::x402::{self, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, Payload, PaymentPayload};
use assay_protocol::{B256, Receipt, ServiceRecord, Signed, proof_payment_id};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::clock::{now, random};
use crate::http::{Refused, api_error, insert, no_such_method, payment_required, read, refuse};
use crate::keep::Promised;
use crate::proofs;
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

/// The proof of an answer: its bytes, or how far it is. Everybody may have it; only who bought it has to pay.
pub(crate) async fn proof(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let (id, state, _) = match promised(&app, &id) {
        Ok(found) => found,
        Err(error) => return api_error(&error),
    };
    match state {
        proofs::State::Ready { .. } => {}
        proofs::State::Failed { reason } => return api_error(&proof_failed(&reason)),
        waiting => return (StatusCode::ACCEPTED, Json(waiting)).into_response(),
    }
    let read = match &app.proofs {
        Some(proofs) => proofs.bytes(&id).await,
        None => return api_error(&no_proof()),
    };
    match read {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, %id, "a proof cannot be read");
            api_error(&ApiError::unavailable(
                "the proof cannot be read now: try again",
                1_000,
            ))
        }
    }
}

/// Takes the price of a proof that is there, and answers with the receipt for it.
pub(crate) async fn pay_for_proof(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    // A client that leaves does not take a charge down half way.
    let url = format!("{}{}", app.public_url, uri.path());
    let shared = Arc::clone(&app);
    let task = async move { take_price(&shared, &id, &url, &headers).await };
    match app.sessions.spawn(task).await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => api_error(&ApiError::internal(
            "the payment broke off: ask for its receipt before paying again",
        )),
    }
}

async fn take_price(
    app: &Arc<App>,
    id: &str,
    url: &str,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let (id, state, promised) = promised(app, id)?;
    match state {
        proofs::State::Ready { .. } => {}
        proofs::State::Failed { reason } => return Err(proof_failed(&reason).into()),
        proofs::State::Waiting { .. } | proofs::State::Proving { .. } => {
            let message = "this proof is not made yet, and nothing is due for it: ask for it first";
            return Err(
                ApiError::new(409, "invalid_request_error", "proof_not_ready", message).into(),
            );
        }
    }
    let price = promised.price;
    let Some(header) = headers.get(PAYMENT_SIGNATURE) else {
        let message = format!("this proof costs {price}: pay it with x402 once it holds");
        return Err(payment_required(
            url,
            None,
            message,
            app.till.requirements(price),
        ));
    };
    let payment: PaymentPayload = x402::decode(header.as_bytes()).map_err(|error| {
        let message = format!("the header {PAYMENT_SIGNATURE} cannot be read: {error}");
        payment_required(
            url,
            Some("invalid_payload"),
            message,
            app.till.requirements(price),
        )
    })?;
    let unread = |error| {
        tracing::error!(%error, "a receipt could not be read");
        ApiError::unavailable("the ledger cannot be read: try again", 1_000)
    };
    let answered = app.till.receipt(id).await.map_err(unread)?;
    let answered = answered.ok_or_else(no_proof)?.body;
    let request_id = proof_payment_id(&id);
    let declined = |declined| refuse(url, declined);
    let presented = app
        .till
        .present(&payment, price, request_id)
        .map_err(declined)?;
    let taken = app.till.take(&payment, presented).await.map_err(declined)?;
    let cumulative = taken
        .reservation
        .cumulative(price)
        .map_err(|error| ApiError::internal(format!("{error}: nothing was charged")))?;
    // The same statement once more, now for its proof: it binds this node no further than it was bound.
    let receipt = Receipt {
        payer: taken.payer,
        channel_id: taken.reservation.channel_id,
        charged: price,
        cumulative,
        served_at: now(),
        request_id,
        ..answered
    };
    let receipt = app.key.sign(receipt, &app.domain);
    let response = app
        .till
        .charge_proof(taken, receipt)
        .await
        .map_err(|error| {
            tracing::error!(%error, "a proof could not be charged");
            ApiError::internal("the ledger cannot be written: nothing was charged")
        })?;
    if let Some(proofs) = &app.proofs {
        proofs.paid(&id);
    }
    let mut answer = Json(receipt).into_response();
    insert(&mut answer, PAYMENT_RESPONSE, x402::encode(&response));
    Ok(answer)
}

/// The proof that was promised for this request.
fn promised(app: &App, id: &str) -> Result<(B256, proofs::State, Promised), ApiError> {
    let id: B256 = id.parse().map_err(|_| {
        ApiError::invalid("request_id", "a request id is 0x and 64 hexadecimal digits")
    })?;
    let found = app.proofs.as_ref().and_then(|proofs| proofs.look(&id));
    let (state, promised) = found.ok_or_else(no_proof)?;
    Ok((id, state, promised))
}

fn no_proof() -> ApiError {
    let message = "no proof was promised for this request, or it was long ago: ask with \"verification\": \"proven\"";
    ApiError::new(404, "invalid_request_error", "proof_not_found", message)
}

fn proof_failed(reason: &str) -> ApiError {
    let message = format!("this answer could not be proven ({reason}): nothing is due for it");
    ApiError::new(500, "server_error", "proof_failed", message)
}
