//! A bound address. Its sockets outlive the policy that had them bound.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::config::policy::Policy;
use crate::live::in_force::InForce;
use crate::live::listener::Listener;
use crate::net::address::Bind;
use crate::net::bound::{BoundSockets, SocketFile};

/// A bound address. The accept loops of all workers hold it, and look up the listener for each connection.
#[derive(Debug)]
pub struct BoundListener {
    asked: Bind,
    address: Bind,
    is_inherited: bool,
    file: Option<SocketFile>,
    owner: ArcSwap<Owner>,
    closes: watch::Sender<bool>,
}

/// The listener that the address belongs to, and the policy that says so. They are read together: a connection must not
/// meet the listener of one policy with the trusted proxies of another.
#[derive(Debug)]
struct Owner {
    listener: Arc<Listener>,
    in_force: Arc<InForce>,
}

impl BoundListener {
    /// The sockets for the bind `asked`. Their address may differ from it, if the port in it is 0 or the sockets are
    /// inherited.
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

    /// The position of the listener of `policy` that takes the address over, and the bind that it matches: one that
    /// means the same address, however it is written, or else one that is written as before.
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

    /// Whether its address still leads to it: the file of a Unix socket may have been removed, or replaced by another
    /// program.
    pub fn is_reachable(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_there)
    }

    /// Whether systemd holds its sockets too, so that they outlive the process.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The listener that it belongs to now.
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.owner.load().listener)
    }

    /// The same, with the policy that says so.
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

    /// Whether every accept loop has closed its socket and dropped this, so that the caller is the last holder.
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
