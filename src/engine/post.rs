//! A bound address, and who stands there: its sockets outlive the policy that asked for them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::config::policy::Policy;
use crate::net::address::Bind;
use crate::net::bound::{BoundSockets, SocketFile};

use crate::live::in_force::InForce;
use crate::live::listener::Listener;

/// Whose connections come in, and the policy that says so: read together, as an arrival must not meet the listener of one
/// policy with the trust of another.
#[derive(Debug)]
struct Owner {
    listener: Arc<Listener>,
    in_force: Arc<InForce>,
}

/// A bound address. The workers' accept loops hold it, and look up whose connections they accept.
#[derive(Debug)]
pub struct Post {
    asked: Bind,
    address: Bind,
    is_inherited: bool,
    file: Option<SocketFile>,
    owner: ArcSwap<Owner>,
    closes: watch::Sender<bool>,
}

impl Post {
    /// A post for what was `asked` for. Where it is bound differs from that where port 0 was asked for, and may where
    /// the socket was inherited.
    pub fn new(asked: Bind, bound: &BoundSockets, listener: Arc<Listener>, in_force: Arc<InForce>) -> Arc<Self> {
        Arc::new(Self {
            asked,
            address: bound.address.clone(),
            is_inherited: bound.is_inherited,
            file: bound.file.clone(),
            owner: ArcSwap::from_pointee(Owner {
                listener,
                in_force: in_force,
            }),
            closes: watch::Sender::new(false),
        })
    }

    /// The listener of a policy that takes it over, by its place, and the bind that it is for there: the one that asks for where
    /// it is, in whatever words, or else the one that asks as it was asked for.
    pub fn heir<'p>(&self, policy: &'p Policy) -> Option<(usize, &'p Bind)> {
        if !self.is_found() {
            return None;
        }
        find(policy, |bind| bind.is_at(&self.address)).or_else(|| find(policy, |bind| *bind == self.asked))
    }

    /// Where it really is.
    pub fn address(&self) -> &Bind {
        &self.address
    }

    /// Whether whoever connects to its address comes to it: the file of a Unix socket may have been removed, or be another
    /// program's by now.
    pub fn is_found(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_there)
    }

    /// Whether its sockets are systemd's too, and outlive the post.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Whose connections come in here now.
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.owner.load().listener)
    }

    /// The same, with the policy that it belongs to.
    pub fn in_force(&self) -> (Arc<Listener>, Arc<InForce>) {
        let owner = self.owner.load();
        (Arc::clone(&owner.listener), Arc::clone(&owner.in_force))
    }

    /// Another policy's listener takes the address over; no socket is closed for it.
    pub fn hand_over(&self, listener: Arc<Listener>, in_force: Arc<InForce>) {
        self.owner.store(Arc::new(Owner {
            listener,
            in_force: in_force,
        }));
    }

    /// Has the accept loops accept what is queued, and close their sockets.
    pub fn close(&self) {
        self.closes.send_replace(true);
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// What an accept loop holds while it is at the post; it becomes true when the post closes.
    pub fn closes(&self) -> watch::Receiver<bool> {
        self.closes.subscribe()
    }

    /// Whether every accept loop has left and closed its socket; for whoever holds the post last.
    pub fn is_left(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    /// Waits until every accept loop has left.
    pub async fn left(&self) {
        self.closes.closed().await;
    }
}

fn find(policy: &Policy, is_it: impl Fn(&Bind) -> bool) -> Option<(usize, &Bind)> {
    let mut listeners = policy.listeners.iter().enumerate();
    listeners.find_map(|(at, listener)| Some((at, listener.bind.iter().find(|bind| is_it(bind))?)))
}
