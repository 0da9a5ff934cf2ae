//! The signals that `wsguard run` catches: to reload, to end the process, or to ignore them.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that reloads.
pub(crate) struct Hangups(Signal);

/// The signals that end the process.
pub(crate) struct Ends {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

/// Signals that are ignored. Other servers use them, or they are sent by mistake. By default, nearly all of them would end
/// the process with all its connections.
pub(crate) struct Ignored(Vec<(&'static str, Signal)>);

impl Hangups {
    /// Catches HUP from now on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next HUP.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

impl Ends {
    /// Catches TERM, INT and QUIT from now on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next signal that ends the process.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

impl Ignored {
    /// Catches these signals from now on, so that they no longer end the process.
    pub(crate) fn new() -> io::Result<Self> {
        // The kernel sends XFSZ when a file, for example the log, has become too large. A log line about it would cause the
        // next XFSZ, so there is none.
        let _unsaid = signal(SignalKind::from_raw(libc::SIGXFSZ))?;
        let mut all = SENT.to_vec();
        if !io::stderr().is_terminal() {
            // On a terminal, WINCH comes with every change of the window's size, so it is not logged there.
            all.push(("WINCH", libc::SIGWINCH));
        }
        let caught = all
            .into_iter()
            .map(|(name, number)| Ok((name, signal(SignalKind::from_raw(number))?)));
        caught.collect::<io::Result<_>>().map(Self)
    }

    /// Waits for the next ignored signal. Returns the text for the log.
    pub(crate) async fn next(&mut self) -> String {
        poll_fn(|cx| {
            let mut all = self.0.iter_mut();
            let came = all.find_map(|(name, signal)| signal.poll_recv(cx).is_ready().then_some(*name));
            came.map_or(Poll::Pending, |name| Poll::Ready(said(name)))
        })
        .await
    }
}

fn said(name: &str) -> String {
    let why = match name {
        "USR1" => ": the log goes to standard error, there is no file to reopen",
        "USR2" => ": no new program takes over from a running one",
        _ => "",
    };
    format!("SIG{name} is ignored{why}; HUP reloads, TERM, INT and QUIT stop wsguard")
}

/// The signals that end a process by default. Not listed are signals that report a fault in the process, and signals that
/// can't be caught.
const SENT: &[(&str, i32)] = &[
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("IO", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("STKFLT", libc::SIGSTKFLT),
    ("VTALRM", libc::SIGVTALRM),
    ("XCPU", libc::SIGXCPU),
];
