//! The values that every part of the run shares, and the signal that ends a season.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::book::Book;
use crate::guard::Eye;
use crate::places::Places;

/// The values that all tasks of a season share.
#[derive(Clone, Debug)]
pub struct Scene {
    pub book: Arc<Book>,
    pub places: Places,
    pub eye: Eye,
    pub ends: watch::Receiver<bool>,
}

impl Scene {
    /// Whether the season is over.
    pub fn is_over(&self) -> bool {
        *self.ends.borrow()
    }

    /// Waits this long, or until the season is over. Returns whether it is over.
    pub async fn waits(&self, lasts: Duration) -> bool {
        let mut ends = self.ends.clone();
        timeout(lasts, ends.wait_for(|over| *over)).await.is_ok()
    }
}
