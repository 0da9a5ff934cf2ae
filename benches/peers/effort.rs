//! How many rounds are measured, and for how long.

use std::time::Duration;

/// How long a run takes, and how reliable its figures are.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// The rounds for memory, whose figures hardly differ from round to round.
    pub steady_rounds: usize,
    /// The length of one measurement.
    pub lasts: Duration,
    /// The time before a measurement that is not measured.
    pub warm_up: Duration,
    /// The length of each half of the flood. It is longer because the flood is about rare events.
    pub flood_lasts: Duration,
    /// The time for which system calls are counted.
    pub count_lasts: Duration,
    /// The payload size and the number of connections of each echo scenario.
    pub echoes: &'static [(usize, usize)],
    pub bulk_bytes: usize,
    /// The numbers of idle connections.
    pub idle: &'static [usize],
    /// How long the largest number of idle connections is left alone at the end. wsguard keeps less for a connection
    /// after five seconds of silence, and its allocator gives the pages back within ten more.
    pub rests: Option<Duration>,
    pub pending: usize,
    pub beside: usize,
}

impl Effort {
    /// For a check that everything works, and for large differences. Takes less than three minutes.
    pub const QUICK: Self = Self {
        rounds: 2,
        steady_rounds: 1,
        lasts: Duration::from_millis(400),
        warm_up: Duration::from_millis(100),
        flood_lasts: Duration::from_secs(1),
        count_lasts: Duration::from_millis(700),
        echoes: &[(125, 100), (125, 1000), (16 * KIB, 100)],
        bulk_bytes: 256_000_000,
        idle: &[1000],
        rests: None,
        pending: 2000,
        beside: 2000,
    };
    /// For comparable figures. Takes some forty minutes.
    pub const FULL: Self = Self {
        rounds: 5,
        steady_rounds: 5,
        lasts: Duration::from_secs(2),
        warm_up: Duration::from_millis(300),
        flood_lasts: Duration::from_secs(4),
        count_lasts: Duration::from_secs(2),
        echoes: &[
            (16, 1),
            (16, 100),
            (16, 1000),
            (125, 1),
            (125, 100),
            (125, 1000),
            (KIB, 1),
            (KIB, 100),
            (KIB, 1000),
            (16 * KIB, 1),
            (16 * KIB, 100),
            (16 * KIB, 1000),
        ],
        bulk_bytes: 1_000_000_000,
        idle: &[1000, 4000, 8000],
        rests: Some(Duration::from_secs(20)),
        pending: 4000,
        beside: 8000,
    };

    /// The descriptors that a proxy needs: two for each connection, and those that wsguard reserves for pending
    /// sockets.
    pub fn descriptors(&self) -> u64 {
        let most = self.idle.iter().copied().max().unwrap_or(0).max(self.beside);
        2 * most as u64 + 1000
    }
}

pub const KIB: usize = 1024;
