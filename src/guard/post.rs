//! A bound address, and who stands there: its sockets outlive the policy that asked for them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::net::address::Bind;

use super::running::Listener;

/// A bound address. The workers' accept loops hold it, and look up whose connections they accept.
#[derive(Debug)]
pub struct Post {
    asked: Bind,
    address: Bind,
    listener: ArcSwap<Listener>,
    closes: watch::Sender<bool>,
}

impl Post {
    /// A post that was bound as `asked` and is now at `address`; the two differ where port 0 was asked for.
    pub fn new(asked: Bind, address: Bind, listener: Arc<Listener>) -> Arc<Self> {
        Arc::new(Self {
            asked,
            address,
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
        if let Bind::Unix(path) = &self.address {
            // Whoever finds the file would find nobody behind it. Where it is gone already, all the better.
            let _gone = std::fs::remove_file(path);
        }
    }

    /// Becomes true when the post closes.
    pub fn closes(&self) -> watch::Receiver<bool> {
        self.closes.subscribe()
    }
}
