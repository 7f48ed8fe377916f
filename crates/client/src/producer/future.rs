//! Whom to tell how a send ended.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::Shared;
use super::receipt::{Receipt, SendError};

/// How a send ended.
pub(super) type Outcome = Result<Receipt, SendError>;

/// Whom to tell.
pub(super) enum Reply {
    Future(oneshot::Sender<Outcome>),
    Callback(Box<dyn Callback>),
    /// Nobody: it was promised long ago, and lies there in the spool.
    Spool(u64),
}

/// A callback that can be given back as what it was.
pub(super) trait Callback: Send {
    fn call(self: Box<Self>, outcome: Outcome);
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<C: FnOnce(Outcome) + Send + 'static> Callback for C {
    fn call(self: Box<Self>, outcome: Outcome) {
        self(outcome);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The end of a send: a [`Receipt`] when the engine has the message, or a [`SendError`] that says whether it could be stored.
///
/// The message goes on whether this is awaited or not. If it is dropped and the message fails, that is counted, logged, and handed to
/// [`ProducerBuilder::on_abandoned`](crate::ProducerBuilder::on_abandoned); dropped while the message still waits for room in the
/// buffer, the message is not sent, which counts as such a failure.
#[must_use = "whether the message is stored is known when this was awaited"]
pub struct SendFuture {
    state: State,
    shared: Arc<Shared>,
}

enum State {
    /// Under way, and its place in the line for the buffer, if it had to wait.
    Sent(oneshot::Receiver<Outcome>, Option<u64>),
    /// It was never taken.
    Refused(SendError),
    Told,
}

impl SendFuture {
    pub(super) fn sent(shared: Arc<Shared>, receiver: oneshot::Receiver<Outcome>, waiting: Option<u64>) -> Self {
        Self { state: State::Sent(receiver, waiting), shared }
    }

    pub(super) fn refused(shared: Arc<Shared>, error: SendError) -> Self {
        Self { state: State::Refused(error), shared }
    }

    /// Whether the message still waits for room in the producer's buffer.
    pub fn waits_for_room(&self) -> bool {
        matches!(self.state, State::Sent(_, Some(number)) if self.shared.inbox.is_waiting(number))
    }

    /// Waits without a runtime.
    pub(super) fn wait(mut self) -> Outcome {
        match std::mem::replace(&mut self.state, State::Told) {
            State::Sent(receiver, _) => {
                let outcome = tokio::task::block_in_place(|| receiver.blocking_recv());
                outcome.unwrap_or_else(|_| Err(SendError::ended()))
            }
            State::Refused(error) => Err(error),
            State::Told => Err(SendError::ended()),
        }
    }
}

impl Future for SendFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = match &mut self.state {
            State::Sent(receiver, _) => {
                ready!(Pin::new(receiver).poll(context)).unwrap_or_else(|_| Err(SendError::ended()))
            }
            State::Refused(error) => Err(error.clone()),
            // As with other futures, polling it again is a mistake; it gets no second receipt.
            State::Told => Err(SendError::ended()),
        };
        self.state = State::Told;
        Poll::Ready(outcome)
    }
}

impl Drop for SendFuture {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Told) {
            State::Sent(mut receiver, waiting) => {
                // From here on the driver hears that nobody listens; what it told before is looked at now.
                receiver.close();
                if let Ok(Err(error)) = receiver.try_recv() {
                    self.shared.abandoned(&error);
                }
                if let Some(submission) = waiting.and_then(|number| self.shared.inbox.cancel(number)) {
                    let error = SendError::dropped(&submission.message);
                    self.shared.failed(&error);
                    self.shared.abandoned(&error);
                }
            }
            State::Refused(error) => self.shared.abandoned(&error),
            State::Told => {}
        }
    }
}
