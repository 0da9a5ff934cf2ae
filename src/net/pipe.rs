//! Pipes through which bytes go from one socket to another without passing through this process (`splice(2)`).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

/// A pipe that is lent. Drop gives it back where it is empty, so that nobody ever gets another's bytes, and closes it
/// otherwise.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    holds: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// The pipes of one thread.
#[derive(Debug)]
struct Pool {
    /// Empty ones.
    free: Vec<Ends>,
    lent: usize,
    most: usize,
}

impl Pipe {
    /// As many as one thread lends at most: a user without privileges has room for 512 of this size (`pipe(7)`,
    /// `pipe-user-pages-soft`).
    pub const MOST: usize = 64;

    /// Room for a frame of 64 KiB with its header, so that none is cut for a few bytes.
    pub const SIZE: usize = 128 * 1024;

    /// Has this thread lend no more than `most`, nor than [`Pipe::MOST`]: each takes two descriptors.
    pub fn allow(most: usize) {
        POOL.with_borrow_mut(|pool| pool.most = most.min(Self::MOST));
    }

    /// An empty one; `None` where this thread has lent all that it may, or no descriptor is to be had.
    pub fn lend() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if pool.lent >= pool.most {
                return None;
            }
            let ends = match pool.free.pop() {
                Some(ends) => ends,
                None => match Ends::new() {
                    Ok(ends) => ends,
                    Err(error) => {
                        if error == Errno::PERM || error == Errno::NOSYS {
                            // This user has all the room for pipes that it may have, or a sandbox gives none; nobody asks for
                            // more again.
                            pool.most = pool.lent;
                        }
                        return None;
                    }
                },
            };
            pool.lent += 1;
            Some(Self {
                ends: Some(ends),
                holds: 0,
            })
        })
    }

    /// How many bytes are in it.
    pub fn holds(&self) -> usize {
        self.holds
    }

    /// Moves at most `most` bytes in from a socket. To be called of an empty one only: "would block" then can only mean that
    /// the socket has nothing. 0 is the end of the stream.
    pub fn fill(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.holds, 0, "only an empty pipe is filled");
        let moved = splice(socket, self.ends().write.as_fd(), most)?;
        self.holds += moved;
        Ok(moved)
    }

    /// Moves out to a socket what it takes.
    pub fn drain(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let moved = splice(self.ends().read.as_fd(), socket, self.holds)?;
        self.holds -= moved;
        Ok(moved)
    }

    /// Takes everything out again.
    ///
    /// # Panics
    /// Where the kernel does not give back what it has, which no peer can bring about.
    pub fn empty(mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.holds];
        let mut taken = 0;
        while taken < bytes.len() {
            let read = rustix::io::read(&self.ends().read, &mut bytes[taken..]).unwrap_or(0);
            assert!(read > 0, "a pipe gives back what it holds");
            taken += read;
        }
        self.holds = 0;
        bytes
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("only drop takes them")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // A thread that ends has no pool any more; its pipes are closed.
        let _ended = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.lent -= 1;
            if self.holds == 0 {
                pool.free.extend(self.ends.take());
            }
        });
    }
}

impl Ends {
    /// One of the full size: a user that has no more room for pipes gets one of 8 KiB, and copying is cheaper then.
    fn new() -> Result<Self, Errno> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        rustix::pipe::fcntl_setpipe_size(&write, Pipe::SIZE)?;
        Ok(Self { read, write })
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(from, None, to, None, most, flags)?)
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool {
            free: Vec::new(),
            lent: 0,
            most: Pipe::MOST,
        })
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn filled(bytes: &[u8]) -> Pipe {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(bytes).unwrap();
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(pipe.fill(there.as_fd(), usize::MAX >> 1).unwrap(), bytes.len());
        pipe
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut pipe = filled(b"some bytes");
        assert_eq!(
            (pipe.holds(), pipe.drain(there.as_fd()).unwrap(), pipe.holds()),
            (10, 10, 0)
        );
        let mut came = [0; 10];
        here.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"some bytes");
        assert_eq!(filled(b"others").empty(), b"others");
    }

    #[test]
    fn nobody_gets_a_pipe_with_anothers_bytes() {
        let number = |pipe: &Pipe| std::os::fd::AsRawFd::as_raw_fd(&pipe.ends().read);
        let emptied = Pipe::lend().unwrap();
        let first = number(&emptied);
        drop(emptied);
        let full = filled(b"never delivered");
        assert_eq!(number(&full), first, "an empty one is lent again");
        drop(full);
        let mut pipe = Pipe::lend().unwrap();
        let (_here, there) = UnixStream::pair().unwrap();
        there.set_nonblocking(true).unwrap();
        assert_eq!(
            pipe.fill(there.as_fd(), 64).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let nothing = rustix::io::read(&pipe.ends().read, &mut [0; 64]);
        assert_eq!(nothing, Err(rustix::io::Errno::AGAIN));
    }

    #[test]
    fn no_more_than_there_are_to_lend_are_lent_and_all_come_back() {
        for _ in 0..2 {
            let lent: Vec<Pipe> = std::iter::from_fn(Pipe::lend).collect();
            assert_eq!(lent.len(), Pipe::MOST);
        }
        let used = filled(b"in use");
        let others: Vec<Pipe> = std::iter::from_fn(Pipe::lend).collect();
        assert_eq!(others.len(), Pipe::MOST - 1);
        drop(used);
        assert!(Pipe::lend().is_some());
        drop(others);
        Pipe::allow(3);
        assert_eq!(std::iter::from_fn(Pipe::lend).collect::<Vec<_>>().len(), 3);
    }
}
