//! An old connection that may be dead, while a newcomer waits for its slot.

use std::sync::Arc;

use crate::relay::handle::{ConnHandle, PingDelivery};

/// An old connection that is asked whether its client is there.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(super) handle: Arc<ConnHandle>,
    /// What `ConnHandle::client_activity` was before it was asked.
    heard: u16,
    /// Its relay was told to look.
    looks: bool,
    /// What its host had taken at the first look behind the question. A server that talks all the time leaves always
    /// something on its way, the question included.
    took: Option<u32>,
    /// Looks in a row that found its host silent.
    pub(super) silent: u32,
}

impl Suspect {
    /// One that is asked by now, and of which this was `heard` before.
    pub(crate) fn new(handle: Arc<ConnHandle>, heard: u16) -> Self {
        Self {
            handle,
            heard,
            looks: false,
            took: None,
            silent: 0,
        }
    }

    /// Whether it has shown any life since it was asked; has its relay look for the next time.
    pub(super) fn is_there(&mut self) -> bool {
        let asked = self.handle.ping_delivery();
        if self.handle.client_activity() != self.heard
            || self.handle.is_client_unread()
            || asked == PingDelivery::Acknowledged
        {
            return true;
        }
        // Nothing is seen until the question is written, nor as long as the relay has not looked.
        if self.looks && self.handle.has_probed() {
            let took = self.handle.client_acked();
            if *self.took.get_or_insert(took) != took {
                return true;
            }
            self.silent = if self.handle.is_host_silent() {
                self.silent + 1
            } else {
                0
            };
        }
        if asked == PingDelivery::InFlight {
            self.looks = true;
            self.handle.probe();
        }
        false
    }
}
