//! The HTTP server of the demo's page: the document, the numbers that the page polls, and the flood that its button starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use super::flood::{self, Flood};
use super::minute::{Minute, Second};
use super::numbers::Numbers;
use super::scoreboard::Progress;
use crate::admin::judge::{Verdict, name_of};
use crate::admin::serve::{self, Asked, Response, text, value};
use crate::control::guard::Guard;
use crate::limit::key::{ClientKey, Prefixes};
use crate::net::random::Random;

/// The state of the page's server.
#[derive(Debug)]
pub(crate) struct Page {
    /// The guard whose numbers the page shows.
    pub guard: Arc<Guard>,
    /// The address that the guard listens on.
    pub guard_at: SocketAddr,
    /// The guard's limit of connections for one address.
    pub per_ip: u32,
    /// Messages that the guard passes at once.
    pub burst: u32,
    /// Messages that the guard passes per second after that.
    pub rate: u32,
    /// The flood that the button starts.
    pub flood: Flood,
    /// The data of the charts.
    pub minute: Mutex<Minute>,
    /// The source of nonces.
    pub random: Random,
}

/// The answer to `/numbers`.
#[derive(Serialize)]
struct Polled {
    #[serde(flatten)]
    numbers: Numbers,
    last_minute: Vec<Second>,
    flood: Progress,
}

/// Serves the page for ever. The bounds and the allowed Hosts are those of the admin server.
pub(crate) async fn serve(listener: TcpListener, page: Arc<Page>) {
    let asked_of = Arc::clone(&page);
    let answers = serve::serve(listener, move |asked| {
        let page = Arc::clone(&asked_of);
        async move { page.answer(&asked) }
    });
    tokio::join!(answers, page.watch());
}

impl Page {
    fn answer(&self, asked: &Asked) -> Response {
        match asked.verdict(&[]) {
            Verdict::Answer => {}
            Verdict::Forbid => return text(StatusCode::FORBIDDEN, "Cross-site requests are not answered\n"),
            Verdict::Misdirect => {
                return text(
                    StatusCode::MISDIRECTED_REQUEST,
                    "Ask by the address that the demo printed\n",
                );
            }
        }
        let is_read = matches!(asked.head.method, Method::GET | Method::HEAD);
        match (asked.head.uri.path(), is_read) {
            ("/", true) => self.document(asked.host()),
            ("/numbers", true) => self.polled(asked.peer),
            ("/flood", false) if asked.head.method == Method::POST => self.start_flood(asked),
            ("/flood", _) => not_allowed("POST"),
            ("/" | "/numbers", false) => not_allowed("GET, HEAD"),
            _ => text(StatusCode::NOT_FOUND, "Not found\n"),
        }
    }

    fn document(&self, host: &str) -> Response {
        let guard = self.guard_url(host);
        let nonce = nonce(&self.random);
        let html = PAGE
            .replace("{{style}}", STYLE)
            .replace("{{script}}", SCRIPT)
            .replace("{{numbers}}", NUMBERS)
            .replace("{{guard}}", &guard)
            .replace("{{nonce}}", &nonce)
            .replace("{{burst}}", &self.burst.to_string())
            .replace("{{rate}}", &self.rate.to_string())
            .replace("{{seconds}}", &flood::LASTS.as_secs().to_string())
            .replace("{{per_ip}}", &self.per_ip.to_string());
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
             connect-src 'self' {guard}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let Ok(policy) = HeaderValue::try_from(policy) else {
            return text(StatusCode::BAD_REQUEST, "Not a Host\n");
        };
        let mut response = text(StatusCode::OK, html);
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(CONTENT_TYPE, value("text/html; charset=utf-8"));
        headers.insert(REFERRER_POLICY, value("no-referrer"));
        response
    }

    /// The guard's URL as the browser can reach it. `host` was already checked to be a name of this server, so no foreign
    /// text gets into the page.
    fn guard_url(&self, host: &str) -> String {
        match name_of(host) {
            Some(name) if self.guard_at.ip().is_unspecified() => format!("ws://{name}:{}/chat", self.guard_at.port()),
            _ => format!("ws://{}/chat", self.guard_at),
        }
    }

    fn polled(&self, asker: SocketAddr) -> Response {
        let polled = Polled {
            numbers: self.numbers(asker.ip()),
            last_minute: self.minute.lock().seconds(),
            flood: self.flood.progress(),
        };
        json(StatusCode::OK, &polled)
    }

    /// The guard's numbers now. `asker` is the browser's address. The guard sees the browser under the same address.
    pub(crate) fn numbers(&self, asker: IpAddr) -> Numbers {
        let asker = ClientKey::of(asker, Prefixes::default());
        Numbers::of(&self.guard.in_force(), asker, self.per_ip)
    }

    /// Records each second, even while no page is open, so that a new page shows the minute before it was opened.
    async fn watch(&self) {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            let now = self.numbers(Ipv4Addr::LOCALHOST.into());
            self.minute.lock().note(now);
        }
    }

    fn start_flood(&self, asked: &Asked) -> Response {
        // A POST has an effect, so pages on other ports of this host are refused too.
        if !matches!(asked.fetch_site(), None | Some("same-origin")) {
            return text(StatusCode::FORBIDDEN, "Only the demo's own page may flood\n");
        }
        match self.flood.start() {
            Some(_) => json(StatusCode::ACCEPTED, &self.flood.progress()),
            None => text(StatusCode::CONFLICT, "A flood is running\n"),
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("numbers and strings can always be written as JSON");
    let mut response = text(status, body);
    response.headers_mut().insert(CONTENT_TYPE, value("application/json"));
    response
}

fn not_allowed(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("Only {allowed}\n"));
    response.headers_mut().insert(ALLOW, value(allowed));
    response
}

/// A nonce for one document: 128 bits.
fn nonce(random: &Random) -> String {
    format!("{:032x}", u128::from_le_bytes(random.bytes()))
}

const NUMBERS: &str = include_str!("numbers.js");
const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_gets_a_nonce_of_its_own_of_128_bits() {
        let random = Random::seeded([7; 16]);
        let [first, second] = [nonce(&random), nonce(&random)];
        assert_ne!(first, second);
        for nonce in [first, second] {
            assert_eq!(nonce.len(), 32);
            assert!(nonce.bytes().all(|digit| digit.is_ascii_hexdigit()), "{nonce}");
        }
    }
}
