//! A bound address. A reload that replaces the policy leaves its sockets open.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::config::policy::Policy;
use crate::live::in_force::InForce;
use crate::live::listener::Listener;
use crate::net::address::Bind;
use crate::net::bound::{BoundSockets, SocketFile};

/// A bound address. The accept loops of all workers hold it, and read the listener in it for each connection.
#[derive(Debug)]
pub struct BoundListener {
    asked: Bind,
    address: Bind,
    is_inherited: bool,
    file: Option<SocketFile>,
    owner: ArcSwap<Owner>,
    closes: watch::Sender<bool>,
}

/// The listener that the address belongs to, and the policy that this listener is part of. They are read together: a
/// connection must not meet the listener of one policy with the trusted proxies of another.
#[derive(Debug)]
struct Owner {
    listener: Arc<Listener>,
    in_force: Arc<InForce>,
}

impl BoundListener {
    /// Makes a bound listener of the sockets for the bind `asked`. The address of the sockets may differ from `asked`:
    /// the port in it may be 0, or the sockets may be inherited.
    pub fn new(asked: Bind, bound: &BoundSockets, listener: Arc<Listener>, in_force: Arc<InForce>) -> Arc<Self> {
        Arc::new(Self {
            asked,
            address: bound.address.clone(),
            is_inherited: bound.is_inherited,
            file: bound.file.clone(),
            owner: ArcSwap::from_pointee(Owner { listener, in_force }),
            closes: watch::Sender::new(false),
        })
    }

    /// Finds the listener of `policy` that takes the address over. Returns the listener's position and its matching
    /// bind. A bind that means the same address has precedence, however it is written; otherwise one that is written as
    /// before matches.
    pub fn successor<'p>(&self, policy: &'p Policy) -> Option<(usize, &'p Bind)> {
        if !self.is_reachable() {
            return None;
        }
        find(policy, |bind| bind.is_at(&self.address)).or_else(|| find(policy, |bind| *bind == self.asked))
    }

    /// The address that it is bound to.
    pub fn address(&self) -> &Bind {
        &self.address
    }

    /// Whether a client that connects to the address still reaches these sockets: the file of a Unix socket may have
    /// been removed, or replaced by another program.
    pub fn is_reachable(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_there)
    }

    /// Whether systemd holds its sockets too, so that they outlive the process.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The listener that the address belongs to now.
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.owner.load().listener)
    }

    /// The listener that the address belongs to now, and the policy that this listener is part of.
    pub fn in_force(&self) -> (Arc<Listener>, Arc<InForce>) {
        let owner = self.owner.load();
        (Arc::clone(&owner.listener), Arc::clone(&owner.in_force))
    }

    /// Gives the address to the listener of another policy. No socket is closed.
    pub fn set_policy(&self, listener: Arc<Listener>, in_force: Arc<InForce>) {
        self.owner.store(Arc::new(Owner { listener, in_force }));
    }

    /// Makes the accept loops accept what is queued and then close their sockets.
    pub fn close(&self) {
        self.closes.send_replace(true);
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// Becomes true when the listener closes. An accept loop holds it for as long as its socket is open.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closes.subscribe()
    }

    /// Whether every accept loop has closed its socket and dropped its reference, so that the caller holds the last
    /// one.
    pub fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    /// Waits until every accept loop has closed its socket.
    pub async fn all_closed(&self) {
        self.closes.closed().await;
    }
}

fn find(policy: &Policy, is_it: impl Fn(&Bind) -> bool) -> Option<(usize, &Bind)> {
    let mut listeners = policy.listeners.iter().enumerate();
    listeners.find_map(|(at, listener)| Some((at, listener.bind.iter().find(|bind| is_it(bind))?)))
}
