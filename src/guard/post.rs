//! A bound address, and who stands there: its sockets outlive the policy that asked for them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::net::address::Bind;
use crate::net::listen::Bound;

use super::running::Listener;

/// A bound address. The workers' accept loops hold it, and look up whose connections they accept.
#[derive(Debug)]
pub struct Post {
    asked: Bind,
    address: Bind,
    is_inherited: bool,
    listener: ArcSwap<Listener>,
    closes: watch::Sender<bool>,
}

impl Post {
    /// A post for what was `asked` for. Where it is bound differs from that where port 0 was asked for, and may where
    /// the socket was inherited.
    pub fn new(asked: Bind, bound: &Bound, listener: Arc<Listener>) -> Arc<Self> {
        Arc::new(Self {
            asked,
            address: bound.address.clone(),
            is_inherited: bound.is_inherited,
            listener: ArcSwap::new(listener),
            closes: watch::Sender::new(false),
        })
    }

    /// As the configuration names it.
    pub fn asked(&self) -> &Bind {
        &self.asked
    }

    /// Where it really is.
    pub fn address(&self) -> &Bind {
        &self.address
    }

    /// Whether its sockets are systemd's too, and outlive the post.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Whose connections come in here now.
    pub fn listener(&self) -> Arc<Listener> {
        self.listener.load_full()
    }

    /// Another policy's listener takes the address over; no socket is closed for it.
    pub fn hand_over(&self, listener: Arc<Listener>) {
        self.listener.store(listener);
    }

    /// Has the accept loops accept what is queued, and close their sockets.
    pub fn close(&self) {
        self.closes.send_replace(true);
        if let Bind::Unix(path) = &self.address
            && !self.is_inherited
        {
            // Whoever finds the file would find nobody behind it. Where it is gone already, all the better.
            let _gone = std::fs::remove_file(path);
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
