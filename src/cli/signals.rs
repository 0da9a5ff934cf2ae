//! The signals that `wsguard run` hears: those that reload, those that end the process, and those that mean nothing here.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that asks for a reload.
pub(crate) struct Hangups(Signal);

/// The signals that end the process.
pub(crate) struct Ends {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

/// The signals that other servers know, or that somebody sends by mistake. The kernel's answer to nearly all of them is to end
/// the process, with everybody on it.
pub(crate) struct Ignored(Vec<(&'static str, Signal)>);

impl Hangups {
    /// Hears HUP from here on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// The next HUP.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

impl Ends {
    /// Hears TERM, INT and QUIT from here on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next one of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

impl Ignored {
    /// Hears them from here on, instead of being ended by them.
    pub(crate) fn new() -> io::Result<Self> {
        // The kernel sends it when a file has become too large, the log's say. To say so in the log would bring the next one.
        let _unsaid = signal(SignalKind::from_raw(libc::SIGXFSZ))?;
        let mut all = SENT.to_vec();
        if !io::stderr().is_terminal() {
            // There it comes whenever the window changes its size.
            all.push(("WINCH", libc::SIGWINCH));
        }
        let heard = all
            .into_iter()
            .map(|(name, number)| Ok((name, signal(SignalKind::from_raw(number))?)));
        heard.collect::<io::Result<_>>().map(Self)
    }

    /// The next one of them: what the log says of it.
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

/// All that end a process by default, less those that report a fault of its own, or that nobody can hear.
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
