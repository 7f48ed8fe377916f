//! Fetch: reads what is durable; waits, if too little is there, until more is or the time is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_log::{Bounds, PartitionId, ReadBatches, ReadError, ReadMode, Topic};
use baton_wire::ErrorCode;
use baton_wire::messages::fetch_request::{FetchPartition, FetchRequest};
use baton_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::connection::PRESSED_PEER_MAX;
use crate::metrics::Limit;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// Clients from this version on name topics by their ids.
const TOPIC_IDS_FROM_VERSION: i16 = 13;
/// The longest wait, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Room that every fetch takes at least.
const HELD_BYTES_MIN: usize = 64 << 10;
/// Bytes read before others get their turn on the thread.
const BYTES_WITHOUT_PAUSE: usize = 1 << 20;

/// One partition to read, owned: a fetch outlives the buffer of its request.
struct Wanted {
    index: i32,
    offset: i64,
    bytes_max: usize,
    /// `Err`: what it is answered with whatever is in the log.
    partition: Result<PartitionId, ErrorCode>,
}

/// Partitions of one topic to read.
struct WantedTopic {
    name: String,
    id: [u8; 16],
    partitions: Vec<Wanted>,
}

/// A whole fetch.
struct Wants {
    topics: Vec<WantedTopic>,
    bytes_max: usize,
    bytes_min: usize,
    wait: Duration,
}

/// Answers a fetch.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = FetchRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    // Sessions are not kept. A client that asks for one is told 0, "none", and goes on sending whole requests.
    if request.session_id != 0 {
        let code = ErrorCode::FetchSessionIdNotFound.code();
        return context.encode(&FetchResponse { error_code: code, ..FetchResponse::default() });
    }
    let wants = wants(&state, &request, context.api_version);
    drop(body);
    let deadline = Instant::now() + wants.wait;
    // A closing Java consumer asks for nothing, to end the session that it does not have, and waits for the answer.
    let asks = wants.topics.iter().any(|topic| !topic.partitions.is_empty());
    if asks && !wants.wait.is_zero() && readable_bytes(&state, &wants) < wants.bytes_min {
        wait_for_records(&state, &wants, deadline).await;
    }
    let held = hold(&state, &wants).await;
    let response = read_all(&state, &wants, held.bytes()).await;
    held.until_sent(context.encode(&response))
}

/// Waits until there is enough to answer with, or the time is over. Errors are told at once, as Kafka does.
async fn wait_for_records(state: &BrokerState, wants: &Wants, deadline: Instant) {
    let partitions = wants.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|wanted| wanted.partition.ok());
    let registration = state.fetch_waiters.register(partitions.collect());
    // What was published between the first look and the registration must not be waited for: look again.
    while readable_bytes(state, wants) < wants.bytes_min {
        tokio::select! {
            () = registration.published() => {}
            () = tokio::time::sleep_until(deadline) => break,
            () = state.shutting_down() => break,
        }
    }
}

fn wants(state: &BrokerState, request: &FetchRequest<'_>, version: i16) -> Wants {
    let catalog = state.log.catalog();
    let by_id = version >= TOPIC_IDS_FROM_VERSION;
    let topics = request.topics.iter().map(|asked| {
        let topic = if by_id { catalog.topic_by_id(&asked.topic_id) } else { catalog.topic(asked.topic) };
        let unknown = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        WantedTopic {
            name: asked.topic.to_owned(),
            id: asked.topic_id,
            partitions: asked.partitions.iter().map(|partition| wanted(topic, unknown, &partition)).collect(),
        }
    });
    let limit = state.fetch_bytes_max();
    Wants {
        topics: topics.collect(),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(limit),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(limit),
        wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX),
    }
}

fn wanted(topic: Option<&Arc<Topic>>, unknown: ErrorCode, asked: &FetchPartition) -> Wanted {
    let partition = match topic {
        None => Err(unknown),
        Some(topic) => usize::try_from(asked.partition)
            .ok()
            .and_then(|index| topic.partitions.get(index).copied())
            .ok_or(ErrorCode::UnknownTopicOrPartition),
    };
    // The only leader there ever was has epoch 0.
    let partition = match asked.current_leader_epoch {
        1.. => partition.and(Err(ErrorCode::UnknownLeaderEpoch)),
        _ => partition,
    };
    Wanted {
        index: asked.partition,
        offset: asked.fetch_offset,
        bytes_max: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
        partition,
    }
}

/// Room for fetched records, held from before they are read until the last of them is sent.
struct Held(OwnedSemaphorePermit);

impl Held {
    fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Gives back what the response does not need, and the rest when the last of its chunks is gone.
    fn until_sent(mut self, mut chunks: Vec<Bytes>) -> Vec<Bytes> {
        let needed = chunks.iter().map(Bytes::len).sum::<usize>();
        drop(self.0.split(self.bytes().saturating_sub(needed)));
        if let Some(last) = chunks.pop() {
            chunks.push(Bytes::from_owner(HeldChunk { bytes: last, _room: self.0 }));
        }
        chunks
    }
}

