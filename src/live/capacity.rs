//! How many connections fit.

/// The ceilings of a policy, lowered to what the descriptors and the memory of this machine allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The process ceiling, in connections.
    pub process_connections: u32,
    /// The part of it that is not set aside for exempt zones.
    pub common_connections: u32,
    /// The budget of each zone of the policy, in its order; `None` is off. For an exempt zone it is the part of the
    /// process ceiling that is reserved for it.
    pub zone_connections: Vec<Option<u32>>,
    /// `max_pending` of each listener of the policy, in its order.
    pub max_pending: Vec<u32>,
}
