//! The number of connections that a machine has room for.

/// The ceilings of a policy, lowered to what the descriptors and the memory of this machine allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The process ceiling, in connections.
    pub process_connections: u32,
    /// The part of the process ceiling that is not set aside for exempt zones.
    pub common_connections: u32,
    /// The budget of each zone, in the order of the policy; `None` is off. The budget of an exempt zone is a part of the
    /// process ceiling, reserved for this zone.
    pub zone_connections: Vec<Option<u32>>,
    /// `max_pending` of each listener, in the order of the policy.
    pub max_pending: Vec<u32>,
}
