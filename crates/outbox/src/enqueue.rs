//! Writing messages into the outbox, in the caller's open transaction.

use std::future::Future;
use std::pin::Pin;

use baton_core::stamp::STAMP_HEADER;
use baton_core::{Message, MessageId, TOPIC_BYTES_MAX};
use bytes::Bytes;
use uuid::Uuid;

use crate::{OutboxError, encode_headers};

/// Largest message, in bytes of key, content and headers: what every engine can be set to take, and what a relay can hold many of.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What happens when a message is written whose id is in the outbox already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Duplicate {
    /// [`OutboxError::Duplicate`]; the caller's transaction has failed.
    #[default]
    Refuse,
    /// Nothing: the one that is there stays.
    Ignore,
}

/// A row to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// The message's id.
    pub id: MessageId,
    /// Where it goes.
    pub topic: String,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content.
    pub payload: Option<Bytes>,
    /// Its headers, as text.
    pub headers: Option<String>,
    /// A partition that the caller chose.
    pub partition: Option<i32>,
    /// The time of the event, in milliseconds since 1970; that of writing if absent.
    pub timestamp_ms: Option<i64>,
}

/// What messages can be written with: a transaction, or a connection that has one open.
pub trait Enqueue {
    /// Writes rows, in their order; says of each whether it is new. With [`Duplicate::Refuse`] all of them are.
    fn insert<'a>(
        &'a mut self,
        rows: &'a [NewRow],
        duplicate: Duplicate,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<bool>, OutboxError>> + Send + 'a>>;
}

/// Writes messages into the outbox of whatever database the transaction is on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outbox {
    pub(crate) duplicate: Duplicate,
}

impl Outbox {
    /// Refuses ids that are in the outbox already.
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens to a message whose id is there already. Ids are known until their row is deleted: soon after it was sent, unless done
    /// rows are kept.
    #[must_use]
    pub fn on_duplicate(mut self, duplicate: Duplicate) -> Self {
        self.duplicate = duplicate;
        self
    }

    /// Writes a message into the caller's open transaction, and gives back its id, which is fixed from now on. It is sent when that commits,
    /// and only then.
    ///
    /// # Errors
    /// As [`OutboxError`] says; the transaction is to be rolled back.
    pub async fn enqueue<T: Enqueue + ?Sized>(&self, to: &mut T, message: Message) -> Result<MessageId, OutboxError> {
        let rows = [new_row(message)?];
        to.insert(&rows, self.duplicate).await?;
        let [row] = rows;
        Ok(row.id)
    }

    /// The same for many, in one statement.
    ///
    /// # Errors
    /// As [`Outbox::enqueue`].
    pub async fn enqueue_all<T: Enqueue + ?Sized>(
        &self,
        to: &mut T,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<MessageId>, OutboxError> {
        let rows = messages.into_iter().map(new_row).collect::<Result<Vec<_>, _>>()?;
        to.insert(&rows, self.duplicate).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

/// Checks what can be checked before anything is written: what is refused here would be parked later.
pub(crate) fn new_row(message: Message) -> Result<NewRow, OutboxError> {
    let bytes = message.bytes();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(OutboxError::Caller(format!(
            "the message has {bytes} bytes, and an outbox takes {MESSAGE_BYTES_MAX}: send a reference to it"
        )));
    }
    if message.topic.is_empty() || message.topic.len() > TOPIC_BYTES_MAX {
        let length = message.topic.len();
        return Err(OutboxError::Caller(format!("the name of a topic has 1 to {TOPIC_BYTES_MAX} bytes, not {length}")));
    }
    if message.headers.last(STAMP_HEADER).is_some() {
        return Err(OutboxError::Caller(format!("the header {STAMP_HEADER:?} is the relay's to write")));
    }
    let partition = message.partition.map(i32::try_from).transpose();
    let partition = partition.map_err(|_| OutboxError::Caller("there is no partition of this number".to_owned()))?;
    let id = match message.id {
        Some(id) => id,
        None => MessageId::new(Uuid::now_v7().to_string()).map_err(|error| OutboxError::Caller(error.to_string()))?,
    };
    Ok(NewRow {
        id,
        topic: message.topic.to_string(),
        headers: encode_headers(&message.headers),
        key: message.key,
        payload: message.payload,
        partition,
        timestamp_ms: message.timestamp_ms,
    })
}
