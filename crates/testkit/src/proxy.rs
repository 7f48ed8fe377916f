//! A link to a server that can be made slow, deaf or broken. For servers that say themselves where they are (Kafka), let them say the
//! proxy's address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is wrong with the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Everything takes this much longer, in each direction.
    Delay(Duration),
    /// Nothing passes and nothing is lost; it passes when the fault ends.
    Stall,
    /// What the client sends arrives; the server's answers are lost. Connections that lost one are cut when the fault ends.
    LoseAnswers,
    /// To the client its connections look open, and nobody is at the other end: what it sends is lost. They are cut when the fault ends.
    HalfOpen,
    /// Connections are cut, and new ones are cut at once.
    Cut,
}

/// Forwards connections to a server until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    accepting: JoinHandle<()>,
}

struct Link {
    fault: watch::Sender<Fault>,
    target: watch::Sender<String>,
    connections: AtomicU64,
    lost_bytes: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

impl Proxy {
    /// Listens on `host:port`, and forwards to a server that need not be there yet.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub async fn start(listen: &str, target: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (fault, target) = (watch::Sender::new(Fault::None), watch::Sender::new(target.into()));
        let link = Link { fault, target, connections: AtomicU64::new(0), lost_bytes: AtomicU64::new(0) };
        let link = Arc::new(link);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&link)));
        Ok(Self { address, link, accepting })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this is wrong with the link.
    pub fn set(&self, fault: Fault) {
        self.link.fault.send_replace(fault);
    }

    /// The server is somewhere else from now on; for new connections.
    pub fn forward_to(&self, target: impl Into<String>) {
        self.link.target.send_replace(target.into());
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.link.connections.load(Ordering::Relaxed)
    }

    /// How many bytes were lost: a test can see that its fault struck.
    pub fn lost_bytes(&self) -> u64 {
        self.link.lost_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.link.fault.send_replace(Fault::Cut);
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        link.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(forward(client, Arc::clone(&link)));
    }
}

/// Ends with the first direction that ends; dropping the halves closes both connections.
async fn forward(client: TcpStream, link: Arc<Link>) {
    let mut fault = link.fault.subscribe();
    // While nothing passes, no connection comes about either.
    if fault.wait_for(|fault| !matches!(fault, Fault::Stall | Fault::HalfOpen)).await.is_err() {
        return;
    }
    let target = link.target.borrow().clone();
    let Ok(server) = TcpStream::connect(&target).await else { return };
    // Without it the link is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = cut(link.fault.subscribe()) => (),
        () = pump(from_client, to_server, From::Client, &link) => (),
        () = pump(from_server, to_client, From::Server, &link) => (),
    }
}

async fn cut(mut fault: watch::Receiver<Fault>) {
    // An error means that the proxy is gone.
    let _ = fault.wait_for(|fault| *fault == Fault::Cut).await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, side: From, link: &Link) {
    let mut fault = link.fault.subscribe();
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = fault.wait_for(|fault| *fault != Fault::Stall).await.map(|fault| *fault) else { return };
        match now {
            Fault::HalfOpen => return lose(from, &mut buffer, read, link).await,
            Fault::LoseAnswers if side == From::Server => return lose(from, &mut buffer, read, link).await,
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::None | Fault::LoseAnswers | Fault::Stall | Fault::Cut => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // What one side has ended must not be noticed through a fault that hides it.
    let _ = fault.wait_for(|fault| !matches!(fault, Fault::Stall | Fault::HalfOpen | Fault::LoseAnswers)).await;
}

/// Swallows what comes until the fault is another; then the connection has a hole and must end.
async fn lose(mut from: OwnedReadHalf, buffer: &mut [u8], first: usize, link: &Link) {
    let lost = |bytes: usize| link.lost_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    lost(first);
    let mut fault = link.fault.subscribe();
    loop {
        tokio::select! {
            // Also when the proxy is gone.
            _ = fault.changed() => return,
            read = from.read(buffer) => match read {
                Ok(read @ 1..) => { lost(read); }
                Ok(0) | Err(_) => { let _ = fault.changed().await; return }
            }
        }
    }
}
