//! The read buffer that all relays of a thread share.

use std::cell::RefCell;

/// Lends the thread's read buffer to one synchronous read and write, so that an idle connection needs none of its own.
pub(super) fn with_buffer<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| with(buffer))
}

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice());
}

/// The most bytes that are read at once.
pub(super) const BUFFER_SIZE: usize = 64 * 1024;
