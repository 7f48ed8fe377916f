//! One connection: reads requests, hands them over in order, and sends the responses in the same order.
//!
//! One task does all of it, so a request costs no hand-over between tasks. Produce requests do not hold up those behind
//! them: all that arrived are appended at once, share a commit group, and their responses leave with one write.

mod input;
mod output;
mod output_budget;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use baton_log::{Durable, Poisoned};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

pub(crate) use input::InputBudget;
use input::{Input, Taken};
use output::Output;
pub(crate) use output_budget::{OutputBudget, PRESSED_PEER_MAX};

use crate::metrics::{Limit, Metrics};

/// Why a connection ended; each one is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CloseReason {
    /// The peer closed it.
    ByPeer,
    /// The peer closed it in the middle of a request.
    ByPeerInRequest,
    /// The peer's machine or the network broke it.
    Network,
    /// Nothing was asked for `connections.max.idle.ms`.
    Idle,
    /// A request was begun and not finished in time.
    SlowRequest,
    /// A response was not read in time.
    SlowReader,
    /// A request larger than `socket.request.max.bytes`, or of a negative size.
    RequestSize,
    /// Bytes that are no request, or a request that cannot be answered in a way the peer would understand.
    Malformed,
    /// A request, or a version of it, that is not served.
    UnsupportedRequest,
    /// Records sent with `acks=0` could not be stored: there is no other way to say so.
    SilentProduceFailed,
    /// `max.connections` were open already.
    TooManyConnections,
    /// The broker is shutting down.
    Shutdown,
}

impl CloseReason {
    /// All of them, for metrics.
    pub const ALL: [Self; 12] = [
        Self::ByPeer,
        Self::ByPeerInRequest,
        Self::Network,
        Self::Idle,
        Self::SlowRequest,
        Self::SlowReader,
        Self::RequestSize,
        Self::Malformed,
        Self::UnsupportedRequest,
        Self::SilentProduceFailed,
        Self::TooManyConnections,
        Self::Shutdown,
    ];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::ByPeer => "closed_by_peer",
            Self::ByPeerInRequest => "closed_by_peer_in_request",
            Self::Network => "network_error",
            Self::Idle => "idle",
            Self::SlowRequest => "slow_request",
            Self::SlowReader => "slow_reader",
            Self::RequestSize => "request_size",
            Self::Malformed => "malformed_request",
            Self::UnsupportedRequest => "unsupported_request",
            Self::SilentProduceFailed => "silent_produce_failed",
            Self::TooManyConnections => "too_many_connections",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What becomes of a request.
pub(crate) enum Handled {
    /// The answer is there.
    Ready(Vec<Bytes>),
    /// There will be no answer (`acks=0`).
    Silent,
    /// The answer waits for the disk. Requests behind it go on meanwhile.
    Durable(Durable, Box<dyn FnOnce(Result<(), Poisoned>) -> Vec<Bytes> + Send>),
    /// The answer takes a while, and is `Ready`, `Silent` or `Close` then. Requests behind it wait.
    Waiting(Pin<Box<dyn Future<Output = Handled> + Send>>),
    /// The connection must end.
    Close(CloseReason),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub address: SocketAddr,
}

/// Answers requests. `request` is one whole request without its length prefix.
pub(crate) trait Service: Send + Sync {
    fn handle(&self, request: Bytes, peer: Peer) -> Handled;
    /// Where the connection counts what it does.
    fn metrics(&self) -> &Metrics;
}

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Largest request, in bytes.
    pub request_bytes_max: usize,
    /// Requests that may wait for their responses at once.
    pub requests_in_flight_max: usize,
    /// Response bytes that may wait for the peer to read them; beyond, no further request is handled.
    pub unread_response_bytes_max: usize,
    /// How long a connection may be without a request.
    pub idle_max: Duration,
    /// How long a request may take to arrive, and a response to be read.
    pub slow_peer_max: Duration,
}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Budgets {
    pub input: Arc<InputBudget>,
    pub output: Arc<OutputBudget>,
}

/// A request that arrives at this rate or faster is not slow, however large it is.
const SLOW_BYTES_PER_SECOND: u64 = 16 << 10;

