//! A link to a server that is cut at a chosen step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use baton_guard::conformance::Cut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How long an answer of the server is waited for that nobody will get to see.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Forwards connections to a server until it is cut; after that, none works any more.
pub struct Link {
    pub port: u16,
    state: Arc<State>,
    accept: tokio::task::JoinHandle<()>,
}

struct State {
    cut: Cut,
    steps: AtomicU32,
    was_cut: AtomicBool,
    broken: Notify,
}

impl Link {
    pub async fn to(server: u16, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { cut, steps: AtomicU32::new(0), was_cut: AtomicBool::new(false), broken: Notify::new() };
        let state = Arc::new(state);
        let accept = tokio::spawn(accept(listener, server, Arc::clone(&state)));
        Self { port, state, accept }
    }

    pub fn was_cut(&self) -> bool {
        self.state.was_cut.load(SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, server: u16, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if !state.was_cut.load(SeqCst) {
            tokio::spawn(forward(client, server, Arc::clone(&state)));
        }
    }
}

async fn forward(client: TcpStream, server: u16, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Dropping the halves closes both connections.
    tokio::select! {
        () = state.broken.notified() => (),
        () = requests(from_client, to_server, &state) => (),
        () = answers(from_server, to_client, &state) => (),
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = client.read(&mut buffer).await {
        let step = state.steps.fetch_add(1, SeqCst) + 1;
        if step == state.cut.at {
            state.was_cut.store(true, SeqCst);
            if state.cut.delivered && server.write_all(&buffer[..read]).await.is_ok() {
                // `answers` drops what comes, and ends the link with the first of it.
                tokio::time::sleep(ANSWER_WAIT).await;
            }
            break;
        }
        if state.was_cut.load(SeqCst) || server.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    if state.was_cut.load(SeqCst) {
        state.broken.notify_waiters();
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = server.read(&mut buffer).await {
        if state.was_cut.load(SeqCst) || client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    if state.was_cut.load(SeqCst) {
        state.broken.notify_waiters();
    }
}
