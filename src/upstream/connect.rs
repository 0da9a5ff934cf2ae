//! Connects a client to a server of its upstream: chooses, dials, and reports what came of it.
//!
//! A server that can't be reached was sent nothing, so the next one is tried. What the server answers is not looked at
//! here: the lease goes to the caller, which reports on it.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::group::Upstream;
use super::lease::Lease;
use super::outcome::Outcome;
use super::server::Server;
use crate::limit::key::ClientKey;
use crate::net::address::Target;
use crate::net::clock::Clock;
use crate::net::dial::{self, Dialled};
use crate::net::fault;
use crate::net::transport::Transport;

/// What a client wants from an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The client, for a choice that depends on it.
    pub client: ClientKey,
    /// Its request. The beginning is sent with the dial.
    pub request: &'a [u8],
    /// The time limit of one dial; `None` for none.
    pub dial: Option<Duration>,
}

/// A server that took the connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub transport: Transport,
    /// Bytes of the request that were sent with the dial.
    pub sent: usize,
    /// The lease on the server.
    pub lease: Lease,
}

/// What happens while servers are dialled.
#[derive(Clone, Copy, Debug)]
pub enum DialEvent<'a> {
    /// A dial begins.
    Began,
    /// The server took the connection.
    Succeeded,
    /// The server can't be reached; the system's error says why.
    Failed(&'a io::Error),
    /// The server did not answer within the time limit of a dial.
    TimedOut,
}

/// Why no server took the connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server has an address.
    #[error("no server is up")]
    NoneUp,
    /// Every server that was dialled failed at once.
    #[error("{0}")]
    Unreachable(Causes),
    /// At least one server did not answer in time, and none took the connection.
    #[error("{0}")]
    TimedOut(Causes),
    /// This machine has no local port that is free for any of the servers (`EADDRNOTAVAIL`, connect(2)).
    #[error("no free local port; more of them: sysctl net.ipv4.ip_local_port_range, or more addresses of the server")]
    NoLocalPort,
    /// This process or machine has no room for another socket, so no server can be dialled.
    #[error(transparent)]
    OutOfRoom(io::Error),
}

/// Each server that was dialled, and why it did not take the connection, in the system's words.
#[derive(Debug, Default)]
pub struct Causes(Vec<(Arc<str>, String)>);

impl Causes {
    fn add(&mut self, server: &Server, cause: String) {
        self.0.push((Arc::clone(server.label()), cause));
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (server, cause)) in self.0.iter().enumerate() {
            let separator = if nth > 0 { "; " } else { "" };
            write!(f, "{separator}{server}: {cause}")?;
        }
        Ok(())
    }
}

