//! The admin server. It is read-only. It has a thread of its own, so that no scrape waits for a worker, and no worker waits
//! for a scrape.

pub(crate) mod judge;
pub(crate) mod scrape;
pub(crate) mod seats;
pub(crate) mod serve;
pub(crate) mod stats;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, StatusCode};
use tokio::sync::oneshot;

use self::judge::Verdict;
use self::serve::{Asked, Response, text};
use crate::control::guard::Guard;

/// The running admin server. Dropping it ends its thread and every connection to it, and waits for the thread. The wait is
/// no longer than the time to write one page.
#[derive(Debug)]
pub(crate) struct AdminServer {
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Answers `/metrics`, `/stats`, `/healthz` and `/readyz` on `listener`, for Hosts that [`judge::judge`] accepts; `hosts`
/// are further names of the server, in lower case. Fails if the thread can't be started or the socket can't be registered.
pub(crate) fn start(listener: TcpListener, hosts: Vec<String>, guard: Arc<Guard>) -> io::Result<AdminServer> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let hosts: Arc<[String]> = hosts.into();
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(async {
            let served = serve::serve(listener, move |asked| {
                let response = answer(&asked, &hosts, &guard);
                async { response }
            });
            tokio::select! {
                () = served => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(AdminServer {
        running: Some((stop, thread)),
    })
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.running.take() else {
            return;
        };
        drop(stop);
        // If the thread panicked, the panic hook has reported it.
        let _ = thread.join();
    }
}

fn answer(asked: &Asked, hosts: &[String], guard: &Guard) -> Response {
    // Health checkers send an address or a name of their own as Host, or no Host in HTTP/1.0. So they are answered under any
    // name. A hostile page learns nothing from the answer, which is one word.
    let is_probe = matches!(asked.head.uri.path(), "/healthz" | "/readyz");
    match asked.verdict(hosts) {
        Verdict::Answer => {}
        Verdict::Forbid => return text(StatusCode::FORBIDDEN, "Cross-site requests are not answered\n"),
        Verdict::Misdirect if is_probe => {}
        Verdict::Misdirect => return text(StatusCode::MISDIRECTED_REQUEST, MISDIRECTED),
    }
    let is_answered = match asked.head.method {
        Method::GET | Method::HEAD => true,
        // HAProxy's checks use this method by default.
        Method::OPTIONS => is_probe,
        _ => false,
    };
    if !is_answered {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, serve::value("GET, HEAD"));
        return response;
    }
    match asked.head.uri.path() {
        "/" => text(StatusCode::OK, INDEX),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/metrics" => typed(metrics_text(guard), "text/plain; version=0.0.4"),
        "/readyz" if guard.is_ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        "/stats" => typed(stats_json(guard), "application/json"),
        _ => text(StatusCode::NOT_FOUND, "Not found\n"),
    }
}

/// The page `/metrics`, in Prometheus' text format.
pub fn metrics_text(guard: &Guard) -> String {
    guard.scrape(scrape::metrics_text)
}

/// The page `/stats`: JSON, on one line.
pub(crate) fn stats_json(guard: &Guard) -> String {
    let mut json = serde_json::to_string(&stats::Stats::of(&guard.in_force())).unwrap_or_default();
    json.push('\n');
    json
}

fn typed(body: String, content_type: &'static str) -> Response {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, serve::value(content_type));
    response
}

const MISDIRECTED: &str = "This Host is not answered here: ask by a loopback address, localhost or the listen address, \
                           or add the name to admin.hosts\n";

const INDEX: &str = "\
wsguard

/metrics  counters and gauges for Prometheus
/stats    the same guard at a glance, JSON
/healthz  200 while the process is alive
/readyz   200 while it takes connections, 503 while it drains
";
