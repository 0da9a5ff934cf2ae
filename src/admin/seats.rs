//! The seats at the admin server. There are few seats, but no peer can keep others out: if all seats are taken, a new
//! connection gets one of them.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The seats, in the order in which they were taken.
#[derive(Clone, Debug)]
pub struct Seats {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: Vec<Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    peer: IpAddr,
    /// Whether the holder's request is complete, so that only the answer remains.
    has_asked: bool,
    /// Dropping this tells the holder that it has lost the seat and has to close.
    _may_stay: oneshot::Sender<()>,
}

/// A seat. Dropping it gives the seat back.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    taken: Arc<Mutex<Taken>>,
    leave: oneshot::Receiver<()>,
}

/// Marks that the request of a seat's holder is complete.
#[derive(Clone, Debug)]
pub struct Bell {
    number: u64,
    taken: Arc<Mutex<Taken>>,
}

impl Seats {
    /// Makes `most` seats.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// Takes a seat for a connection from `peer`. If no seat is free, the peer with the most seats loses one: the oldest one
    /// without a complete request, or, if every request is complete, the oldest one.
    pub fn take(&self, peer: IpAddr) -> Seat {
        let (may_stay, leave) = oneshot::channel();
        let mut taken = self.taken.lock();
        if taken.seats.len() >= self.most {
            taken.give_way();
        }
        let number = taken.next;
        taken.next += 1;
        taken.seats.push(Entry {
            number,
            peer,
            has_asked: false,
            _may_stay: may_stay,
        });
        drop(taken);
        Seat {
            number,
            taken: Arc::clone(&self.taken),
            leave,
        }
    }
}

impl Taken {
    fn give_way(&mut self) {
        let of = |peer: IpAddr| self.seats.iter().filter(|seat| seat.peer == peer).count();
        let leaves = self
            .seats
            .iter()
            .enumerate()
            .max_by_key(|(at, seat)| (of(seat.peer), !seat.has_asked, Reverse(*at)));
        if let Some((at, _)) = leaves {
            self.seats.remove(at);
        }
    }
}

impl Seat {
    /// A bell with which the holder marks that its request is complete.
    pub fn bell(&self) -> Bell {
        Bell {
            number: self.number,
            taken: Arc::clone(&self.taken),
        }
    }

    /// Waits until the seat is given to another connection.
    pub async fn lost(&mut self) {
        let _taken_away = (&mut self.leave).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.lock().seats.retain(|seat| seat.number != self.number);
    }
}

impl Bell {
    /// Marks that the request of the seat's holder is complete.
    pub fn ring(&self) {
        let mut taken = self.taken.lock();
        if let Some(seat) = taken.seats.iter_mut().find(|seat| seat.number == self.number) {
            seat.has_asked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn is_lost(seat: &mut Seat) -> bool {
        seat.leave.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn while_seats_are_free_no_holder_loses_its_own_and_a_returned_seat_is_free_again() {
        let seats = Seats::new(2);
        let mut first = seats.take(peer(1));
        for _ in 0..3 {
            let mut second = seats.take(peer(1));
            assert!(!is_lost(&mut first) && !is_lost(&mut second));
        }
    }

    #[test]
    fn the_oldest_seat_without_a_complete_request_is_lost_first() {
        let seats = Seats::new(3);
        let [mut answered, mut older, mut newer] = [0; 3].map(|_| seats.take(peer(1)));
        answered.bell().ring();
        let mut newcomer = seats.take(peer(1));
        assert!(is_lost(&mut older));
        drop(older);
        let mut next = seats.take(peer(1));
        assert!(is_lost(&mut newer) && !is_lost(&mut answered));
        for seat in [&newcomer, &next] {
            seat.bell().ring();
        }
        let _last = seats.take(peer(1));
        assert!(is_lost(&mut answered), "where all have asked, the first of them");
        assert!(!is_lost(&mut newcomer) && !is_lost(&mut next));
    }

    #[test]
    fn a_peer_with_many_seats_loses_one_before_a_peer_with_few() {
        let seats = Seats::new(4);
        let mut silent = seats.take(peer(1));
        let mut crowd = [0; 3].map(|_| seats.take(peer(2)));
        for seat in &crowd {
            seat.bell().ring();
        }
        let _newcomer = seats.take(peer(3));
        assert!(is_lost(&mut crowd[0]), "although it has asked");
        assert!(!is_lost(&mut silent));
    }
}
