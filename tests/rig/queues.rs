//! What the kernel knows about connections. With this a test can wait until bytes were read.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::socket::Socket;
use super::wait::until;

/// Waits until the guard has read every byte that these sockets sent.
pub fn all_read<'a>(sockets: impl IntoIterator<Item = &'a Socket>) {
    // Both ends are compared: a connection of another test may have the same port and another peer.
    let ends = |socket: &Socket| (socket.local(), socket.stream().peer_addr().unwrap());
    let ours: HashSet<(SocketAddr, SocketAddr)> = sockets.into_iter().map(ends).collect();
    until("the guard reads what was sent", || {
        let is_under_way = |entry: &Entry| {
            ours.contains(&(entry.remote, entry.local)) && entry.unread > 0
                || ours.contains(&(entry.local, entry.remote)) && entry.unsent > 0
        };
        (!table().iter().any(is_under_way)).then_some(())
    });
}

/// Waits until the other side's kernel has acknowledged every byte sent from this address.
pub fn all_acknowledged(local: SocketAddr, remote: SocketAddr) {
    until("what was sent is acknowledged", || {
        let sent = table()
            .into_iter()
            .find(|entry| entry.local == local && entry.remote == remote);
        sent.is_none_or(|entry| entry.unsent == 0).then_some(())
    });
}

/// When the kernel next probes the connection that was accepted at `local` from this peer.
pub fn keepalive_in(local: SocketAddr, is_peer: impl Fn(SocketAddr) -> bool) -> Option<Duration> {
    table()
        .into_iter()
        .find(|entry| entry.local == local && is_peer(entry.remote))?
        .keepalive
}

/// The same for a connection that was dialled to `remote`.
pub fn keepalive_to(remote: SocketAddr) -> Option<Duration> {
    table()
        .into_iter()
        .find(|entry| entry.remote == remote && entry.state == ESTABLISHED)?
        .keepalive
}

struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    state: String,
    unsent: u64,
    unread: u64,
    keepalive: Option<Duration>,
}

/// `/proc/net/tcp`: addresses as the machine stores them, queues in hexadecimal.
fn table() -> Vec<Entry> {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // It may contain thousands of closed connections.
    let is_alive = |line: &&str| !line.contains(TIME_WAIT);
    text.lines().skip(1).filter(is_alive).filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    let state = fields.next()?.to_owned();
    let (unsent, unread) = fields.next()?.split_once(':')?;
    let (timer, ticks) = fields.next()?.split_once(':')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let left = Duration::from_millis(10 * number(ticks)?);
    Some(Entry {
        local,
        remote,
        state,
        unsent: number(unsent)?,
        unread: number(unread)?,
        keepalive: (timer == KEEPALIVE).then_some(left),
    })
}

fn address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

const ESTABLISHED: &str = "01";
const TIME_WAIT: &str = " 06 ";
const KEEPALIVE: &str = "02";
