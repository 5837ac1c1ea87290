//! The *closing handshake* of a WebSocket (RFC 6455, section 7): who is told that it is over says so back, and only then ends the
//! connection. A client whose answer meets a connection that is gone already takes a good end for a broken one.
//!
//! ```text
//! server ── close ──▶ client ── close ──▶ server ends the connection
//! ```

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

/// A client that does not answer in this time has gone, or never will.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Closes a socket, unless that has been said, and waits until the caller has said so, too. What it says meanwhile is not heard.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    let handshake = async {
        let _ = socket.close(None).await; // one of both may have said so before
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = tokio::time::timeout(ANSWER_WAIT, handshake).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::SinkExt;
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (server, client) = tokio::io::duplex(4096);
        let server = WebSocketStream::from_raw_socket(server, Role::Server, None);
        (server.await, WebSocketStream::from_raw_socket(client, Role::Client, None).await)
    }

    #[tokio::test]
    async fn the_connection_is_there_until_the_client_has_answered() {
        let (server, mut client) = pair().await;
        let mut closing = tokio::spawn(close(server));
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut closing).await;
        assert!(early.is_err(), "the connection was gone before the client could answer");
        client.flush().await.unwrap(); // its answer
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_closes_is_answered() {
        let (server, mut client) = pair().await;
        client.close(None).await.unwrap();
        let (_, answer) = tokio::join!(close(server), client.next());
        assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_client_that_never_answers_is_left() {
        let (server, _client) = pair().await;
        tokio::time::timeout(6 * ANSWER_WAIT, close(server)).await.expect("it is waited for without an end");
    }
}
