//! `wsguard demo`: the real guard in front of an embedded chat server, with a page for chatting and for starting a flood.
//! The demo needs no file and no network.

mod attacker;
mod chat;
mod flood;
mod minute;
mod numbers;
mod page;
mod rooms;
mod scoreboard;
mod shape;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::flood::Flood;
use self::page::Page;
use crate::config::policy::{LogFormat, LogLevel};
use crate::control::descriptors;
use crate::control::guard::{Environment, Guard};
use crate::net::bound::plain;
use crate::net::random::Random;
use crate::telemetry::{log, panics};
use crate::{admin, config};

/// What `wsguard demo` takes.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// Where the page is served [default: 127.0.0.1:9180, or a free port]
    #[arg(long, value_name = "ADDR")]
    pub page: Option<SocketAddr>,
    /// Where the guard listens [default: 127.0.0.1:9181, or a free port]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Start one flood at once, as the page's button does, and tell here how it went
    #[arg(long)]
    pub flood: bool,
}

/// Runs until INT or TERM, which end the demo at once. The first line on stdout is `page http://ADDR/`, written when
/// everything is up. Fails if an address on the command line can't be bound. A default address that is taken is replaced by
/// a free one.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    // Addresses from the command line are bound first, so that a default or free address does not take one of them.
    let written = args
        .listen
        .map(|address| bind_written("--listen", address))
        .transpose()?;
    let page_socket = match args.page {
        Some(address) => bind_written("--page", address)?,
        None => bind_default(PAGE_PORT)?,
    };
    let (chat_socket, admin_socket) = (bind_free()?, bind_free()?);
    let guard_socket = written.map_or_else(|| bind_default(GUARD_PORT), Ok)?;
    let (page_at, guard_at) = (page_socket.local_addr()?, guard_socket.local_addr()?);
    let (chat_at, admin_at) = (chat_socket.local_addr()?, admin_socket.local_addr()?);

    start_chat(chat_socket)?;
    // The guard binds the address itself, as always. This socket only checked that the address is free.
    drop(guard_socket);
    let guard = start_guard(&config_text(guard_at, page_at, chat_at, admin_at))?;
    let _admin = admin::start(admin_socket, Vec::new(), Arc::clone(&guard)).context("starting the admin server")?;

    let runtime = runtime()?;
    runtime.block_on(async {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let page_socket = listener(page_socket)?;
        greet(page_at, guard_at, admin_at);
        let page = Arc::new(Page {
            guard,
            guard_at,
            per_ip: PER_IP,
            burst: MESSAGES_AT_ONCE,
            rate: MESSAGES_A_SECOND,
            flood: Flood::new(guard_at, flood::LASTS),
            minute: Mutex::default(),
            random: Random::from_os().context("random numbers from the operating system")?,
        });
        let flood = async {
            if args.flood {
                flood_and_tell(&page).await;
            }
        };
        tokio::select! {
            _ = async { tokio::join!(page::serve(page_socket, Arc::clone(&page)), flood) } => {}
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        Ok(())
    })
}

/// Starts the guard in threads of its own.
fn start_guard(text: &str) -> anyhow::Result<Arc<Guard>> {
    let checked = config::compile(text, "demo").map_err(|rejected| anyhow::anyhow!(rejected.render(false)))?;
    let environment = Environment::new(descriptors::raise_limit());
    let guard = Guard::start(checked.policy, environment).context("starting the guard")?;
    panics::count_and_log(&guard.in_force().process.metrics, guard.log());
    Ok(guard)
}

fn start_chat(socket: TcpListener) -> anyhow::Result<()> {
    let runtime = runtime()?;
    thread::Builder::new().name("chat".into()).spawn(move || {
        runtime.block_on(async {
            match listener(socket) {
                Ok(listener) => chat::serve(listener).await,
                Err(error) => {
                    let message = format!("the chat server can't listen: {error}");
                    log::write_now(LogFormat::Auto, LogLevel::Error, "failed", message);
                }
            }
        });
    })?;
    Ok(())
}

