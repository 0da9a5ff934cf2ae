//! From a request head to an admission or a refusal, in one synchronous function.

use std::sync::Arc;
use std::time::Instant;

use crate::config::policy::{NetworkPolicy, RejectWith};
use crate::config::routes::{Matched, Route};
use crate::limit::admission::{Full, Granted, Lack, Request};
use crate::limit::shares::Shares;
use crate::net::fault;
use crate::wire::http::head::Head;
use crate::wire::http::server_request::{Forwarding, request_for_server};
use crate::wire::path::PathReading;
use crate::wire::ws::engine_io;
use crate::wire::ws::upgrade_request::{NoUpgrade, Upgrade, accept_for, check_upgrade};

use crate::live::destination::Destination;
use crate::live::in_force::InForce;
use crate::live::listener::Listener;
use crate::live::phase::Phase;
use crate::live::zone::Zone;
use crate::reason::reject::RejectReason;
use crate::walk::identify::{Client, Hop, identify};
use crate::walk::stop::{Offer, Stop};

/// A request that was admitted.
#[derive(Debug)]
pub struct Admitted {
    /// The permit, and the limit that would have refused it under `mode = "observe"`.
    pub granted: Granted,
    /// The handshake to be made with a server.
    pub handshake: Handshake,
}

/// All that a handshake with a server needs of an admitted request.
#[derive(Debug)]
pub struct Handshake {
    /// The client.
    pub client: Client,
    /// The zone and the upstream that the request was routed to.
    pub destination: Arc<Destination>,
    /// The request, as the server is to read it.
    pub request: Vec<u8>,
    /// The `Sec-WebSocket-Accept` that the server's 101 must have.
    pub accept: String,
    /// What the upgrade offered. An answer by close frame needs it; `None` in zones that don't refuse by close frame.
    pub offer: Option<Offer>,
    /// The numbers of a rate that was exceeded but is only observed.
    pub lack: Option<Box<Lack>>,
    /// The buckets that all connections of the client share; known once it is admitted.
    pub shares: Option<Arc<Shares>>,
}

/// Decides on a request by its kind: a health check, an upgrade, or anything else. The first check that refuses the
/// request stops it, and then nothing is taken. The connection came from `hop` through `listener`.
///
/// The kind is checked before the route: it costs nothing to find out, and a request that is refused for its kind needs
/// no route. A new kind that goes to a server has to find its route with `route`, as the upgrade does.
pub fn decide(
    head: &Head<'_>,
    hop: Hop,
    listener: &Listener,
    in_force: &InForce,
    now: Instant,
) -> Result<Admitted, Stop> {
    if is_health_check(head, listener) {
        let is_serving = in_force.process.phase.is(Phase::Serving);
        return Err(Stop::health(is_serving).asked_by(head.method));
    }
    let client = identify(head, hop, &in_force.policy.identity);
    match check_upgrade(head) {
        Ok(upgrade) => decide_upgrade(head, &upgrade, client, in_force, now),
        Err(fault) => Err(not_an_upgrade(fault).by(client).asking(head).asked_by(head.method)),
    }
}

fn is_health_check(head: &Head<'_>, listener: &Listener) -> bool {
    let path = listener.policy.health_path.as_deref();
    [&b"GET"[..], b"HEAD", b"OPTIONS"].contains(&head.method) && path.is_some_and(|path| path.as_bytes() == head.path())
}

