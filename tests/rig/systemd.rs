//! Stands in for systemd: it binds sockets, passes them to the service, and receives the service's notifications.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{Rig, binary, until};

/// A manager with its own folder for the configuration, the notify socket and other files of a test.
pub struct Systemd {
    dir: TempDir,
    notify: UnixDatagram,
    received: RefCell<Vec<String>>,
}

impl Systemd {
    /// A manager of a service with this configuration.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let notify = UnixDatagram::bind(dir.path().join(NOTIFY)).unwrap();
        notify.set_nonblocking(true).unwrap();
        let manager = Self {
            dir,
            notify,
            received: RefCell::default(),
        };
        manager.configure(config);
        manager
    }

    /// Replaces the configuration.
    pub fn configure(&self, config: &str) {
        fs::write(self.path("new.toml"), config).unwrap();
        fs::rename(self.path("new.toml"), self.path(FILE)).unwrap();
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the service with these sockets (at most two), each with a name if one is given.
    pub fn start(&self, sockets: Vec<(&str, OwnedFd)>) -> Rig {
        Rig::spawn(self.command(sockets), tempfile::tempdir().unwrap())
    }

    /// The same with a watchdog.
    pub fn start_watched(&self, watchdog: Duration) -> Rig {
        let mut command = self.command(Vec::new());
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        Rig::spawn(command, tempfile::tempdir().unwrap())
    }

    /// The command that starts the service.
    pub fn command(&self, sockets: Vec<(&str, OwnedFd)>) -> Command {
        // The sockets are passed as the standard streams and moved by the shell, so that no other child of this process
        // can inherit them.
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$0\" run -c \"$1\"";
        let mut command = Command::new("sh");
        command
            .args(["-c".as_ref(), script.as_ref(), binary().as_os_str()])
            .arg(self.path(FILE))
            .env("NOTIFY_SOCKET", self.path(NOTIFY))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        if !sockets.is_empty() {
            command.env("LISTEN_FDS", sockets.len().to_string());
        }
        if names.iter().any(|name| !name.is_empty()) {
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        let mut sockets = sockets.into_iter().map(|(_, socket)| socket);
        if let Some(first) = sockets.next() {
            command.stdin(first);
        }
        if let Some(second) = sockets.next() {
            command.stdout(second);
        }
        assert!(sockets.next().is_none(), "two sockets at most");
        command
    }

    /// Every message so far, in order.
    pub fn received(&self) -> Vec<String> {
        let mut received = self.received.borrow_mut();
        let mut buffer = [0; 4096];
        loop {
            match self.notify.recv(&mut buffer) {
                Ok(len) => received.push(String::from_utf8(buffer[..len].to_vec()).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return received.clone(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits for a message, and drops all that came before it.
    pub fn receives(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let place = until(what, || self.received().iter().position(|message| is_it(message)));
        self.received.borrow_mut().drain(..=place).next_back().unwrap()
    }
}

/// The value of a variable in a message.
pub fn value_of<'a>(message: &'a str, variable: &str) -> Option<&'a str> {
    let mut lines = message.lines();
    lines.find_map(|line| line.strip_prefix(variable)?.strip_prefix('='))
}

const FILE: &str = "wsguard.toml";
const NOTIFY: &str = "notify";
