//! The socket through which systemd is notified (`sd_notify(3)`).

use std::env;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// Notifies systemd. The default notifier has no socket: it sends nothing and reports no error.
#[derive(Debug, Default)]
pub struct Notifier(Option<Manager>);

/// The service manager. The socket is kept open, because the watchdog must be notified even when descriptors have run out;
/// `sd_notify::notify` would make a new socket for each message.
#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// A notifier for the socket in `NOTIFY_SOCKET`, if that is set.
    pub fn from_env() -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => Err(io::Error::new(
                ErrorKind::Unsupported,
                format!(
                    "NOTIFY_SOCKET is {}, and no Unix socket",
                    String::from_utf8_lossy(&name.into_vec())
                ),
            )),
        }?;
        let socket = UnixDatagram::unbound()?;
        // A manager that has stopped reading must not block us for good. If the kernel refuses this option, the socket does
        // not block, and a message may be lost instead.
        if socket.set_write_timeout(Some(PATIENCE)).is_err() {
            socket.set_nonblocking(true)?;
        }
        Ok(Self(Some(Manager {
            socket,
            address,
            watchdog: sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero()),
        })))
    }

    /// Sends `states` in one message.
    pub(super) fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(manager) = &self.0 else { return Ok(()) };
        let mut message = String::new();
        for state in states {
            // Writing to a string does not fail.
            let _never = writeln!(message, "{state}");
        }
        manager.socket.send_to_addr(message.as_bytes(), &manager.address)?;
        Ok(())
    }

    /// The interval of systemd's watchdog; `None` without a socket or a watchdog.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// Whether there is a socket.
    pub(super) fn is_enabled(&self) -> bool {
        self.0.is_some()
    }
}

/// How long a message may wait for systemd to take it.
const PATIENCE: Duration = Duration::from_secs(1);
