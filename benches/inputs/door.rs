//! A zone with an admission of its own. Numbered clients ask to be admitted.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wsguard::limit::admission::{Admission, Full, Granted, Request, ZoneCounts};
use wsguard::limit::key::{ClientKey, Prefixes};
use wsguard::limit::rules::{ClientRules, Rate, ZoneRules};

/// The zone. No client is in it at first.
pub struct Door {
    admission: Arc<Admission>,
    zone: Arc<ZoneCounts>,
    client: ClientRules,
    opened: Instant,
}

impl Door {
    /// A zone whose client table has room for this many clients. The zone and the process have no limit of their own.
    pub fn new(table_size: u32, client: ClientRules) -> Self {
        let opened = Instant::now();
        let admission = Admission::new(table_size, opened);
        Self {
            zone: admission.zone(1, None),
            admission,
            client,
            opened,
        }
    }

    /// Asks for client `number`, at the time `after` since the door was opened.
    pub fn ask(&self, number: u32, after: Duration) -> Result<Granted, Full> {
        let request = Request {
            zone: &self.zone,
            rules: ZoneRules {
                observe: false,
                connections: Some(u32::MAX),
                rate: None,
            },
            is_exempt: false,
            key: ClientKey::of(Ipv4Addr::from_bits(FIRST + number).into(), Prefixes::default()),
            client: self.client,
            shares: false,
        };
        self.admission.admit(request, self.opened + after)
    }

    /// Admits every client below `count` once and lets it leave. If the rules have a rate, the table remembers each of
    /// them.
    pub fn know(&self, count: u32) {
        for number in 0..count {
            drop(self.ask(number, Duration::ZERO).expect("this is its first visit"));
        }
    }
}

/// The default limits of a client. Entries outlive their last connection, because the client's token has to come back
/// first.
pub const BY_DEFAULT: ClientRules = ClientRules {
    per_ip: Some(50),
    rate: Some(Rate {
        tokens: NonZeroU32::new(10).expect("10 is not 0"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(50).expect("50 is not 0"),
    }),
};

/// 10.0.0.0
const FIRST: u32 = 10 << 24;
