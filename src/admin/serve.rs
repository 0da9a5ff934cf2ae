//! A small HTTP/1.1 server that nobody can hold: few connections, one request on each, a short life.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::judge::{Verdict, judge};

/// Connections at once. The next one waits in the accept queue, for [`LIFE`] at most: a scrape that comes late is worth
/// more than one that fails.
pub const CONNECTIONS: usize = 32;
/// For the whole request head, however slowly it drips.
pub const HEAD: Duration = Duration::from_secs(5);
/// For a connection as a whole, reading or not.
pub const LIFE: Duration = Duration::from_secs(10);

/// What is answered.
pub type Response = hyper::Response<Full<Bytes>>;

/// A request whose body nobody will read.
#[derive(Debug)]
pub struct Asked {
    /// Its head.
    pub head: Parts,
    /// Who asks.
    pub peer: SocketAddr,
    /// The address at which this server was reached; never a wildcard.
    pub own: SocketAddr,
}

impl Asked {
    /// Whether it may be answered at all: see [`judge`]. A line that should be single and isn't, or isn't text, counts
    /// as one that nothing matches.
    pub fn verdict(&self, hosts: &[String]) -> Verdict {
        let headers = &self.head.headers;
        // RFC 9112, 3.2.2: the authority of an absolute-form target goes before Host.
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

    /// What a browser says about where the request comes from.
    pub fn fetch_site(&self) -> Option<&str> {
        single(&self.head.headers, SEC_FETCH_SITE)
    }

    /// The Host, as sent; empty when there is none to rely on.
    pub fn host(&self) -> &str {
        single(&self.head.headers, HOST.as_str()).unwrap_or_default()
    }
}

/// Accepts for good. Each connection gets one request answered and is closed, at the latest after [`LIFE`].
pub async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Asked) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        let Ok((socket, peer)) = listener.accept().await else {
            // Out of descriptors, most likely: trying again at once would only burn a CPU.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            converse(socket, peer, answer).await;
            drop(seat);
        });
    }
}

/// A plain-text response with the headers that every response has.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, value("no-store"));
    headers.insert(CONTENT_TYPE, value("text/plain; charset=utf-8"));
    // No page may load it as a script or an image either.
    headers.insert("cross-origin-resource-policy", value("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    response
}

/// A header value that is written in the source; anything but visible ASCII panics.
pub const fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

async fn converse<A, F>(socket: TcpStream, peer: SocketAddr, answer: A)
where
    A: Fn(Asked) -> F,
    F: Future<Output = Response>,
{
    let Ok(own) = socket.local_addr() else { return };
    let service = service_fn(move |request: Request<Incoming>| {
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
    // Whatever went wrong went wrong over there; the next request comes on a socket of its own.
    let _ = timeout(LIFE, connection).await;
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