/// Finds the route of an upgrade, checks `allow` and `origins`, and admits it.
fn decide_upgrade(
    head: &Head<'_>,
    upgrade: &Upgrade<'_>,
    client: Client,
    in_force: &InForce,
    now: Instant,
) -> Result<Admitted, Stop> {
    let route = route(head, client, in_force).map_err(|stop| stop.by(client).asking(head))?;
    let destination = in_force.destination(route);
    allow(upgrade, client, route).map_err(|stop| stop.by(client).at(destination).asking(head))?;
    let offer = offered(head, upgrade, &destination.zone);
    if in_force.process.phase.is(Phase::Draining) {
        return Err(Stop::new(RejectReason::Draining)
            .by(client)
            .at(destination)
            .offering(offer.as_ref()));
    }
    let (granted, lack) = admit(client, &destination.zone, in_force, now)
        .map_err(|stop| stop.by(client).at(destination).offering(offer.as_ref()))?;
    fault::point("decide");
    let forwarding = Forwarding {
        hop: client.hop,
        hop_trusted: client.hop_is_trusted,
        client: client.address,
        proto: "http",
        send: in_force.policy.identity.send,
    };
    Ok(Admitted {
        granted,
        handshake: Handshake {
            client,
            destination: Arc::clone(destination),
            request: request_for_server(head, &forwarding),
            accept: accept_for(upgrade.key),
            offer,
            lack,
            shares: None,
        },
    })
}

fn not_an_upgrade(fault: NoUpgrade) -> Stop {
    match fault {
        NoUpgrade::NotUpgrade => Stop::new(RejectReason::NotUpgrade),
        NoUpgrade::BadVersion => Stop::new(RejectReason::BadVersion),
        NoUpgrade::Bad(rule) => Stop::rule(RejectReason::BadRequest, rule.to_string()),
    }
}

fn route<'a>(head: &Head<'_>, client: Client, in_force: &'a InForce) -> Result<&'a Route, Stop> {
    let reading = PathReading::of(head.path(), head.absolute_form);
    let host = head.authority.map(|authority| authority.host);
    match in_force.policy.routes.matching(host, &reading, client.address) {
        Matched::Route(route) => Ok(route),
        Matched::None => {
            let missed = in_force.policy.routes.missed(host, &reading, client.address);
            Err(Stop::missed(missed, head))
        }
        Matched::Ambiguous => Err(Stop::rule(
            RejectReason::BadRequest,
            "Bad request: the path reads as two different ones".into(),
        )),
    }
}

fn allow(upgrade: &Upgrade<'_>, client: Client, route: &Route) -> Result<(), Stop> {
    if !route.allows(client.address) {
        return Err(Stop::new(RejectReason::Network));
    }
    if !route.allows_origin(upgrade.origin) {
        return Err(Stop::seen(RejectReason::Origin, upgrade.origin.unwrap_or_default()));
    }
    Ok(())
}

/// Takes the permit. If a rate is exceeded but only observed, its numbers are returned too.
fn admit(client: Client, zone: &Zone, in_force: &InForce, now: Instant) -> Result<(Granted, Option<Box<Lack>>), Stop> {
    let known = if zone.policy.exempt {
        None
    } else {
        client.address.and_then(|ip| in_force.policy.networks.longest(ip))
    };
    let request = Request {
        zone: &zone.state.counts,
        rules: zone.rules,
        is_exempt: zone.policy.exempt,
        key: client.key,
        client: known.map_or(zone.policy.client, |network: &NetworkPolicy| {
            network.over(zone.policy.client)
        }),
        shares: zone.limits.shares(),
    };
    let admission = &in_force.process.admission;
    let lack = |full: Full| admission.lack(&request, full.limit, now);
    match admission.admit(request, now) {
        Ok(granted) => {
            let lack = granted.observed.and_then(lack).map(Box::new);
            Ok((granted, lack))
        }
        Err(full) => Err(Stop::full(full, lack(full))),
    }
}

fn offered(head: &Head<'_>, upgrade: &Upgrade<'_>, zone: &Zone) -> Option<Offer> {
    let closes = zone.policy.reject_with == RejectWith::Close;
    closes.then(|| Offer {
        key: upgrade.key.to_vec(),
        protocol: upgrade.first_protocol.map(<[u8]>::to_vec),
        is_engine_io: engine_io::is_asked_for(head.target),
    })
}