/// Dials the servers of `upstream`, each once, best first, until one takes the connection. Passes each event to
/// `observe`, together with the server concerned.
///
/// # Errors
/// No server took the connection; nothing of the request was sent then.
pub async fn connect(
    upstream: &Upstream,
    demand: Demand<'_>,
    clock: &Clock,
    mut observe: impl FnMut(&Arc<Server>, DialEvent<'_>),
) -> Result<Connection, ConnectError> {
    let (mut causes, mut has_timed_out, mut lacks_port) = (Causes::default(), false, false);
    for lease in upstream.attempts(demand.client) {
        observe(lease.server(), DialEvent::Began);
        let deadline = demand.dial.map(|limit| clock.now() + limit);
        let dialled = {
            let dialling = pin!(dial(lease.server(), demand.request));
            clock.within(deadline, dialling).await
        };
        match dialled {
            Some(Ok(Dialled { transport, sent })) => {
                fault::point("dial");
                observe(lease.server(), DialEvent::Succeeded);
                return Ok(Connection { transport, sent, lease });
            }
            Some(Err(error)) if dial::is_out_of_room(&error) => return Err(ConnectError::OutOfRoom(error)),
            // Local ports are counted for each address of a server, so another one may be in reach.
            Some(Err(error)) if dial::lacks_local_port(&error) => {
                lacks_port = true;
                continue;
            }
            Some(Err(error)) => {
                observe(lease.server(), DialEvent::Failed(&error));
                causes.add(lease.server(), error.to_string());
            }
            None => {
                observe(lease.server(), DialEvent::TimedOut);
                causes.add(lease.server(), "no answer within `dial`".to_owned());
                has_timed_out = true;
            }
        }
        lease.report(Outcome::DialFailed);
    }
    Err(if has_timed_out {
        ConnectError::TimedOut(causes)
    } else if !causes.0.is_empty() {
        ConnectError::Unreachable(causes)
    } else if lacks_port {
        ConnectError::NoLocalPort
    } else {
        ConnectError::NoneUp
    })
}

/// One attempt at one server. Its addresses are tried in turn, since a name may have addresses where nothing listens.
async fn dial(server: &Server, request: &[u8]) -> io::Result<Dialled> {
    if let Target::Unix(path) = server.target() {
        return dial::unix(path).await;
    }
    let mut last = io::ErrorKind::NotFound.into();
    for address in server.addresses().iter() {
        match dial::tcp(*address, request).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;
    use crate::upstream::rules::{Balance, UpstreamRules};

    /// An upstream of these servers, which are dialled in this order.
    fn upstream(servers: &[SocketAddr]) -> Upstream {
        let rules = UpstreamRules {
            name: "chat".into(),
            servers: servers.iter().map(|address| Target::Tcp(*address)).collect(),
            balance: Balance::RoundRobin,
        };
        Upstream::new(&rules, |target| Arc::new(Server::new(target.clone())))
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nothing listens. The port stays bound, so that nothing else gets it.
    fn refusing() -> (socket2::Socket, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    /// An address where no dial is answered, because the listener's queue is full.
    fn silent() -> (socket2::Socket, TcpStream, SocketAddr) {
        let (socket, address) = refusing();
        socket.listen(0).unwrap();
        let first = TcpStream::connect(address).unwrap();
        (socket, first, address)
    }

    /// Dials the servers of `upstream`. Returns the outcome, and each event with the server's place in the upstream.
    async fn connect_to(upstream: &Upstream, dial: Duration) -> (Result<Connection, ConnectError>, Vec<String>) {
        let mut events = Vec::new();
        let demand = Demand {
            client: ClientKey::UNIX,
            request: b"GET / HTTP/1.1\r\n",
            dial: Some(dial),
        };
        let clock = Clock::begin(Instant::now());
        let connected = connect(upstream, demand, &clock, |server, event| {
            let place = upstream.servers().iter().position(|each| Arc::ptr_eq(each, server));
            let event = match event {
                DialEvent::Began => "began",
                DialEvent::Succeeded => "succeeded",
                DialEvent::Failed(_) => "failed",
                DialEvent::TimedOut => "timed out",
            };
            events.push(format!("{} {event}", place.unwrap()));
        })
        .await;
        (connected, events)
    }

    fn open(upstream: &Upstream) -> Vec<u32> {
        upstream.servers().iter().map(|server| server.open()).collect()
    }

    fn failures(upstream: &Upstream) -> Vec<u64> {
        upstream.servers().iter().map(|server| server.dial_failures()).collect()
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn servers_that_fail_are_passed_by_and_only_the_last_one_is_leased() {
        let (_refusing, first) = refusing();
        let (_silent, _queued, second) = silent();
        let (_listener, third) = listener();
        let upstream = upstream(&[first, second, third]);
        let (connected, events) = connect_to(&upstream, SHORT).await;
        let connection = connected.unwrap();
        assert_eq!(connection.lease.server().addresses()[0], third);
        let all = [
            "0 began",
            "0 failed",
            "1 began",
            "1 timed out",
            "2 began",
            "2 succeeded",
        ];
        assert_eq!(events, all);
        assert_eq!(failures(&upstream), [1, 1, 0]);
        assert_eq!(open(&upstream), [0, 0, 1]);
        drop(connection);
        assert_eq!(open(&upstream), [0, 0, 0]);
    }

    #[tokio::test]
    async fn if_no_server_takes_the_connection_the_error_says_the_likeliest_cause() {
        let (_refusing, refuses) = refusing();
        let (_silent, _queued, is_silent) = silent();
        let only = upstream(&[refuses]);
        assert!(matches!(
            connect_to(&only, LONG).await.0,
            Err(ConnectError::Unreachable(_))
        ));
        for servers in [[is_silent, refuses], [refuses, is_silent]] {
            let both = upstream(&servers);
            assert!(matches!(
                connect_to(&both, SHORT).await.0,
                Err(ConnectError::TimedOut(_))
            ));
            assert_eq!((open(&both), failures(&both)), (vec![0, 0], vec![1, 1]));
        }
        let rules = UpstreamRules {
            name: "chat".into(),
            servers: vec![Target::Name {
                host: "nowhere.invalid".into(),
                port: 1,
            }],
            balance: Balance::LeastConn,
        };
        let unresolved = Upstream::new(&rules, |target| Arc::new(Server::new(target.clone())));
        let (connected, events) = connect_to(&unresolved, LONG).await;
        assert!(matches!(connected, Err(ConnectError::NoneUp)));
        assert!(events.is_empty(), "{events:?}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_during_a_dial_says_nothing_about_the_server() {
        let (_silent, _queued, address) = silent();
        let upstream = upstream(&[address]);
        let dialling = connect_to(&upstream, LONG);
        assert!(tokio::time::timeout(SHORT, dialling).await.is_err());
        assert_eq!((open(&upstream), failures(&upstream)), (vec![0], vec![0]));
    }
}
