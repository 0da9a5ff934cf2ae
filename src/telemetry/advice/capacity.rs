//! Hints that follow from the number of open connections.

/// The hint for a nearly full zone in which most clients have sent nothing. It names the settings that would close such
/// clients. A `limit` of `None` is off.
pub fn silent_zone(
    name: &str,
    open: u32,
    limit: Option<u32>,
    silent: u64,
    first_message: bool,
    ping: bool,
) -> Option<String> {
    let limit = limit.filter(|limit| *limit > 0)?;
    let missing = match (first_message, ping) {
        (true, true) => return None,
        (false, false) => "`first_message` and `ping`",
        (false, true) => "`first_message`",
        (true, false) => "`ping`",
    };
    let is_full = u64::from(open) * 5 >= u64::from(limit) * 4;
    let is_silent = silent * 2 > u64::from(open);
    (is_full && is_silent).then(|| {
        format!(
            "silent_clients: {open} of {limit} are open in zone {name}, and {silent} of them have sent nothing: set {missing} for it"
        )
    })
}

/// The hint for a process ceiling that is nearly reached, and that is low because of the descriptor limit.
pub fn few_descriptors(open: u32, ceiling: u32, wanted: u64, descriptors: u64) -> Option<String> {
    (u64::from(ceiling) < wanted && u64::from(open) * 5 >= u64::from(ceiling) * 4).then(|| {
        format!(
            "few_descriptors: {open} of {ceiling} connections are open, and the descriptor limit of {descriptors} allows no more: \
             raise LimitNOFILE or `ulimit -n`, and restart"
        )
    })
}
