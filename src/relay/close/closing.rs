//! A connection that is coming to its end: which deadlines it has, and how far its close handshake is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::net::fault;
use crate::reason::close::CloseReason;

use super::super::env::RelayEnv;
use super::super::flow::flow::Flow;
use super::super::flow::progress::Progress;
use super::super::legs::Legs;
use super::deadlines::{CloseStage, Deadlines, Expired};
use super::handshake::CloseHandshake;
use super::sides::Sides;
use crate::net::clock::Clock;

/// The state of a connection that is coming to its end. Only such a connection has one, and with it a timer.
#[derive(Debug)]
pub(in crate::relay) struct Closing {
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    /// How long until acknowledgements are checked again, since the kernel sends no event for them.
    recheck_after: Duration,
    handshake: Option<CloseHandshake>,
    /// Both close frames have been written.
    is_sent: bool,
}

/// The result of one turn of the close handshake.
pub(in crate::relay) struct HandshakeTurn {
    pub(in crate::relay) reason: CloseReason,
    pub(in crate::relay) inward: Progress,
    pub(in crate::relay) outward: Progress,
    /// Both sides have ended.
    pub(in crate::relay) is_over: bool,
}

impl Closing {
    /// Makes the state of a connection that has no deadline yet. Must be called on a runtime with a timer.
    pub(in crate::relay) fn new() -> Box<Self> {
        Box::new(Self {
            deadlines: Deadlines::default(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            recheck_after: FIRST_RECHECK,
            handshake: None,
            is_sent: false,
        })
    }

    /// The close handshake, if one has begun.
    pub(in crate::relay) fn handshake(&self) -> Option<&CloseHandshake> {
        self.handshake.as_ref()
    }

    /// Begins a close handshake, which may take this long (`None`: for ever). May be called only once.
    pub(in crate::relay) fn begin_handshake(
        &mut self,
        handshake: CloseHandshake,
        timeout: Option<Duration>,
        clock: &Clock,
    ) {
        self.handshake = Some(handshake);
        self.deadlines.begin_handshake(timeout, clock.now());
    }

    /// Continues the close handshake, if one has begun.
    pub(in crate::relay) fn poll_handshake(
        &mut self,
        flows: (&mut Flow, &mut Flow),
        legs: &Legs,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Option<HandshakeTurn> {
        let handshake = self.handshake.as_mut()?;
        fault::point("goodbye");
        let (inward, outward) = handshake.poll(flows, legs, env, cx);
        let is_sent = handshake.is_sent_to_client() && handshake.is_sent_to_server();
        if is_sent && !std::mem::replace(&mut self.is_sent, true) {
            self.deadlines.frames_sent(env.limits.clock.now());
        }
        Some(HandshakeTurn {
            reason: handshake.reason(),
            inward,
            outward,
            is_over: handshake.is_over(),
        })
    }

    /// The stage that follows from `sides`; `None` while neither side has ended.
    pub(in crate::relay) fn stage(closing: Option<&Self>, sides: Sides, legs: &Legs) -> Option<CloseStage> {
        let deadlines = closing.map(|closing| closing.deadlines).unwrap_or_default();
        deadlines.stage(sides, || legs.client.is_acknowledged())
    }

    /// Enters `stage`, or stays in it, and waits for the earliest deadline. Then returns the reason for the close. If
    /// `checks_acks`, the task is also woken before that, at ever longer intervals.
    pub(in crate::relay) fn poll_stage(
        &mut self,
        stage: CloseStage,
        sides: Sides,
        checks_acks: bool,
        reason: CloseReason,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Poll<Expired> {
        let clock = &env.limits.clock;
        let timeouts = env.limits.timeouts;
        self.deadlines.enter(stage, sides.client_ended, timeouts, clock.now());
        ready!(self.poll_deadlines(checks_acks, clock, cx));
        Poll::Ready(self.deadlines.expired(reason, clock.now()))
    }

    /// Ready once the earliest deadline has passed. If `checks_acks`, the task is also woken before that, at ever
    /// longer intervals.
    pub(in crate::relay) fn poll_deadlines(
        &mut self,
        checks_acks: bool,
        clock: &Clock,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let until = self.deadlines.earliest();
        loop {
            let now = clock.now();
            if until.is_some_and(|until| until <= now) {
                return Poll::Ready(());
            }
            let next = match (until, checks_acks) {
                (None, false) => return Poll::Pending,
                (Some(until), false) => until,
                (until, true) => {
                    self.recheck_after = (self.recheck_after * 2).min(LAST_RECHECK);
                    let recheck = now + self.recheck_after;
                    until.map_or(recheck, |until| until.min(recheck))
                }
            };
            let next = clock.monotonic(next).into();
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            ready!(self.timer.as_mut().poll(cx));
            if checks_acks {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// The first wait before acknowledgements are checked again. Each wait is twice as long as the one before.
const FIRST_RECHECK: Duration = Duration::from_micros(500);
const LAST_RECHECK: Duration = Duration::from_millis(100);
