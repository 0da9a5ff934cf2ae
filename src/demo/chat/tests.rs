#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::client_async;

use super::*;

struct Person(WebSocketStream<TcpStream>);

impl Person {
    async fn connect(chat: SocketAddr) -> Self {
        Self::upgrade(TcpStream::connect(chat).await.unwrap(), chat).await
    }

    async fn upgrade(socket: TcpStream, chat: SocketAddr) -> Self {
        Self(client_async(format!("ws://{chat}/chat"), socket).await.unwrap().0)
    }

    async fn join(chat: SocketAddr, room: &str, nick: &str) -> Self {
        Self::connect(chat).await.joined(room, nick).await
    }

    async fn joined(self, room: &str, nick: &str) -> Self {
        let mut person = self;
        person.send(&json!({"join": {"room": room, "nick": nick}})).await;
        assert_eq!(person.hears().await["event"], "welcome");
        person
    }

    async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn hears(&mut self) -> Value {
        let message = timeout(Duration::from_secs(15), self.0.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }
}

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener));
    address
}

#[tokio::test]
async fn two_people_get_each_others_messages() {
    let chat = start().await;
    let mut ada = Person::join(chat, "lobby", "ada").await;
    let mut bob = Person::join(chat, "lobby", "bob").await;
    assert_eq!(ada.hears().await, json!({"event": "joined", "nick": "bob"}));
    bob.send(&json!({"say": "hi"})).await;
    let said = json!({"event": "said", "nick": "bob", "text": "hi"});
    assert_eq!(ada.hears().await, said);
    assert_eq!(bob.hears().await, said);
}

#[tokio::test]
async fn the_leave_line_comes_after_a_close_a_fin_and_a_reset() {
    let chat = start().await;
    let mut ada = Person::join(chat, "lobby", "ada").await;
    for how in ["close", "fin", "reset"] {
        let mut bob = Person::join(chat, "lobby", how).await;
        assert_eq!(ada.hears().await, json!({"event": "joined", "nick": how}));
        match how {
            "close" => bob.0.close(None).await.unwrap(),
            "reset" => bob.0.get_ref().set_zero_linger().unwrap(),
            _ => {}
        }
        drop(bob);
        assert_eq!(ada.hears().await, json!({"event": "left", "nick": how}));
    }
}

#[tokio::test]
async fn a_second_join_changes_rooms() {
    let chat = start().await;
    let mut ada = Person::join(chat, "lobby", "ada").await;
    let mut bob = Person::join(chat, "lobby", "bob").await;
    ada.hears().await;
    bob.send(&json!({"join": {"room": "attic", "nick": "bob"}})).await;
    assert_eq!(ada.hears().await, json!({"event": "left", "nick": "bob"}));
    assert_eq!(
        bob.hears().await,
        json!({"event": "welcome", "room": "attic", "nick": "bob", "people": ["bob"]})
    );
}

#[tokio::test]
async fn a_message_that_is_not_understood_is_answered_and_changes_nothing() {
    let chat = start().await;
    let mut ada = Person::connect(chat).await;
    for message in [
        json!({"say": "too early"}),
        json!({"join": {"room": "lobby"}}),
        json!({"join": {"room": "lobby", "nick": ""}}),
        json!({"shout": "hi"}),
        json!([]),
    ] {
        ada.send(&message).await;
        assert_eq!(ada.hears().await["event"], "error", "{message}");
    }
    ada.0.send(Message::binary("hi")).await.unwrap();
    assert_eq!(ada.hears().await["event"], "error");
    ada.send(&json!({"join": {"room": "lobby", "nick": "ada"}})).await;
    assert_eq!(ada.hears().await["event"], "welcome");
}

#[tokio::test]
async fn an_oversized_message_ends_only_the_senders_connection() {
    let chat = start().await;
    let mut ada = Person::join(chat, "lobby", "ada").await;
    let mut bob = Person::join(chat, "lobby", "bob").await;
    ada.hears().await;
    bob.0.send(Message::text("x".repeat(MESSAGE_MAX + 1))).await.unwrap();
    assert_eq!(ada.hears().await, json!({"event": "left", "nick": "bob"}));
}

#[tokio::test]
async fn a_reader_that_never_reads_is_dropped() {
    let chat = start().await;
    let mut ada = Person::join(chat, "lobby", "ada").await;
    // The receive buffer is small, so that the chat server soon has to wait, and not only after megabytes.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let slow = Person::upgrade(socket.connect(chat).await.unwrap(), chat).await;
    let slow = slow.joined("lobby", "slow").await;
    ada.hears().await;
    // In total, this is far more than the kernel buffers for one socket.
    let text = "x".repeat(super::super::rooms::TEXT_MAX);
    for _ in 0..40_000 {
        ada.send(&json!({"say": text})).await;
        if ada.hears().await == json!({"event": "left", "nick": "slow"}) {
            return drop(slow);
        }
    }
    panic!("the slow reader is still there");
}
