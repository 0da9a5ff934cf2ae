//! How many connections fit.

/// The ceilings that this machine's descriptors and memory leave of what a policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The process ceiling, in connections.
    pub process_connections: u32,
    /// The part of it that is not set aside for exempt zones.
    pub common_connections: u32,
    /// The budget of each zone of the policy, in its order; `None` is off. That of an exempt zone is what is set aside
    /// for it.
    pub zone_connections: Vec<Option<u32>>,
    /// `max_pending` of each listener of the policy, in its order.
    pub max_pending: Vec<u32>,
}
