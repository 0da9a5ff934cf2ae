//! A server behind the guard. It is a child process, so that it can be killed and stopped as a whole.

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
    /// Starts a server. Returns once it accepts.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(format!("{}={address}", crate::AS_BACKEND))
            .spawn()?;
        let backend = Self { address, child };
        backend.accepts().await?;
        Ok(backend)
    }

    /// Kills the process, without a chance for it to close its connections.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Replaces the killed process by a new one.
    pub async fn restart(&mut self) -> io::Result<()> {
        let mut next = Self::start(self.address).await?;
        // After the swap `next` is the dead process, which is dropped.
        std::mem::swap(self, &mut next);
        Ok(())
    }

    /// Stops the process. Its sockets stay open, and it does not answer on them.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets the stopped process continue.
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
        // The process may have ended already.
        let _gone = self.kill();
    }
}

const PATIENCE: u32 = 500;
