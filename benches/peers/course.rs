//! The runs, one after the other. The rounds of a scenario go A B C D A B C D, so that whatever else the machine does
//! affects all contenders alike.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::book::{Book, Figure};
use crate::bulk::{Bulk, Way};
use crate::calls::Counting;
use crate::contender::Contender;
use crate::cores::Cores;
use crate::crowd::Crowd;
use crate::effort::Effort;
use crate::flood;
use crate::pending::Pending;
use crate::proxy::Proxy;
use crate::scenario::{Counted, Scenario};
use crate::storm::{Kind, Storm, occupy};
use crate::tools::Tools;

/// All that a run needs, and its results so far.
#[derive(Debug)]
pub struct Course<'a> {
    pub tools: &'a Tools,
    pub cores: Cores,
    pub effort: Effort,
    pub book: Book,
}

impl Course<'_> {
    /// Runs all rounds of a scenario.
    pub fn run(&mut self, scenario: Scenario) {
        if matches!(scenario, Scenario::Calls(_)) && self.tools.strace.is_none() {
            return;
        }
        let mut contenders = scenario.contenders();
        contenders.retain(|contender| self.tools.program(*contender).is_some());
        let rounds = scenario.rounds(&self.effort);
        for round in 0..rounds {
            eprintln!("{}: round {} of {rounds}", scenario.name(), round + 1);
            let mut closed = Vec::new();
            for contender in &contenders {
                match self.measure(scenario, *contender, round) {
                    Ok(Some(rest)) => closed.push(rest),
                    Ok(None) => {}
                    Err(error) => self.book.fault(scenario, *contender, &error),
                }
            }
            for rest in closed {
                let contender = rest.proxy.contender;
                if let Err(error) = self.what_is_kept(scenario, &rest, round) {
                    self.book.fault(scenario, contender, &error);
                }
            }
        }
    }

    fn measure(&mut self, scenario: Scenario, contender: Contender, round: usize) -> anyhow::Result<Option<Rest>> {
        let proxy = Proxy::start(contender, scenario.need(), self.tools, self.cores)?;
        let figures = match scenario {
            Scenario::Upgrade => vec![self.storm(Kind::Upgrade, &proxy)?],
            Scenario::Refusal => {
                let _occupied = occupy(proxy.front)?;
                vec![self.storm(Kind::Refusal, &proxy)?]
            }
            Scenario::Echo { size, connections } => {
                let mut crowd = Crowd::open(proxy.front, connections)?;
                vec![self.echo(&mut crowd, connections, size, &proxy)?]
            }
            Scenario::Bulk(way) => vec![self.bulk(way, &proxy)?],
            Scenario::Idle(count) => {
                let (figures, rest) = self.idle(count, proxy)?;
                self.book.note(scenario, contender, round, figures);
                return Ok(Some(rest));
            }
            Scenario::Flood => self.flood(&proxy)?,
            Scenario::Pending => self.pending(&proxy)?,
            Scenario::Beside => vec![self.beside(&proxy)?],
            Scenario::Calls(counted) => vec![self.calls(counted, &proxy)?],
        };
        self.book.note(scenario, contender, round, figures);
        Ok(None)
    }

    fn storm(&self, kind: Kind, proxy: &Proxy) -> anyhow::Result<Figure> {
        let mut storm = Storm::new(kind, proxy.front, "/echo")?;
        storm.run(self.effort.warm_up)?;
        let before = proxy.meter.read()?;
        let count = storm.run(self.effort.lasts)?;
        Ok(Figure::micros_each(proxy.meter.since(before)?, count))
    }

    fn echo(&self, crowd: &mut Crowd, connections: usize, size: usize, proxy: &Proxy) -> anyhow::Result<Figure> {
        crowd.echo(connections, size, self.effort.warm_up)?;
        let before = proxy.meter.read()?;
        let count = crowd.echo(connections, size, self.effort.lasts)?;
        Ok(Figure::micros_each(proxy.meter.since(before)?, count))
    }

    fn bulk(&self, way: Way, proxy: &Proxy) -> anyhow::Result<Figure> {
        Bulk::open(way, proxy.front, self.effort.bulk_bytes / 20)?.run()?;
        let bulk = Bulk::open(way, proxy.front, self.effort.bulk_bytes)?;
        let before = proxy.meter.read()?;
        let bytes = bulk.run()?;
        Ok(Figure::seconds_a_gigabyte(proxy.meter.since(before)?, bytes))
    }

    /// Measures the memory of `count` idle connections. Also returns the proxy without connections, so that the memory
    /// that it keeps can be measured later.
    fn idle(&self, count: usize, proxy: Proxy) -> anyhow::Result<(Vec<Figure>, Rest)> {
        // Memory that the program takes once, at its first connections, is no connection's cost.
        let mut first = Crowd::open(proxy.front, 20)?;
        first.one_each(SMALL)?;
        first.one_each(LARGE)?;
        drop(first);
        sleep(SETTLES);
        let before = proxy.meter.pss()?;
        let mut crowd = Crowd::open(proxy.front, count)?;
        let mut figures = Vec::new();
        let mut note = |what| -> anyhow::Result<()> {
            sleep(SETTLES);
            figures.push(Figure::kib_each(what, proxy.meter.pss()? - before, count));
            Ok(())
        };
        note("fresh")?;
        crowd.one_each(SMALL)?;
        note("after 125 B each")?;
        crowd.one_each(LARGE)?;
        note("after 64 KiB each")?;
        if let Some(rests) = self.effort.rests
            && self.effort.idle.iter().max() == Some(&count)
        {
            sleep(rests);
            note("at rest")?;
            // The first message ends each connection's rest. The second one follows at once.
            for what in ["message after it", "message after that"] {
                let before = proxy.meter.read()?;
                crowd.one_each(SMALL)?;
                let cost = Figure::micros_each(proxy.meter.since(before)?, count as u64);
                figures.push(Figure::of(what, "us", cost.value));
            }
        }
        drop(crowd);
        let closed = Instant::now();
        Ok((figures, Rest { proxy, before, closed }))
    }

    fn what_is_kept(&mut self, scenario: Scenario, rest: &Rest, round: usize) -> anyhow::Result<()> {
        sleep(GIVES_BACK.saturating_sub(rest.closed.elapsed()));
        let meter = &rest.proxy.meter;
        let figures = vec![
            Figure::megabytes("kept", meter.pss()? - rest.before),
            Figure::megabytes("left in all", meter.pss_in_all()?),
        ];
        self.book.note(scenario, rest.proxy.contender, round, figures);
        Ok(())
    }

    fn flood(&self, proxy: &Proxy) -> anyhow::Result<Vec<Figure>> {
        let (_occupied, flooded, target): (_, SocketAddr, _) = if proxy.contender == Contender::Relay {
            (Vec::new(), proxy.backend, "/refuse")
        } else {
            (occupy(proxy.front)?, proxy.front, "/echo")
        };
        let heard = flood::hear(proxy.front, flooded, target, self.effort.flood_lasts)?;
        Ok(vec![
            Figure::of("quiet p50", "us", heard.quiet.0),
            Figure::of("quiet p99", "us", heard.quiet.1),
            Figure::of("p50", "us", heard.flooded.0),
            Figure::of("p99", "us", heard.flooded.1),
            Figure::of("p99 to quiet", "x", heard.flooded.1 / heard.quiet.1),
            Figure::of("refused", "/s", heard.refused),
        ])
    }

    fn pending(&self, proxy: &Proxy) -> anyhow::Result<Vec<Figure>> {
        let count = self.effort.pending;
        let mut first = Pending::open(proxy.front, 20)?;
        first.begin_to_ask()?;
        drop(first);
        sleep(SETTLES);
        let before = proxy.meter.pss()?;
        let mut pending = Pending::open(proxy.front, count)?;
        sleep(SETTLES);
        let silent = Figure::kib_each("silent", proxy.meter.pss()? - before, count);
        pending.begin_to_ask()?;
        sleep(SETTLES);
        let half = Figure::kib_each("half a head", proxy.meter.pss()? - before, count);
        pending.ensure_all_wait()?;
        Ok(vec![silent, half])
    }

    fn beside(&self, proxy: &Proxy) -> anyhow::Result<Figure> {
        let mut crowd = Crowd::open(proxy.front, BUSY)?;
        let alone = self.echo(&mut crowd, BUSY, SMALL, proxy)?;
        crowd.grow(proxy.front, BUSY + self.effort.beside)?;
        sleep(SETTLES);
        let beside = self.echo(&mut crowd, BUSY, SMALL, proxy)?;
        Ok(Figure::of("", "x", beside.value / alone.value))
    }

    fn calls(&self, counted: Counted, proxy: &Proxy) -> anyhow::Result<Figure> {
        let strace = self.tools.strace.as_deref().context("no strace")?;
        let lasts = self.effort.count_lasts;
        let (calls, count) = match counted {
            Counted::Echo => {
                let mut crowd = Crowd::open(proxy.front, BUSY)?;
                crowd.echo(BUSY, SMALL, self.effort.warm_up)?;
                let counting = Counting::begin(strace, &proxy.meter)?;
                let count = crowd.echo(BUSY, SMALL, lasts)?;
                (counting.end()?, count)
            }
            Counted::Upgrade => count_storm(Kind::Upgrade, proxy, strace, lasts)?,
            Counted::Refusal => {
                let _occupied = occupy(proxy.front)?;
                count_storm(Kind::Refusal, proxy, strace, lasts)?
            }
        };
        Ok(Figure::of("", "calls", calls / count as f64))
    }
}

/// A proxy whose connections have all been closed.
#[derive(Debug)]
struct Rest {
    proxy: Proxy,
    before: f64,
    closed: Instant,
}

fn count_storm(kind: Kind, proxy: &Proxy, strace: &std::path::Path, lasts: Duration) -> anyhow::Result<(f64, u64)> {
    let mut storm = Storm::new(kind, proxy.front, "/echo")?;
    let counting = Counting::begin(strace, &proxy.meter)?;
    let count = storm.run(lasts)?;
    Ok((counting.end()?, count))
}

const SMALL: usize = 125;
const LARGE: usize = 64 * 1024;
const BUSY: usize = 100;
const SETTLES: Duration = Duration::from_millis(300);
/// The wait before the memory is measured: allocators give memory back with a delay, jemalloc within ten seconds.
const GIVES_BACK: Duration = Duration::from_secs(12);
