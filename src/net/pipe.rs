//! Pipes that move bytes from one socket to another without copying them through this process (splice(2)).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

/// A pipe lent by its thread's pool. Dropping it returns an empty pipe to the pool, and closes one that still holds
/// bytes, so that no connection ever gets the bytes of another.
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
    /// Empty pipes.
    free: Vec<Ends>,
    lent: usize,
    most: usize,
}

impl Pipe {
    /// The most pipes that one thread lends. An unprivileged user may have 512 pipes of [`Pipe::SIZE`]
    /// (`pipe-user-pages-soft`, pipe(7)).
    pub const MOST: usize = 64;

    /// The bytes that a pipe can hold: enough for a frame of 64 KiB with its header.
    pub const SIZE: usize = 128 * 1024;

    /// Limits the pipes that this thread lends to `most`, and at most [`Pipe::MOST`]. Each takes two descriptors.
    pub fn allow(most: usize) {
        POOL.with_borrow_mut(|pool| pool.most = most.min(Self::MOST));
    }

    /// An empty pipe; `None` if this thread has lent as many as it may, or if no descriptor is left.
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
                            // The user's limit of pipe pages is reached, or a sandbox forbids pipes. Don't try again.
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

    /// The number of bytes in it.
    pub fn holds(&self) -> usize {
        self.holds
    }

    /// Moves at most `most` bytes from a socket into the pipe; 0 is the end of the stream. The pipe must be empty. Then
    /// "would block" can only mean that the socket has no bytes.
    pub fn fill(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.holds, 0, "only an empty pipe is filled");
        let moved = splice(socket, self.ends().write.as_fd(), most)?;
        self.holds += moved;
        Ok(moved)
    }

    /// Moves as many bytes from the pipe to a socket as that takes.
    pub fn drain(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let moved = splice(self.ends().read.as_fd(), socket, self.holds)?;
        self.holds -= moved;
        Ok(moved)
    }

    /// Reads all bytes back out.
    ///
    /// # Panics
    /// If the kernel does not return the bytes that the pipe holds, which no peer can cause.
    pub fn empty(mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.holds];
        let mut taken = 0;
        while taken < bytes.len() {
            let read = rustix::io::read(&self.ends().read, &mut bytes[taken..]).unwrap_or(0);
            assert!(read > 0, "a pipe returns the bytes it holds");
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
        // A thread that is ending has no pool any more. Its pipes are closed.
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
    /// Makes a pipe of the full size. A user above its limit gets pipes of 8 KiB, and copying is cheaper than using
    /// those.
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
    fn bytes_come_out_as_they_went_in() {
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
    fn a_pipe_that_holds_bytes_is_never_lent_again() {
        let number = |pipe: &Pipe| std::os::fd::AsRawFd::as_raw_fd(&pipe.ends().read);
        let emptied = Pipe::lend().unwrap();
        let first = number(&emptied);
        drop(emptied);
        let full = filled(b"never delivered");
        assert_eq!(number(&full), first, "an empty pipe is lent again");
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
    fn at_most_the_allowed_number_is_lent_and_all_come_back() {
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
