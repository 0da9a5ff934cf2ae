//! The types for state that several threads share: those of std and `parking_lot`, or under `cfg(loom)` loom's
//! replacements, so that `tests/loom` checks this very code. Nothing else may differ.

#[cfg(not(loom))]
pub(crate) use {
    parking_lot::{Mutex, MutexGuard},
    std::hash::RandomState,
    std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub(crate) use {
    loom::sync::MutexGuard,
    loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    seeded::RandomState,
    unpoisoned::Mutex,
};

/// loom repeats runs exactly, so hashes must be the same every time.
#[cfg(loom)]
mod seeded {
    use std::collections::hash_map::DefaultHasher;
    use std::hash::BuildHasherDefault;

    pub type RandomState = BuildHasherDefault<DefaultHasher>;
}

/// loom's mutex with the interface of `parking_lot`'s.
#[cfg(loom)]
mod unpoisoned {
    use loom::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics while holding it")
        }
    }
}