struct Connection<S> {
    service: Arc<S>,
    stream: TcpStream,
    peer: Peer,
    limits: ConnectionLimits,
    input: Input,
    output: Output,
    unread: Arc<OutputBudget>,
    /// Whether the peers of other connections have too much to read.
    is_pressed: bool,
    in_flight: VecDeque<Handled>,
    /// The limit that keeps further requests from being handled; counted once for each time that it does.
    limited_by: Option<Limit>,
    /// When the last request was taken.
    last_request: Instant,
    timer: Pin<Box<Sleep>>,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// No further request is handled; those that were are answered.
    is_draining: bool,
    /// All that was to be answered is; what is in the output is sent, and that is the end.
    ending: Option<CloseReason>,
}

/// Serves one connection until it ends.
pub(crate) async fn serve<S: Service>(
    service: Arc<S>,
    stream: TcpStream,
    peer: Peer,
    limits: ConnectionLimits,
    budgets: Budgets,
    mut shutdown: watch::Receiver<bool>,
) -> CloseReason {
    let mut connection = Connection {
        service,
        stream,
        peer,
        limits,
        input: Input::new(budgets.input),
        output: Output::new(budgets.output.clone()),
        unread: budgets.output,
        is_pressed: false,
        in_flight: VecDeque::new(),
        limited_by: None,
        last_request: Instant::now(),
        timer: Box::pin(tokio::time::sleep(limits.idle_max.min(limits.slow_peer_max))),
        shutdown: Box::pin(async move {
            // An error means that the broker is gone: the same as a shutdown.
            let _ = shutdown.wait_for(|shutdown| *shutdown).await;
        }),
        is_draining: false,
        ending: None,
    };
    std::future::poll_fn(|context| connection.poll(context)).await
}

