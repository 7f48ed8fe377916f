//! Producer ids, given out once each, for ever.

use baton_log::{AppendError, Log, Poisoned};
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::state::tables::PRODUCER_IDS;

/// Ids reserved with one durable write.
const BLOCK: i64 = 1000;
/// The one key of the table.
const NEXT: &[u8] = b"next";

/// Why no id could be given out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProducerIdError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Gives out producer ids from blocks that are durably reserved before their first id leaves.
#[derive(Default)]
pub(crate) struct ProducerIds {
    /// Next id and end of the reserved block.
    block: Mutex<(i64, i64)>,
}

impl ProducerIds {
    /// An id that nobody had before.
    pub async fn next(&self, log: &Log) -> Result<i64, ProducerIdError> {
        let mut block = self.block.lock().await;
        if block.0 == block.1 {
            let stored = log.table_get(PRODUCER_IDS, NEXT);
            let first =
                stored.and_then(|bytes| bytes.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes))).unwrap_or(0);
            let end = Bytes::copy_from_slice(&(first + BLOCK).to_be_bytes());
            let ticket = log.write_table(PRODUCER_IDS, vec![(Bytes::from_static(NEXT), Some(end))])?;
            log.durable(ticket).await?;
            *block = (first, first + BLOCK);
        }
        let id = block.0;
        block.0 += 1;
        Ok(id)
    }
}
