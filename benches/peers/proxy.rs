//! A running proxy of any kind.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::contender::{Contender, Need};
use crate::cores::Cores;
use crate::crowd::opened;
use crate::launch::{Ending, on_core};
use crate::meter::Meter;
use crate::request::upgrade;
use crate::socket::{address, connect};
use crate::tools::Tools;

/// A running proxy. When it is dropped, it ends, and then its backend.
#[derive(Debug)]
pub struct Proxy {
    pub contender: Contender,
    pub front: SocketAddr,
    /// The server behind the proxy. Each proxy has its own, at a port of its own: ended connections occupy the ports
    /// from which a proxy can connect to one address.
    pub backend: SocketAddr,
    pub meter: Meter,
    child: Child,
    folder: TempDir,
    _behind: Backend,
}

impl Proxy {
    /// Starts a proxy before a backend. Returns once an upgrade goes through.
    pub fn start(contender: Contender, need: Need, tools: &Tools, cores: Cores) -> anyhow::Result<Self> {
        let behind = Backend::start(cores.backend)?;
        let back = behind.address;
        let folder = tempfile::tempdir()?;
        // nginx's worker runs as another user, and reads this folder.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let front = free_address()?;
        let file = folder.path().join("configuration");
        fs::write(&file, contender.text(need, front, back, folder.path()))?;
        let child = command(contender, tools, cores.proxy, &file, front, back)?
            .stderr(File::create(folder.path().join("stderr"))?)
            .spawn()?;
        let mut proxy = Self {
            contender,
            front,
            backend: back,
            meter: Meter { pids: vec![child.id()] },
            child,
            folder,
            _behind: behind,
        };
        proxy.wait_until_it_serves()?;
        proxy.meter = Meter::of(proxy.child.id())?;
        Ok(proxy)
    }

    fn wait_until_it_serves(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let Err(error) = self.serves() else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}): {}", self.last_output());
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(error.context(format!("it does not serve; it said: {}", self.last_output())));
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn serves(&self) -> anyhow::Result<()> {
        let mut stream = connect(address(NET, 0), self.front)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&upgrade("/echo"))?;
        opened(&mut stream)
    }

    /// The last lines that the proxy wrote.
    fn last_output(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if matches!(self.contender, Contender::Nginx | Contender::NginxLarge) {
            // If nginx's master were killed, it would leave the worker behind.
            let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(5) && matches!(self.child.try_wait(), Ok(None)) {
                sleep(Duration::from_millis(5));
            }
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn command(
    contender: Contender,
    tools: &Tools,
    core: usize,
    file: &Path,
    front: SocketAddr,
    back: SocketAddr,
) -> anyhow::Result<Command> {
    let program = tools.program(contender).context("it is not installed")?;
    let ending = match contender {
        Contender::Nginx | Contender::NginxLarge => Ending::Asked,
        _ => Ending::Killed,
    };
    let mut command = on_core(core, ending, program)?;
    match contender {
        Contender::Relay => command.args([AS_RELAY, &front.to_string(), &back.to_string()]),
        Contender::Wsguard | Contender::WsguardLimits => command.arg("run").arg("-c").arg(file),
        Contender::Nginx | Contender::NginxLarge => {
            // Without this option, nginx first tries to write to a log file of the system.
            let log = file.with_file_name("error.log");
            command.arg("-e").arg(log).arg("-c").arg(file)
        }
        Contender::Haproxy | Contender::HaproxySplice => command.arg("-db").arg("-f").arg(file),
    };
    Ok(command)
}

/// The server behind the proxy. It is killed when this is dropped.
#[derive(Debug)]
struct Backend {
    child: Child,
    address: SocketAddr,
}

impl Backend {
    /// Starts a server. Returns once it accepts.
    fn start(core: usize) -> anyhow::Result<Self> {
        let address = free_address()?;
        let bench: PathBuf = std::env::current_exe()?;
        let child = on_core(core, Ending::Killed, &bench)?
            .args([AS_BACKEND, &address.to_string()])
            .stderr(Stdio::inherit())
            .spawn()?;
        let backend = Self { child, address };
        let begin = Instant::now();
        while let Err(error) = connect(Ipv4Addr::LOCALHOST, address) {
            anyhow::ensure!(begin.elapsed() < Duration::from_secs(10), "the backend: {error}");
            sleep(Duration::from_millis(10));
        }
        Ok(backend)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A free address whose port lies below those that the kernel assigns, so that no outgoing socket takes it first. Each
/// call returns another one, so that no proxy has to wait for the ended connections of the last one.
fn free_address() -> io::Result<SocketAddr> {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = LOWEST + u16::try_from(std::process::id() % 1000).unwrap_or_default() * 8;
    loop {
        let nth = NEXT.fetch_add(1, Relaxed);
        let port = LOWEST + (begin - LOWEST + nth) % (HIGHEST - LOWEST);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) if nth > HIGHEST - LOWEST => return Err(error),
            Err(_) => {}
        }
    }
}

/// The arguments by which the bench asks itself to be a backend or the relay.
pub const AS_BACKEND: &str = "--as-backend";
pub const AS_RELAY: &str = "--as-relay";
const LOWEST: u16 = 20_000;
const HIGHEST: u16 = 32_000;
const NET: u8 = 53;
