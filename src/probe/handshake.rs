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

use super::{Opening, Plan};
use crate::peer::Connection;

/// Why there is no WebSocket.
pub(super) struct Refusal {
    /// The server's answer to the upgrade, where there was one.
    pub(super) status: Option<StatusCode>,
    pub(super) why: String,
}

/// Connects and upgrades.
pub(super) async fn open(plan: &Plan) -> Result<(Connection<TcpStream>, Opening), Refusal> {
    let (host, port) = (&plan.url.authority.host, plan.url.port());
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| unanswered(&format!("cannot connect to {host}:{port}"), &error))?;
    // Only latency suffers without it.
    let _ = stream.set_nodelay(true);
    let key = generate_key();
    let request = upgrade_request(plan, &key).map_err(|error| unanswered("cannot ask for the upgrade", &error))?;
    let response = exchange(stream, request).await.map_err(|error| unanswered("no answer to the upgrade", &error))?;
    let status = Some(response.status());
    let opening = check(&response, plan, &key).map_err(|why| Refusal { status, why })?;
    let connection = upgraded(response, &opening).await;
    Ok((connection.ok_or(Refusal { status, why: "the connection ended with the upgrade".to_owned() })?, opening))
}

fn unanswered(what: &str, error: &dyn Error) -> Refusal {
    let why = match error.source() {
        Some(source) => format!("{what}: {error}: {source}"),
        None => format!("{what}: {error}"),
    };
    Refusal { status: None, why }
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
    // It ends with the response or hands the stream over; its errors are the request's.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// Holds the server's answer against RFC 6455, 4.1, and what browsers add to it.
fn check(response: &Response<Incoming>, plan: &Plan, key: &str) -> Result<Opening, String> {
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
    let opening = Opening {
        subprotocol: text_of(headers, &SEC_WEBSOCKET_PROTOCOL),
        extensions: text_of(headers, &SEC_WEBSOCKET_EXTENSIONS),
    };
    match &opening.subprotocol {
        None if plan.subprotocols.is_empty() => {}
        None => return Err("the server chose none of the offered subprotocols".to_owned()),
        Some(chosen) if plan.subprotocols.contains(chosen) => {}
        Some(chosen) => return Err(format!("the server chose the subprotocol {chosen:?}, which was not offered")),
    }
    match &opening.extensions {
        Some(agreed) if !plan.headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) => {
            Err(format!("the server agreed to {agreed:?}, but no extension was offered"))
        }
        _ => Ok(opening),
    }
}

async fn upgraded(response: Response<Incoming>, opening: &Opening) -> Option<Connection<TcpStream>> {
    let upgraded = hyper::upgrade::on(response).await.ok()?;
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let mut connection = Connection::new(io.into_inner(), Role::Client, &read_buf);
    if opening.extensions.is_some() {
        connection.allow_extension();
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
