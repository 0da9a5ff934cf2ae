//! The demo's backend: an ordinary WebSocket chat server that knows nothing of the guard in front of it.
//!
//! In: `{"join":{"room":"lobby","nick":"ada"}}`, `{"say":"hello"}`. Out: see [`Event`]. A second `join` changes rooms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::rooms::{Event, Rooms, Seat};

/// Serves for ever, at most 256 connections at once. Further connections wait in the accept queue.
pub(crate) async fn serve(listener: TcpListener) {
    let rooms = Arc::new(Rooms::default());
    let sockets = Arc::new(Semaphore::new(SOCKETS));
    loop {
        let Ok(socket_seat) = Arc::clone(&sockets).acquire_owned().await else {
            return;
        };
        let Ok((socket, _)) = listener.accept().await else {
            // Most likely there is no free descriptor: an immediate retry would only use up a CPU.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let rooms = Arc::clone(&rooms);
        tokio::spawn(async move {
            chat(socket, rooms).await;
            drop(socket_seat);
        });
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Join { room: String, nick: String },
    Say(String),
}

async fn chat(socket: TcpStream, rooms: Arc<Rooms>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(MESSAGE_MAX)
        .write_buffer_size(0)
        .max_write_buffer_size(WAITING_MAX)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let accepted = timeout(HANDSHAKE, accept_async_with_config(socket, Some(config))).await;
    let Ok(Ok(mut socket)) = accepted else { return };

    let mut seat = None;
    loop {
        let line = tokio::select! {
            line = next_line(&mut seat) => match line {
                Some(line) => line,
                None => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match handle(&text, &rooms, &mut seat) {
                    Some(line) => line,
                    None => continue,
                },
                Some(Ok(Message::Binary(_))) => Event::Error { text: NOT_UNDERSTOOD }.line(),
                // The library answers pings and closes.
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => break,
            },
        };
        if !send_line(&mut socket, line).await {
            break;
        }
    }
    // The other people get the leave line first, because the close may take a while.
    drop(seat);
    let _ = timeout(CLOSE, socket.close(None)).await;
}

async fn next_line(seat: &mut Option<Seat>) -> Option<Utf8Bytes> {
    match seat {
        Some(seat) => seat.next_line().await,
        None => std::future::pending().await,
    }
}

/// Carries out a request. Returns the answer for the sender alone. Lines for everyone go through the seats of the room.
fn handle(text: &str, rooms: &Arc<Rooms>, seat: &mut Option<Seat>) -> Option<Utf8Bytes> {
    let fault = match serde_json::from_str(text) {
        Ok(Request::Join { room, nick }) => {
            // The client leaves the old room before it joins, so that its own nickname is free.
            *seat = None;
            match rooms.join(&room, &nick) {
                Ok((taken, welcome)) => {
                    *seat = Some(taken);
                    return Some(welcome);
                }
                Err(fault) => fault.to_string(),
            }
        }
        Ok(Request::Say(text)) => match seat.as_ref().map(|seat| seat.say(&text)) {
            Some(Ok(())) => return None,
            Some(Err(fault)) => fault.to_string(),
            None => "Join a room first".to_owned(),
        },
        Err(_) => NOT_UNDERSTOOD.to_owned(),
    };
    Some(Event::Error { text: &fault }.line())
}

/// Sends a line. Returns whether the client took it in time.
async fn send_line(socket: &mut WebSocketStream<TcpStream>, line: Utf8Bytes) -> bool {
    matches!(timeout(SEND, socket.send(Message::Text(line))).await, Ok(Ok(())))
}

const NOT_UNDERSTOOD: &str = r#"Send {"join":{"room":"lobby","nick":"ada"}} or {"say":"hello"}"#;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CLOSE: Duration = Duration::from_secs(1);
const HANDSHAKE: Duration = Duration::from_secs(5);
const MESSAGE_MAX: usize = 4 * 1024;
/// The most connections at once: well above the limit of the demo's guard.
const SOCKETS: usize = 256;
const SEND: Duration = Duration::from_secs(10);
/// The most bytes that are buffered for one client, apart from the lines of its room.
const WAITING_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
