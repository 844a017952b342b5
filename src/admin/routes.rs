//! The admin's endpoints: the handler of each path and method.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Query, Request, State},
    handler::Handler,
    http::{
        HeaderValue, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{self, MethodRouter},
};
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

use super::{
    Admin, ProcessPhase, Scope, closes, codes,
    connection_limit::AdminConnection,
    control::{self, ControlAction},
    metrics_text,
    permission::check_host,
};

const PAGE: &str = include_str!("index.html");

/// The state that all handlers share.
pub(super) struct Endpoints {
    pub(super) admin: Arc<Admin>,
    /// Cancelled when the admin stops.
    pub(super) stop: CancellationToken,
}

/// The endpoints of a listener.
pub(super) fn router(endpoints: Endpoints, scope: Scope) -> Router {
    let endpoints = Arc::new(endpoints);
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(async || line(StatusCode::OK, "healthy")))
        .route("/-/ready", get(ready));
    if scope == Scope::Full {
        router = router.merge(page_api_and_control());
    }
    router = router.fallback(async || line(StatusCode::NOT_FOUND, "not found"));
    if scope == Scope::Full {
        router = router.layer(middleware::from_fn_with_state(Arc::clone(&endpoints), apply_host_rule));
    }
    let header = SetResponseHeaderLayer::overriding;
    router
        .layer(header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(header(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(DefaultBodyLimit::max(control::MAX_BODY_BYTES))
        .layer(CatchPanicLayer::new())
        .with_state(endpoints)
}

/// A response of one line for people.
pub(super) fn line(status: StatusCode, line: &str) -> Response {
    (status, format!("{line}\n")).into_response()
}

type Shared = State<Arc<Endpoints>>;

fn page_api_and_control() -> Router<Arc<Endpoints>> {
    let not_supported_yet = get(async || line(StatusCode::NOT_FOUND, "not supported yet"));
    Router::new()
        .route("/", get(async || ([(CONTENT_SECURITY_POLICY, "default-src 'none'")], Html(PAGE))))
        .route("/api/v1/closes", get(latest_closes))
        .route("/api/v1/closes/stream", get(stream_of_closes))
        .route("/api/v1/handshakes", get(latest_handshakes))
        .route("/api/v1/codes", get(async || Json(codes::table())))
        .route("/api/v1/sessions", not_supported_yet.clone())
        .route("/api/v1/findings", not_supported_yet)
        .route("/-/reload", control(ControlAction::Reload))
        .route("/-/drain", control(ControlAction::Drain))
        .route("/-/close", control(ControlAction::Close))
}

async fn metrics(State(endpoints): Shared, Extension(connection): Extension<Arc<AdminConnection>>) -> Response {
    let metrics = &endpoints.admin.metrics;
    let Some(text) = metrics.current().await else {
        return line(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be rendered");
    };
    let response = connection.begin_scrape(text.len());
    metrics_text::respond(text, metrics.content_type(), response)
}

async fn ready(State(endpoints): Shared) -> Response {
    let phase = endpoints.admin.control.phase();
    let status = if phase == ProcessPhase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    line(status, phase.as_str())
}

async fn latest_closes(State(endpoints): Shared, Query(query): Query<Vec<(String, String)>>) -> Response {
    match closes::limit(&query) {
        Ok(limit) => closes::list(endpoints.admin.journal.latest(limit)),
        Err(message) => line(StatusCode::BAD_REQUEST, &message),
    }
}

async fn latest_handshakes(State(endpoints): Shared, Query(query): Query<Vec<(String, String)>>) -> Response {
    match closes::limit(&query) {
        Ok(limit) => closes::list(endpoints.admin.journal.latest_handshakes(limit)),
        Err(message) => line(StatusCode::BAD_REQUEST, &message),
    }
}

async fn stream_of_closes(
    State(endpoints): Shared,
    Extension(connection): Extension<Arc<AdminConnection>>,
) -> Response {
    let Some(response) = connection.begin_stream() else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "too many readers of the stream");
    };
    closes::stream(endpoints.admin.journal.subscribe(), endpoints.stop.clone(), response).into_response()
}

/// Applies the Host rule to the page and to everything under `/api/`. Control requests check it themselves; metrics and
/// health are for scrapers and probes, which use any name.
async fn apply_host_rule(State(endpoints): Shared, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if (path == "/" || path.starts_with("/api/"))
        && let Err(refusal) = check_host(&request, &endpoints.admin.options.load())
    {
        return refusal.into_response();
    }
    next.run(request).await
}

/// A path that is read. Any other method gets a 405.
fn get<H: Handler<T, Arc<Endpoints>>, T: 'static>(handler: H) -> MethodRouter<Arc<Endpoints>> {
    routing::get(handler).fallback(async || method_not_allowed("GET, HEAD"))
}

/// A path that changes something. Any other method gets a 405.
fn control(action: ControlAction) -> MethodRouter<Arc<Endpoints>> {
    routing::post(move |State(endpoints): Shared, request| control::answer(action, endpoints, request))
        .fallback(async || method_not_allowed("POST"))
}

fn method_not_allowed(allowed: &'static str) -> Response {
    let line = line(StatusCode::METHOD_NOT_ALLOWED, &format!("method not allowed: use {allowed}"));
    ([(ALLOW, allowed)], line).into_response()
}
