//! Binds the addresses of a policy's listeners.

use std::io;
use std::sync::Arc;

use crate::config::policy::Policy;
use crate::net::address::Bind;
use crate::net::bound::BoundSockets;

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind {bind}{}: {error}", beside(.own.as_ref()))]
pub struct BindError {
    listener: Arc<str>,
    bind: Bind,
    /// The address of this process that is in the way.
    own: Option<Own>,
    error: io::Error,
}

/// An address that a listener of this process has.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) listener: Arc<str>,
    pub(super) address: Bind,
    pub(super) is_inherited: bool,
    /// Whether the address will be closed once the new policy is in force.
    pub(super) leaves: bool,
}

fn beside(own: Option<&Own>) -> String {
    let Some(own) = own else { return String::new() };
    let systemds = if own.is_inherited {
        ", a socket from systemd"
    } else {
        ""
    };
    format!(
        " in place of {}, which wsguard's own listener {} has{systemds}; a restart does it",
        own.address, own.listener
    )
}

/// Binds those addresses of the policy's listeners that are not bound yet. Each result has the position of its listener. For
/// a new address, `own` returns the old address of this process that is in the way, if there is one. If the old address will
/// be closed, the new one is bound all the same. The new sockets listen once everything is bound.
pub(super) fn bind(
    policy: &Policy,
    is_there: impl Fn(&Bind) -> bool,
    own: impl Fn(&Bind) -> Option<Own>,
    workers: usize,
) -> Result<Vec<(usize, Bind, BoundSockets)>, BindError> {
    let mut all = Vec::new();
    let failed = |at: usize, bind: &Bind, own: Option<Own>, error: io::Error| BindError {
        listener: Arc::clone(&policy.listeners[at].name),
        bind: bind.clone(),
        own: own.filter(|_| error.kind() == io::ErrorKind::AddrInUse),
        error,
    };
    for (at, listener) in policy.listeners.iter().enumerate() {
        for asked in listener.bind.iter().filter(|asked| !is_there(asked)) {
            let own = own(asked);
            let bound = match &own {
                None => BoundSockets::bind(asked, listener.backlog, workers),
                Some(own) if own.leaves => BoundSockets::join(asked, listener.backlog, workers),
                Some(_) => Err(io::ErrorKind::AddrInUse.into()),
            };
            all.push((at, asked.clone(), bound.map_err(|error| failed(at, asked, own, error))?));
        }
    }
    for (at, asked, bound) in &mut all {
        bound.listen().map_err(|error| failed(*at, asked, own(asked), error))?;
    }
    Ok(all)
}
