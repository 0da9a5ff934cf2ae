//! A small HTTP/1.1 server that no peer can block. It has few connections. Each has one request and a short life.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::judge::{Verdict, judge};
use super::seats::{Seat, Seats};

/// The most connections at once. If there are more, a new connection replaces an old one, which [`Seats::take`] chooses.
pub const CONNECTIONS: usize = 32;
/// The time for the whole request head, even if it comes byte by byte.
pub const HEAD: Duration = Duration::from_secs(5);
/// The time for a whole connection, whether its peer reads or not.
pub const LIFE: Duration = Duration::from_secs(10);

/// An answer.
pub type Response = hyper::Response<Full<Bytes>>;

/// A request. Its body is not read.
#[derive(Debug)]
pub struct Asked {
    /// The head of the request.
    pub head: Parts,
    /// The peer that sent the request.
    #[cfg_attr(
        not(feature = "demo"),
        expect(dead_code, reason = "only the demo tells clients apart")
    )]
    pub peer: SocketAddr,
    /// The address at which this server was reached; never a wildcard.
    pub own: SocketAddr,
}

impl Asked {
    /// Whether the request may be answered: see [`judge`]. A header that is repeated, or is not text, matches nothing.
    pub fn verdict(&self, hosts: &[String]) -> Verdict {
        let headers = &self.head.headers;
        // RFC 9112, 3.2.2: the authority of an absolute-form target overrides Host.
        let host = self
            .head
            .uri
            .authority()
            .map_or_else(|| single(headers, HOST.as_str()), |a| Some(a.as_str()));
        judge(
            host,
            self.own,
            hosts,
            single(headers, SEC_FETCH_SITE),
            single(headers, ORIGIN.as_str()),
        )
    }
}

/// What the page of the demo needs of a request.
#[cfg(feature = "demo")]
impl Asked {
    /// The header in which a browser says where the request comes from.
    pub fn fetch_site(&self) -> Option<&str> {
        single(&self.head.headers, SEC_FETCH_SITE)
    }

    /// The Host as sent. Empty if there is no Host, or if it is repeated or not text.
    pub fn host(&self) -> &str {
        single(&self.head.headers, HOST.as_str()).unwrap_or_default()
    }
}

/// Accepts connections for ever. Each connection gets one answer and is closed, at the latest after [`LIFE`].
pub async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Asked) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let seats = Seats::new(CONNECTIONS);
    loop {
        let Ok((socket, peer)) = listener.accept().await else {
            // Most likely there is no free descriptor: an immediate retry would only use up a CPU.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (seat, answer) = (seats.take(peer.ip().to_canonical()), answer.clone());
        tokio::spawn(converse(socket, peer, seat, answer));
        // Complete requests are answered before the next connection takes a seat, even if many connections come.
        yield_now().await;
    }
}

/// A plain-text response with the headers that every response has.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, value("no-store"));
    headers.insert(CONTENT_TYPE, value("text/plain; charset=utf-8"));
    // This also forbids pages of other sites to load the response as a script or an image.
    headers.insert("cross-origin-resource-policy", value("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    response
}

/// A header value that is written in the source. Panics unless it is visible ASCII.
pub const fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

async fn converse<A, F>(socket: TcpStream, peer: SocketAddr, mut seat: Seat, answer: A)
where
    A: Fn(Asked) -> F,
    F: Future<Output = Response>,
{
    let Ok(own) = socket.local_addr() else { return };
    let bell = seat.bell();
    let service = service_fn(move |request: Request<Incoming>| {
        bell.ring();
        let response = answer(Asked {
            head: request.into_parts().0,
            peer,
            own,
        });
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .half_close(true)
        .keep_alive(false)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(socket), service);
    // An error is ignored: it concerns only this connection, and the next request comes on another one.
    tokio::select! {
        _ = timeout(LIFE, connection) => {}
        () = seat.lost() => {}
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() {
        ""
    } else {
        first.to_str().unwrap_or_default()
    })
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HEAD_SIZE: usize = 16 * 1024;
const SEC_FETCH_SITE: &str = "sec-fetch-site";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Begins to serve two pages: a small one, and one that is larger than the kernel's buffers for one connection.
    async fn begin() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let large = Bytes::from(vec![b'a'; 16 << 20]);
        tokio::spawn(serve(listener, move |asked| {
            let large = large.clone();
            async move {
                match asked.head.uri.path() {
                    "/large" => text(StatusCode::OK, large),
                    _ => text(StatusCode::OK, "ok\n"),
                }
            }
        }));
        address
    }

    async fn asked(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }

    async fn is_answered_at_once(address: SocketAddr) {
        let begin = Instant::now();
        let mut socket = asked(address, b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"),
            "{answer}"
        );
        assert!(begin.elapsed() < HEAD / 2, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn a_new_connection_is_answered_even_if_many_others_hang() {
        let unfinished: [&[u8]; 4] = [
            b"",
            b"G",
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        for bytes in unfinished {
            let address = begin().await;
            let mut hanging = Vec::new();
            for _ in 0..100 {
                hanging.push(asked(address, bytes).await);
            }
            for _ in 0..3 {
                is_answered_at_once(address).await;
            }
        }
    }

    #[tokio::test]
    async fn a_reader_of_a_long_answer_keeps_its_seat_while_other_connections_say_nothing() {
        let address = begin().await;
        let mut reader = asked(address, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut head = [0; 12];
        reader.read_exact(&mut head).await.unwrap();
        let mut hanging = Vec::new();
        for _ in 0..100 {
            hanging.push(asked(address, b"G").await);
            is_answered_at_once(address).await;
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() > 16 << 20, "{} bytes", rest.len());
    }

    #[tokio::test]
    async fn a_hundred_requests_at_once_are_all_answered() {
        let address = begin().await;
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(asked(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await);
        }
        for mut socket in all {
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("ok\n"), "{answer}");
        }
    }
}