/// The text of the demo's configuration, as a user would write it.
fn config_text(guard: SocketAddr, page: SocketAddr, chat: SocketAddr, admin: SocketAddr) -> String {
    // Pages of other sites can dial loopback addresses too, so only the demo's own page is admitted to the chat. If the
    // page's address is a wildcard, its names are not known here, so every origin is admitted.
    let origins = if page.ip().is_unspecified() {
        String::new()
    } else {
        // Browsers leave the default port out of an Origin.
        let (page, port) = match page.port() {
            80 => (page.ip().to_string(), String::new()),
            port => (page.to_string(), format!(":{port}")),
        };
        format!("origins = [\"http://{page}\", \"http://localhost{port}\"]\n")
    };
    format!(
        "[[listener]]\n\
         bind = [\"{guard}\"]\n\
         max_pending = {PENDING}\n\
         handshake_timeout = \"5s\"\n\
         \n\
         [limits]\n\
         connections = {CONNECTIONS}\n\
         per_ip = {PER_IP}\n\
         per_ip_rate = \"5/s\"\n\
         per_ip_burst = 20\n\
         \n\
         [limits.messages]\n\
         rate = \"{MESSAGES_A_SECOND}/s\"\n\
         burst = {MESSAGES_AT_ONCE}\n\
         per_ip_rate = \"10/s\"\n\
         per_ip_burst = 20\n\
         max_size = \"4KiB\"\n\
         ping = \"5s\"\n\
         pong_timeout = \"3s\"\n\
         \n\
         [[route]]\n\
         name = \"chat\"\n\
         {origins}\
         \n\
         [upstream.chat]\n\
         servers = [\"{chat}\"]\n\
         \n\
         [admin]\n\
         listen = \"{admin}\"\n\
         \n\
         [log]\n\
         access = \"rejected\"\n\
         sample = \"1/s\"\n"
    )
}

fn greet(page: SocketAddr, guard: SocketAddr, admin: SocketAddr) {
    say(&format!(
        "page http://{page}/\n\
         guard ws://{guard}/chat\n\
         metrics http://{admin}/metrics\n\
         stats http://{admin}/stats\n\
         \n\
         Open the page in two tabs and chat. Each address may have {PER_IP} connections: the sixth tab gets 429\n\
         until one of the others is closed. The page's button floods the guard from other loopback addresses, and\n\
         the chat goes on. Ctrl-C ends the demo.\n"
    ));
}

/// Runs one flood, and prints its result.
async fn flood_and_tell(page: &Page) {
    let Some(flood) = page.flood.start() else { return };
    say(&format!("\nflood begins, for {} s\n", flood::LASTS.as_secs()));
    if flood.await.is_err() {
        return;
    }
    for result in page.flood.progress().shapes {
        say(&format!("flood {}\n", result.line()));
    }
    let now = page.numbers(page.guard_at.ip());
    let by_reason = |counts: &BTreeMap<&'static str, u64>| {
        let each: Vec<_> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        format!("{} ({})", counts.values().sum::<u64>(), each.join(", "))
    };
    say(&format!(
        "flood over: the guard has admitted {}, refused {}, ended {}\n",
        now.admitted,
        by_reason(&now.reasons),
        by_reason(&now.ended),
    ));
}

/// Prints lines. If stdout is closed, the demo goes on.
fn say(lines: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}

fn bind_written(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    plain(address).with_context(|| format!("{flag} {address}"))
}

fn bind_default(port: u16) -> anyhow::Result<TcpListener> {
    plain((Ipv4Addr::LOCALHOST, port).into()).or_else(|_| bind_free())
}

fn bind_free() -> anyhow::Result<TcpListener> {
    plain((Ipv4Addr::LOCALHOST, 0).into()).context("no free port on 127.0.0.1")
}

fn listener(socket: TcpListener) -> anyhow::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(socket)?)
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

const CONNECTIONS: u32 = 100;
const GUARD_PORT: u16 = 9181;
/// The rate of messages. A fast typist can just exceed it, to see what happens.
const MESSAGES_A_SECOND: u32 = 2;
const MESSAGES_AT_ONCE: u32 = 5;
const PAGE_PORT: u16 = 9180;
/// `max_pending`: small enough for any descriptor limit, so that the demo does not begin with a log line about a lowered
/// number.
const PENDING: u32 = 200;
const PER_IP: u32 = 5;
