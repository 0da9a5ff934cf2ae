//! Reads a PROXY header of either version.

use super::fault::{Pause, ProxyFault};
use super::signature::{Announces, V1_START, announces};
use super::source::Source;
use super::{v1, v2};
use crate::wire::Step;

/// Reads the PROXY header that `bytes` begin with. Needs at most 107 bytes of a version 1 header, 4112 of a version 2 one.
///
/// A fault is reported once the field that has it is complete, or earlier if a byte can't belong to that field.
pub fn parse_proxy(bytes: &[u8]) -> Result<Step<Source>, ProxyFault> {
    let read = match announces(bytes) {
        Announces::No => Err(Pause::Fault(ProxyFault::Missing)),
        Announces::Maybe => Err(Pause::Short),
        Announces::Yes if bytes.starts_with(V1_START) => v1::read(bytes),
        Announces::Yes => v2::read(bytes),
    };
    match read {
        Ok((value, used)) => Ok(Step::Done { value, used }),
        Err(Pause::Short) => Ok(Step::More),
        Err(Pause::Fault(fault)) => Err(fault),
    }
}

/// No header of either version is longer: this many bytes always give a value or a fault.
pub const MAX_PROXY_HEADER: usize = v2::FIXED + v2::LONGEST;
