//! A named group of servers, and the choice among them: round-robin, least-conn, hash-ip.

use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use siphasher::sip::SipHasher13;

use super::lease::Lease;
use super::rules::{Balance, UpstreamRules};
use super::server::Server;
use crate::limit::key::ClientKey;

/// An upstream: its servers and how one of them is chosen.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    balance: Balance,
    servers: Vec<Arc<Server>>,
    /// Where the next round starts. Least-conn uses it too, so that equal servers take turns.
    turn: AtomicUsize,
}

/// The servers of one upstream for one connection, each once, best first.
#[derive(Debug)]
pub struct Attempts<'a> {
    upstream: &'a Upstream,
    tried: Vec<usize>,
    client: ClientKey,
    first: usize,
}

impl Upstream {
    /// Makes an upstream from `rules`. `server` returns the server of a target, so that known servers keep their
    /// counts.
    pub fn new(rules: &UpstreamRules, server: impl FnMut(&crate::net::address::Target) -> Arc<Server>) -> Self {
        Self {
            name: Arc::clone(&rules.name),
            balance: rules.balance,
            servers: rules.servers.iter().map(server).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its servers in the order written.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Begins the choice for a client.
    pub fn attempts(&self, client: ClientKey) -> Attempts<'_> {
        let first = self.turn.fetch_add(1, Relaxed) % self.servers.len();
        Attempts {
            upstream: self,
            tried: Vec::new(),
            client,
            first,
        }
    }
}

impl Iterator for Attempts<'_> {
    type Item = Lease;

    /// A lease on the best server that has an address and was not tried yet.
    fn next(&mut self) -> Option<Lease> {
        let servers = &self.upstream.servers;
        let turns = (0..servers.len()).map(|step| (self.first + step) % servers.len());
        let mut able = turns.filter(|index| !self.tried.contains(index) && servers[*index].is_up());
        let chosen = match self.upstream.balance {
            Balance::RoundRobin => able.next(),
            Balance::LeastConn => able.min_by_key(|index| servers[*index].open()),
            Balance::HashIp => able.max_by_key(|index| weight(self.client, &servers[*index])),
        }?;
        self.tried.push(chosen);
        Some(Lease::new(&servers[chosen]))
    }
}

