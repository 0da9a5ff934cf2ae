//! Resumes parked connections that are readable or were woken.

use std::sync::Arc;
use std::time::Duration;

use crate::net::epoll_set::ReadyEvent;
use crate::walk::walk::resume;

use crate::engine::context::Context;
use crate::engine::drive::drive;
use crate::engine::parked_set::{ParkedSet, Unparked, Wakes};
use crate::engine::tunnel;
use crate::telemetry::survive::survive;

/// Resumes the worker's parked connections. It resumes a few at a time, so that other tasks can run. Each one is
/// resumed by itself, so that a panic ends only the connection that caused it.
pub(crate) async fn unpark(cx: Arc<Context>, mut wakes: Wakes) {
    let mut events = Vec::with_capacity(ParkedSet::AT_ONCE);
    let mut woken = Vec::with_capacity(ParkedSet::AT_ONCE);
    loop {
        let waited = tokio::select! {
            waited = cx.parked().wait(&mut events) => waited,
            _ = wakes.recv_many(&mut woken, ParkedSet::AT_ONCE) => Ok(()),
        };
        if let Err(error) = waited {
            survive(|| cx.live.log().warn("lobby", &error.to_string()));
            tokio::time::sleep(BACK_OFF).await;
        }
        let woken = woken.drain(..).map(|token| ReadyEvent {
            token,
            has_ended: false,
        });
        for event in events.drain(..).chain(woken) {
            survive(|| resume_one(event, &cx));
        }
        tokio::task::yield_now().await;
    }
}

fn resume_one(event: ReadyEvent, cx: &Arc<Context>) {
    match cx.parked().take(event.token) {
        Some(Unparked::Pending(conn)) => drive(resume(*conn, event.has_ended, &cx.live), cx),
        Some(Unparked::Idle(idle)) => tunnel::unpark(*idle, cx),
        None => {}
    }
}

const BACK_OFF: Duration = Duration::from_millis(50);
