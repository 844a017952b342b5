//! Serves one request of a client's connection with the HTTP library: a plain request, or a response that is known
//! already, to an upgrade or to a request that is refused.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{pending, poll_fn, ready},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response, header,
    server::conn::http1::{self, Parts},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    body::{BodyProgress, RequestBody, ResponseBody},
    framing::BodyFraming,
    handback::OneRequest,
    response::{Body, close_after, is_own},
};
use crate::proxy::{forwarding_headers::has_token, upgrade::raw_head::RequestHead};

/// The usual size of the library's buffers, its smallest.
const BUFFER: usize = 8 * 1024;

/// The library's usual number of header lines.
const LINES: usize = 100;

/// A client's connection, and the bytes that were read of it.
pub(crate) type Client<'a> = (&'a mut TcpStream, &'a mut BytesMut);

/// The state of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// It may bring another request.
    Kept,
    /// It is over.
    Over,
    /// It is over, and the client does not read.
    Stalled,
}

/// Serves the request with this head, whose body comes next on the connection. `limit` is how long the request's body may
/// not go on, and how long the client may accept nothing of the response.
pub(crate) async fn serve<A, F>(
    client: Client<'_>,
    (head, body): (Bytes, BodyFraming),
    limit: Duration,
    answer: A,
) -> Served
where
    A: FnOnce(Request<RequestBody>) -> F + Unpin,
    F: Future<Output = Response<Body>>,
{
    let builder = builder(&head);
    let progress = Arc::<BodyProgress>::default();
    let request = OneRequest::new(client, head, body, Arc::clone(&progress), limit);
    let (answer, of_service) = (Cell::new(Some(answer)), Arc::clone(&progress));
    let service = service_fn(move |request: Request<_>| {
        let (answer, progress) = (answer.take(), Arc::clone(&of_service));
        Box::pin(async move {
            // There is no second request.
            let Some(answer) = answer else { return pending().await };
            let mut response = answer(request.map(|body| RequestBody::new(body, Arc::clone(&progress), limit))).await;
            if is_own(&response) && !progress.is_request_read() {
                // The rest of the request is not read.
                close_after(&mut response);
            }
            Ok::<_, Infallible>(response.map(|body| ResponseBody::new(body, progress)))
        })
    });
    let mut served = builder.serve_connection(TokioIo::new(request), service);
    let is_over = poll_fn(|cx| {
        progress.register(cx);
        match served.poll_without_shutdown(cx) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if progress.is_over() => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    let Parts { io, read_buf, .. } = served.into_parts();
    let request = io.into_inner();
    match is_over && progress.is_request_read() && request.is_given() && read_buf.is_empty() {
        true => Served::Kept,
        false if request.has_stalled() => Served::Stalled,
        false => Served::Over,
    }
}

/// Sends a response to a request whose head the library does not see. The library answers requests only, so it gets one
/// to which it must answer in the same way.
pub(crate) async fn respond(
    client: Client<'_>,
    request: Option<&RequestHead<'_>>,
    limit: Duration,
    response: Response<Body>,
) -> Served {
    let head = stand_in(request).into();
    serve(client, (head, BodyFraming::EMPTY), limit, |_| ready(response)).await
}

/// A request with the method, the version and the persistence of another one; if there is none, one that ends the
/// connection.
fn stand_in(request: Option<&RequestHead<'_>>) -> String {
    let method = request.map(|request| request.method).filter(|method| *method == "HEAD").unwrap_or("GET");
    let version = if request.is_some_and(|request| !request.is_http_11) { "1.0" } else { "1.1" };
    let has = |token| request.is_some_and(|request| has_token(&request.fields, &header::CONNECTION, token));
    let connection = match (has("close") || request.is_none(), has("keep-alive")) {
        (true, _) => "close",
        (false, true) => "keep-alive",
        (false, false) => "",
    };
    format!("{method} / HTTP/{version}\r\nConnection: {connection}\r\n\r\n")
}

fn builder(head: &[u8]) -> http1::Builder {
    let lines = head.split(|byte| *byte == b'\n').count();
    let mut builder = http1::Builder::new();
    builder
        // The library needs room for one byte behind the head.
        .max_buf_size(BUFFER.max(head.len() + 1))
        .preserve_header_case(true)
        .title_case_headers(true)
        .auto_date_header(false);
    if lines > LINES {
        builder.max_headers(lines);
    }
    builder
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::StatusCode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::proxy::{
        http::{body::BodyError, framing::Chunks, response::refusal},
        upgrade::raw_head::Parsed,
    };

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\n";
    const LIMIT: Duration = Duration::from_millis(100);

    /// Both ends of a connection: the client's, and closewatch's.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Reads the request's body and responds with its length.
    async fn length(request: Request<RequestBody>) -> Response<Body> {
        match request.into_body().collect().await {
            Ok(body) => refusal(StatusCode::OK, &body.to_bytes().len().to_string()),
            Err(BodyError::Stalled) => refusal(StatusCode::REQUEST_TIMEOUT, "stalled"),
            Err(BodyError::Broken(_)) => refusal(StatusCode::BAD_REQUEST, "broken"),
        }
    }

    /// Serves [`HEAD`] with a chunked body. The client has sent this much of it.
    async fn serve_chunked(body: &[u8]) -> (Served, BytesMut, String) {
        let (mut client, mut stream) = connection().await;
        client.write_all(body).await.unwrap();
        let mut read = BytesMut::new();
        let request = (Bytes::from_static(HEAD), BodyFraming::Chunked(Chunks::Size(0)));
        let served = serve((&mut stream, &mut read), request, LIMIT, length).await;
        drop(stream);
        let mut response = Vec::new();
        // An end with unread bytes is a reset.
        let _ = client.read_to_end(&mut response).await;
        (served, read, String::from_utf8(response).unwrap())
    }

    #[tokio::test]
    async fn bytes_behind_a_request_stay_on_the_connection() {
        for body in [b"0\r\n\r\n".as_slice(), b"5\r\nhello\r\n0\r\nX-Trailer: GET / HTTP/1.1\r\n\r\n"] {
            let (served, read, response) = serve_chunked(&[body, NEXT].concat()).await;
            assert_eq!((served, &read[..]), (Served::Kept, NEXT), "{response}");
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        }
    }

    #[tokio::test]
    async fn body_that_does_not_come_is_408_and_ends_the_connection() {
        for body in [b"".as_slice(), b"5\r\nhel", b"5\r\nhello\r\n0\r\n"] {
            let (served, _, response) = serve_chunked(body).await;
            assert_eq!(served, Served::Over, "{response}");
            assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
            assert!(response.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{response}");
        }
    }

    #[tokio::test]
    async fn malformed_body_ends_the_connection() {
        for body in [b"x\r\n".as_slice(), b"\r\n", b"5\r\nhelloworld\r\n", b"fffffffffffffffff\r\n"] {
            let (served, _, response) = serve_chunked(body).await;
            assert_eq!(served, Served::Over, "{response}");
            assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
        }
    }

    #[tokio::test]
    async fn response_that_the_client_does_not_read_stalls() {
        let (_client, mut stream) = connection().await;
        let mut read = BytesMut::new();
        let large = refusal(StatusCode::OK, &"x".repeat(32 << 20));
        assert_eq!(respond((&mut stream, &mut read), None, LIMIT, large).await, Served::Stalled);
    }

    #[test]
    fn stand_in_is_answered_like_the_request() {
        for (request, expected) in [
            ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nConnection: \r\n\r\n"),
            ("POST /a HTTP/1.1\r\nConnection: x, Close\r\n\r\n", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
            ("HEAD /a HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.0\r\nConnection: \r\n\r\n"),
            ("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        ] {
            let Parsed::Whole(head, _) = RequestHead::parse(request.as_bytes()) else { panic!("{request}") };
            assert_eq!(stand_in(Some(&head)), expected);
        }
        assert_eq!(stand_in(None), "GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    }
}