impl<S: Service> Connection<S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            if self.output.is_cut() {
                return Poll::Ready(CloseReason::SlowReader);
            }
            self.look_for_pressure(context);
            let mut progress = self.take_requests(context);
            progress |= self.collect_responses(context);
            match self.output.poll_write(&self.stream, context) {
                Ok(0) => {}
                Ok(written) => {
                    self.service.metrics().sent_bytes.fetch_add(written as u64, Ordering::Relaxed);
                    progress = true;
                }
                Err(_) => return Poll::Ready(CloseReason::Network),
            }
            if let Some(reason) = self.ending
                && self.output.is_empty()
            {
                return Poll::Ready(reason);
            }
            match self.read(context) {
                Ok(read) => progress |= read,
                Err(reason) => return Poll::Ready(reason),
            }
            if progress {
                continue;
            }
            if let Some(reason) = self.check_time(context) {
                return Poll::Ready(reason);
            }
            if !self.is_draining && self.shutdown.as_mut().poll(context).is_ready() {
                self.is_draining = true;
                self.in_flight.push_back(Handled::Close(CloseReason::Shutdown));
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Whether a further request may be handled now.
    fn may_take(&self) -> bool {
        !self.is_draining
            && !self.is_pressed
            && self.ending.is_none()
            && self.in_flight.len() < self.limits.requests_in_flight_max
            && self.output.len() < self.limits.unread_response_bytes_max
            && !matches!(self.in_flight.back(), Some(Handled::Waiting(_) | Handled::Close(_)))
    }

    /// Looks whether there is room for answers. If not, looks again soon: slow peers are let go then.
    fn look_for_pressure(&mut self, context: &Context<'_>) {
        let was_pressed = self.is_pressed;
        self.is_pressed = self.unread.poll_room(context).is_pending();
        if self.is_pressed && !was_pressed {
            self.timer.as_mut().reset(tokio::time::Instant::now() + PRESSED_PEER_MAX);
        }
    }

    /// Counts when a limit begins to keep requests from being handled.
    fn note_limit(&mut self) {
        let limit = if self.in_flight.len() >= self.limits.requests_in_flight_max {
            Some(Limit::ConnectionRequests)
        } else if self.output.len() >= self.limits.unread_response_bytes_max {
            Some(Limit::ConnectionUnreadBytes)
        } else if self.is_pressed {
            Some(Limit::QueuedResponseBytes)
        } else {
            None
        };
        if self.limited_by != limit {
            self.limited_by = limit;
            if let Some(limit) = limit {
                self.service.metrics().limit_hit(limit);
            }
        }
    }

    /// Handles the requests that have arrived whole, as far as they may be.
    fn take_requests(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.may_take() {
            let request = match self.input.take(self.limits.request_bytes_max) {
                Taken::Request(request) => request,
                Taken::Incomplete => break,
                Taken::BadSize(size) => {
                    tracing::warn!(peer = %self.peer.address, size, "request size refused, connection closed");
                    self.in_flight.push_back(Handled::Close(CloseReason::RequestSize));
                    return true;
                }
            };
            progress = true;
            self.last_request = Instant::now();
            match self.service.handle(request, self.peer) {
                Handled::Ready(chunks) if self.in_flight.is_empty() => self.output.push(chunks),
                Handled::Silent => {}
                Handled::Waiting(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(handled) => self.in_flight.push_back(handled),
                    Poll::Pending => self.in_flight.push_back(Handled::Waiting(future)),
                },
                other => self.in_flight.push_back(other),
            }
        }
        self.note_limit();
        progress
    }

    /// Moves the responses that are ready from the front of the queue to the output.
    fn collect_responses(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        // The last one may be waiting for something else than the disk, and must be polled to get on.
        if self.in_flight.len() > 1
            && let Some(Handled::Waiting(future)) = self.in_flight.back_mut()
            && let Poll::Ready(handled) = future.as_mut().poll(context)
        {
            self.in_flight.pop_back();
            self.in_flight.push_back(handled);
            progress = true;
        }
        while let Some(front) = self.in_flight.pop_front() {
            match front {
                Handled::Ready(chunks) => self.output.push(chunks),
                Handled::Durable(mut durable, respond) => match Pin::new(&mut durable).poll(context) {
                    Poll::Ready(outcome) => self.output.push(respond(outcome)),
                    Poll::Pending => {
                        self.in_flight.push_front(Handled::Durable(durable, respond));
                        break;
                    }
                },
                Handled::Waiting(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(handled) => self.in_flight.push_front(handled),
                    Poll::Pending => {
                        self.in_flight.push_front(Handled::Waiting(future));
                        break;
                    }
                },
                Handled::Silent => {}
                Handled::Close(reason) => {
                    self.ending = Some(reason);
                    self.in_flight.clear();
                }
            }
            progress = true;
        }
        progress
    }

    /// Reads what has arrived, if there is reason to. Always looks whether the peer is still there.
    fn read(&mut self, context: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.ending.is_some() {
            return Ok(false);
        }
        let wanted = self.may_take();
        match self.input.poll_read(&mut self.stream, context, wanted, self.service.metrics()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) if self.input.is_empty() => Err(CloseReason::ByPeer),
            Poll::Ready(Ok(0)) => Err(CloseReason::ByPeerInRequest),
            Poll::Ready(Ok(read)) => {
                self.service.metrics().received_bytes.fetch_add(read as u64, Ordering::Relaxed);
                Ok(true)
            }
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(CloseReason::ByPeer),
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::QuotaExceeded => {
                Err(CloseReason::SlowRequest)
            }
            Poll::Ready(Err(_)) => Err(CloseReason::Network),
        }
    }

    /// Closes connections that are idle or too slow; called when there is nothing else to do.
    fn check_time(&mut self, context: &mut Context<'_>) -> Option<CloseReason> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let idle_since = self.last_request.max(self.output.last_progress());
            if self.in_flight.is_empty() && self.output.is_empty() && now >= idle_since + self.limits.idle_max {
                return Some(CloseReason::Idle);
            }
            let time_for_bytes = Duration::from_secs(self.input.len() as u64 / SLOW_BYTES_PER_SECOND);
            if let Some(since) = self.input.incomplete_since()
                && self.may_take()
                && now >= since + self.limits.slow_peer_max + time_for_bytes
            {
                return Some(CloseReason::SlowRequest);
            }
            if !self.output.is_empty() && now >= self.output.last_progress() + self.limits.slow_peer_max {
                return Some(CloseReason::SlowReader);
            }
            self.input.release_unused();
            let usual = self.limits.idle_max.min(self.limits.slow_peer_max) / 2;
            let next = if self.is_pressed { PRESSED_PEER_MAX.min(usual) } else { usual };
            self.timer.as_mut().reset(tokio::time::Instant::now() + next);
        }
        None
    }
}

#[cfg(test)]
mod tests;