/// The last chunk of a response, and the room that the whole response takes.
struct HeldChunk {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Takes room for what can be read: as much of it as is free, and at least a little, for which it waits.
async fn hold(state: &BrokerState, wants: &Wants) -> Held {
    let readable = readable_bytes(state, wants).clamp(HELD_BYTES_MIN, wants.bytes_max.max(HELD_BYTES_MIN));
    let room = state.fetched_bytes.clone();
    let now = readable.min(room.available_permits()).max(HELD_BYTES_MIN);
    // 32 bits are enough: what a response holds is limited far below.
    match room.clone().try_acquire_many_owned(u32::try_from(now).unwrap_or(u32::MAX)) {
        Ok(permit) => Held(permit),
        Err(_) => {
            state.metrics.limit_hit(Limit::FetchedBytes);
            loop {
                // What is held by peers that do not read is taken from them.
                state.unread.relieve();
                let room = room.clone().acquire_many_owned(HELD_BYTES_MIN as u32);
                // The semaphore is never closed.
                if let Ok(Ok(permit)) = tokio::time::timeout(PRESSED_PEER_MAX, room).await {
                    return Held(permit);
                }
            }
        }
    }
}

/// Reads all partitions, up to `room` bytes of records; the first batch is sent whatever its size, so that a client can always
/// get on.
async fn read_all(state: &Arc<BrokerState>, wants: &Wants, room: usize) -> FetchResponse {
    let mut response = FetchResponse::default();
    let (mut bytes, mut bytes_without_pause) = (0, 0);
    let bytes_max = wants.bytes_max.min(room);
    for topic in &wants.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let left = bytes_max.saturating_sub(bytes);
            let data = match wanted.partition {
                Err(code) => failed(wanted.index, code, None),
                Ok(partition) => {
                    let read = read_one(state, partition, wanted.offset, left.min(wanted.bytes_max), bytes == 0).await;
                    answer(state, topic, wanted.index, partition, read)
                }
            };
            let read = data.records.iter().flatten().map(Bytes::len).sum::<usize>();
            (bytes, bytes_without_pause) = (bytes + read, bytes_without_pause + read);
            partitions.push(data);
            if bytes_without_pause >= BYTES_WITHOUT_PAUSE {
                // Who reads a lot lets those go first who read or write a little.
                bytes_without_pause = 0;
                tokio::task::yield_now().await;
            }
        }
        let (topic, topic_id) = (topic.name.clone(), topic.id);
        response.responses.push(FetchableTopicResponse { topic, topic_id, partitions });
    }
    response
}

/// Reads on the spot what lies in memory; anything else on a thread that may wait for the disk.
async fn read_one(
    state: &Arc<BrokerState>,
    partition: PartitionId,
    offset: i64,
    bytes_max: usize,
    at_least_one: bool,
) -> Result<ReadBatches, ReadError> {
    match state.log.read(partition, offset, bytes_max, at_least_one, ReadMode::Cached) {
        Err(ReadError::NotCached) => {}
        other => return other,
    }
    if state.disk_reads.available_permits() == 0 {
        state.metrics.limit_hit(Limit::DiskReads);
    }
    let Ok(_permit) = state.disk_reads.clone().acquire_owned().await else { return Err(ReadError::NotCached) };
    let log = state.log.clone();
    let read = move || log.read(partition, offset, bytes_max, at_least_one, ReadMode::Blocking);
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(ReadError::Io(error.to_string())))
}

fn answer(
    state: &BrokerState,
    topic: &WantedTopic,
    index: i32,
    partition: PartitionId,
    read: Result<ReadBatches, ReadError>,
) -> PartitionData {
    match read {
        Ok(read) => PartitionData {
            partition_index: index,
            high_watermark: read.bounds.high_watermark,
            // Without transactions everything durable is stable.
            last_stable_offset: read.bounds.high_watermark,
            log_start_offset: read.bounds.log_start,
            aborted_transactions: None,
            records: Some(read.batches),
            ..PartitionData::default()
        },
        Err(error) => {
            let code = match &error {
                ReadError::OutOfRange(_) => ErrorCode::OffsetOutOfRange,
                ReadError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
                ReadError::Damaged { .. } => ErrorCode::CorruptMessage,
                ReadError::NotCached | ReadError::Io(_) => ErrorCode::KafkaStorageError,
            };
            if matches!(error, ReadError::Damaged { .. }) {
                state.metrics.damaged_reads.fetch_add(1, Ordering::Relaxed);
            }
            if !matches!(error, ReadError::OutOfRange(_) | ReadError::UnknownPartition) {
                tracing::error!(topic = topic.name, partition = index, %error, "a fetch could not be answered");
            }
            failed(index, code, state.log.bounds(partition))
        }
    }
}

fn failed(index: i32, code: ErrorCode, bounds: Option<Bounds>) -> PartitionData {
    PartitionData {
        partition_index: index,
        error_code: code.code(),
        high_watermark: bounds.map_or(-1, |bounds| bounds.high_watermark),
        last_stable_offset: bounds.map_or(-1, |bounds| bounds.high_watermark),
        log_start_offset: bounds.map_or(-1, |bounds| bounds.log_start),
        aborted_transactions: None,
        records: Some(Vec::new()),
        ..PartitionData::default()
    }
}

/// Bytes that a pass would find, or a number large enough when it would find an error.
fn readable_bytes(state: &BrokerState, wants: &Wants) -> usize {
    let mut bytes = 0_usize;
    for wanted in wants.topics.iter().flat_map(|topic| &topic.partitions) {
        // What is wrong is told at once.
        let Ok(partition) = wanted.partition else { return usize::MAX };
        match state.log.bounds(partition) {
            Some(bounds) if (bounds.log_start..=bounds.high_watermark).contains(&wanted.offset) => {
                bytes += state.log.bytes_from(partition, wanted.offset, wanted.bytes_max.max(1));
            }
            // Deleted, or the log start has passed it.
            _ => return usize::MAX,
        }
    }
    bytes
}
