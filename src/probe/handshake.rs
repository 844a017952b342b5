//! The opening handshake as a client (RFC 6455, 4.1).

use std::error::Error;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{
        CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    upgrade::Parts,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{
    handshake::{client::generate_key, derive_accept_key},
    protocol::Role,
};

use super::{Agreement, Plan};
use crate::peer::PeerConnection;

/// The reason why no WebSocket was opened.
pub(super) struct OpenError {
    /// The status of the server's answer to the upgrade, if there was one.
    pub(super) status: Option<StatusCode>,
    pub(super) message: String,
}

/// Connects and upgrades.
pub(super) async fn open(plan: &Plan) -> Result<(PeerConnection<TcpStream>, Agreement), OpenError> {
    let (host, port) = (&plan.url.authority.host, plan.url.port());
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| unanswered(&format!("cannot connect to {host}:{port}"), &error))?;
    // Without this option only latency is worse.
    let _ = stream.set_nodelay(true);
    let key = generate_key();
    let request = upgrade_request(plan, &key).map_err(|error| unanswered("cannot send the upgrade", &error))?;
    let response = exchange(stream, request).await.map_err(|error| unanswered("no answer to the upgrade", &error))?;
    let status = Some(response.status());
    let agreement = check(&response, plan, &key).map_err(|message| OpenError { status, message })?;
    let connection = upgraded(response, &agreement).await;
    let lost = || OpenError { status, message: "the connection ended with the upgrade".to_owned() };
    Ok((connection.ok_or_else(lost)?, agreement))
}

fn unanswered(context: &str, error: &dyn Error) -> OpenError {
    let message = match error.source() {
        Some(source) => format!("{context}: {error}: {source}"),
        None => format!("{context}: {error}"),
    };
    OpenError { status: None, message }
}

fn upgrade_request(plan: &Plan, key: &str) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut request = Request::get(plan.url.target())
        .header(HOST, plan.url.host_header())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key);
    if !plan.subprotocols.is_empty() {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, plan.subprotocols.join(", "));
    }
    let mut request = request.body(Empty::new())?;
    if plan.headers.contains_key(HOST) {
        request.headers_mut().remove(HOST);
    }
    for (name, value) in &plan.headers {
        request.headers_mut().append(name, value.clone());
    }
    Ok(request)
}

async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) =
        http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await?;
    // It ends with the response, or hands the stream over. The request reports its errors.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// Checks the server's answer as RFC 6455, 4.1 demands, and as browsers do.
fn check(response: &Response<Incoming>, plan: &Plan, key: &str) -> Result<Agreement, String> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("the server refused the upgrade with {}", response.status()));
    }
    let headers = response.headers();
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err("the server's 101 does not upgrade to WebSocket".to_owned());
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != &derive_accept_key(key.as_bytes())) {
        return Err("the server's 101 has no Sec-WebSocket-Accept that fits the key".to_owned());
    }
    let agreement = Agreement {
        subprotocol: text_of(headers, &SEC_WEBSOCKET_PROTOCOL),
        extensions: text_of(headers, &SEC_WEBSOCKET_EXTENSIONS),
    };
    match &agreement.subprotocol {
        None if plan.subprotocols.is_empty() => {}
        None => return Err("the server chose none of the offered subprotocols".to_owned()),
        Some(chosen) if plan.subprotocols.contains(chosen) => {}
        Some(chosen) => return Err(format!("the server chose the subprotocol {chosen:?}, which was not offered")),
    }
    match &agreement.extensions {
        Some(agreed) if !plan.headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) => {
            Err(format!("the server agreed to {agreed:?}, but no extension was offered"))
        }
        _ => Ok(agreement),
    }
}

async fn upgraded(response: Response<Incoming>, agreement: &Agreement) -> Option<PeerConnection<TcpStream>> {
    let upgraded = hyper::upgrade::on(response).await.ok()?;
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let mut connection = PeerConnection::new(io.into_inner(), Role::Client, &read_buf);
    if agreement.extensions.is_some() {
        connection.allow_reserved_bits();
    }
    Some(connection)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    (!values.is_empty()).then(|| String::from_utf8_lossy(&values.join(&b", "[..])).into_owned())
}
