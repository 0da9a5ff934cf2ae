//! How long honest clients wait for their echoes, first in quiet, then while many other clients are refused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::gettid;

use crate::crowd::{Message, open, resident};
use crate::storm::{Kind, Storm};

/// The waits of honest clients: p50 and p99, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub quiet: (f64, f64),
    pub flooded: (f64, f64),
    /// How many clients a second were refused during the flood.
    pub refused: f64,
}

/// Measures the waits of clients at `front`, first in quiet and then while the flood goes to `flooded`.
pub fn hear(front: SocketAddr, flooded: SocketAddr, target: &'static str, lasts: Duration) -> anyhow::Result<Heard> {
    let mut honest = open(front, 0..HONEST, "/echo", resident)?;
    let message = Message::new(125);
    listen(&mut honest, &message, lasts / 4)?;
    let quiet = listen(&mut honest, &message, lasts)?;
    let ends = Arc::new(AtomicBool::new(false));
    let flood_ends = Arc::clone(&ends);
    let begin = Instant::now();
    let flooding = thread::spawn(move || {
        // The flood shares a core with the honest clients. Its priority is the lowest, so that they do not wait for it
        // there: only the proxy is to be measured.
        setpriority_process(Some(gettid()), LEAST)?;
        Storm::new(Kind::Refusal, flooded, target)?.run_paced(A_SECOND, &flood_ends)
    });
    let heard = listen(&mut honest, &message, lasts / 4).and_then(|_| listen(&mut honest, &message, lasts));
    let took = begin.elapsed();
    ends.store(true, Relaxed);
    let refused = flooding.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
    Ok(Heard {
        quiet,
        flooded: heard?,
        refused: refused as f64 / took.as_secs_f64(),
    })
}

/// Sends a message each millisecond, from one client after the other. Returns p50 and p99 of the waits for the echo.
fn listen(honest: &mut [TcpStream], message: &Message, lasts: Duration) -> anyhow::Result<(f64, f64)> {
    let begin = Instant::now();
    let mut answer = vec![0; message.answer.len()];
    let mut waited = Vec::new();
    let mut due = begin;
    for stream in (0..HONEST).cycle() {
        if begin.elapsed() >= lasts {
            break;
        }
        let stream = &mut honest[stream];
        let sent = Instant::now();
        stream.write_all(&message.asked)?;
        stream.read_exact(&mut answer)?;
        waited.push(sent.elapsed().as_secs_f64() * 1e6);
        anyhow::ensure!(answer == message.answer, "bytes came back that were never sent");
        due = (due + EVERY).max(Instant::now());
        thread::sleep(due - Instant::now());
    }
    waited.sort_by(f64::total_cmp);
    let at = |percent| waited[(waited.len() - 1) * percent / 100];
    Ok((at(50), at(99)))
}

const HONEST: usize = 20;
const EVERY: Duration = Duration::from_millis(1);
const A_SECOND: u32 = 3000;
const LEAST: i32 = 19;
