//! A server behind the guard: a child process, so that it can be killed and stopped like any other.

use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// One server process.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    child: Child,
}

impl Backend {
    /// Runs when it accepts.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(format!("{}={address}", crate::AS_BACKEND))
            .spawn()?;
        let backend = Self { address, child };
        backend.accepts().await?;
        Ok(backend)
    }

    /// Dies as processes die that nobody asked.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Another process in its place.
    pub async fn restart(&mut self) -> io::Result<()> {
        let mut next = Self::start(self.address).await?;
        // What is dropped is the one that is dead.
        std::mem::swap(self, &mut next);
        Ok(())
    }

    /// Its sockets stay, and nobody answers on them.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// It goes on where it stood.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    async fn accepts(&self) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match TcpStream::connect(self.address).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == PATIENCE => return Err(error),
                Err(_) => tries += 1,
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.kill();
    }
}

const PATIENCE: u32 = 500;
