//! The limits of admission as reasons to reject.

pub use crate::reason::close::CloseReason;
pub use crate::reason::reject::RejectReason as Reason;

use crate::limit::admission::Limit;

impl From<Limit> for Reason {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::PerIp => Self::PerIp,
            Limit::PerIpRate => Self::PerIpRate,
            Limit::ZoneFull => Self::ZoneFull,
            Limit::ZoneRate => Self::ZoneRate,
            Limit::ProcessFull => Self::ProcessFull,
        }
    }
}