/// Rendezvous hashing: the server with the highest weight gets the client, so that a server that comes or goes moves only
/// its own share of the clients.
///
/// The hash is SipHash-1-3 with a key of zeros, over the bytes of the client key and the server as written. It has to be
/// the same in every thread, run and build: a change of it moves every client.
fn weight(client: ClientKey, server: &Server) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&client.to_bytes());
    hasher.write(server.label().as_bytes());
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::limit::key::Prefixes;
    use crate::net::address::Target;
    use crate::upstream::outcome::Outcome;

    fn upstream(balance: Balance, ports: &[u16]) -> Upstream {
        let servers = ports
            .iter()
            .map(|port| Target::Tcp(([127, 0, 0, 1], *port).into()))
            .collect();
        let rules = UpstreamRules {
            name: "chat".into(),
            servers,
            balance,
        };
        Upstream::new(&rules, |target| Arc::new(Server::new(target.clone())))
    }

    fn client(number: u32) -> ClientKey {
        ClientKey::of(Ipv4Addr::from_bits(number).into(), Prefixes::default())
    }

    fn port(lease: &Lease) -> u16 {
        lease.server().addresses()[0].port()
    }

    #[test]
    fn least_conn_takes_the_emptiest_and_equals_take_turns() {
        let upstream = upstream(Balance::LeastConn, &[1, 2, 3]);
        let mut held: Vec<Lease> = (0..6).map(|_| upstream.attempts(client(0)).next().unwrap()).collect();
        assert!(upstream.servers().iter().all(|server| server.open() == 2));
        held.retain(|lease| port(lease) != 2);
        assert_eq!(port(&upstream.attempts(client(0)).next().unwrap()), 2);
        drop(held);
        assert!(upstream.servers().iter().all(|server| server.open() == 0));
    }

    #[test]
    fn round_robin_ignores_what_is_open() {
        let upstream = upstream(Balance::RoundRobin, &[1, 2, 3]);
        let leases: Vec<Lease> = (0..6).map(|_| upstream.attempts(client(0)).next().unwrap()).collect();
        assert_eq!(leases.iter().map(port).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn hash_ip_keeps_a_client_on_its_server_and_moves_few_when_one_goes() {
        let (three, two) = (
            upstream(Balance::HashIp, &[1, 2, 3]),
            upstream(Balance::HashIp, &[1, 2]),
        );
        let mut seen = [0; 4];
        for number in 0..300 {
            let before = port(&three.attempts(client(number)).next().unwrap());
            assert_eq!(before, port(&three.attempts(client(number)).next().unwrap()));
            seen[usize::from(before)] += 1;
            if before != 3 {
                assert_eq!(before, port(&two.attempts(client(number)).next().unwrap()));
            }
        }
        assert!(seen[1..].iter().all(|share| *share > 50), "{seen:?}");
    }

    /// If these numbers change, an upgrade of wsguard moves clients to other servers.
    #[test]
    fn the_hash_of_hash_ip_is_the_same_in_every_build() {
        let server = Server::new(Target::Tcp(([127, 0, 0, 1], 3000).into()));
        let of = |ip: &str| {
            weight(
                ClientKey::of(ip.parse::<IpAddr>().unwrap(), Prefixes::default()),
                &server,
            )
        };
        assert_eq!(of("192.0.2.1"), 0x4941_812c_40cc_0b62);
        assert_eq!(of("192.0.2.2"), 0x485c_15eb_1d34_a6f6);
        assert_eq!(of("2001:db8::1"), 0x61d8_216b_a5ef_627d);
        assert_eq!(of("2001:db8::2"), of("2001:db8::1"), "one /64 is one client");
        assert_eq!(weight(ClientKey::UNIX, &server), 0x45e8_2205_6dbd_4e1b);
    }

    #[test]
    fn each_server_is_tried_once_and_one_without_an_address_never() {
        for balance in [Balance::LeastConn, Balance::RoundRobin, Balance::HashIp] {
            let mut rules = UpstreamRules {
                name: "chat".into(),
                servers: Vec::new(),
                balance,
            };
            rules.servers.push(Target::Tcp(([127, 0, 0, 1], 1).into()));
            rules.servers.push(Target::Name {
                host: "nowhere.invalid".into(),
                port: 2,
            });
            rules.servers.push(Target::Tcp(([127, 0, 0, 1], 3).into()));
            let upstream = Upstream::new(&rules, |target| Arc::new(Server::new(target.clone())));
            let mut attempts = upstream.attempts(client(7));
            let mut tried: Vec<u16> = std::iter::from_fn(|| attempts.next())
                .map(|lease| port(&lease))
                .collect();
            tried.sort_unstable();
            assert_eq!(tried, [1, 3]);
        }
    }

    #[test]
    fn each_outcome_is_counted_apart_and_an_attempt_without_one_counts_nothing() {
        let upstream = upstream(Balance::LeastConn, &[1]);
        drop(upstream.attempts(client(0)).next());
        let outcomes = [
            Outcome::DialFailed,
            Outcome::TimedOut,
            Outcome::BadReply,
            Outcome::of_status(500),
            Outcome::of_status(499),
            Outcome::Switched,
        ];
        let server = &upstream.servers()[0];
        let counts = || outcomes.map(|outcome| server.count(outcome));
        assert_eq!(counts(), [0; 6]);
        for (nth, outcome) in outcomes.into_iter().enumerate() {
            upstream.attempts(client(0)).next().unwrap().report(outcome);
            assert_eq!(
                counts(),
                std::array::from_fn(|other| u64::from(other <= nth)),
                "{outcome:?}"
            );
        }
        assert_eq!(server.dial_failures(), 1);
    }
}
