//! The values that all tasks of one worker share.

use std::sync::Arc;

use crate::live::in_force::Live;

use crate::engine::ghosts::search_permits::SearchPermits;
use crate::engine::parked_set::ParkedSet;
use crate::engine::registry::Registry;

/// The values that all tasks of one worker share.
#[derive(Debug)]
pub struct Context {
    index: usize,
    /// The policy in force, and the state that outlives it.
    pub live: Arc<Live>,
    /// The open connections of all workers.
    pub registry: Arc<Registry>,
    /// The permits to search for ghosts, for all workers.
    pub search_permits: Arc<SearchPermits>,
    parked: ParkedSet,
}

impl Context {
    /// The context of worker number `index`.
    pub(crate) fn new(
        index: usize,
        live: Arc<Live>,
        registry: Arc<Registry>,
        search_permits: Arc<SearchPermits>,
        parked: ParkedSet,
    ) -> Self {
        Self {
            index,
            live,
            registry,
            search_permits,
            parked,
        }
    }

    /// The worker's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The worker's parked connections.
    pub(crate) fn parked(&self) -> &ParkedSet {
        &self.parked
    }
}
