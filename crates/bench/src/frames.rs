//! Requests of the Kafka protocol, encoded once and sent many times.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, ProduceRequest, ProduceResponse, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};

use crate::Fallible;

/// The version of Produce that the raw client speaks: the last one before topics were named by id.
pub const PRODUCE_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 4;
/// Where the correlation id lies in an encoded request: after length, api key and version.
pub const CORRELATION_POSITION: usize = 8;
/// Bytes before a flexible response's body, without the length: correlation id and an empty tag section.
const RESPONSE_HEADER_BYTES: usize = 5;
/// How long the server may take over one request before it gives up, in milliseconds.
const REQUEST_TIMEOUT_MS: i32 = 30_000;

/// A value of `bytes` bytes that no file system or codec can shrink.
pub fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = BytesMut::with_capacity(bytes);
    while value.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.put_u8((state >> 32) as u8);
    }
    value.freeze()
}

/// An uncompressed record batch of `records` records without keys, each with `value`.
pub fn batch(records: usize, value: &Bytes) -> Fallible<Bytes> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let record = |offset: usize| -> Fallible<Record> {
        Ok(Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: i64::try_from(offset)?,
            // The encoder starts a new batch wherever sequences do not follow each other.
            sequence: NO_SEQUENCE + i32::try_from(offset)?,
            timestamp: i64::try_from(now.as_millis())?,
            key: None,
            value: Some(value.clone()),
            headers: IndexMap::new(),
        })
    };
    let records = (0..records).map(record).collect::<Fallible<Vec<_>>>()?;
    let mut encoded = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut encoded, &records, &options)?;
    Ok(encoded.freeze())
}

/// A whole Produce request, length prefix included: `batch` to each of `partitions`, acknowledged when durable.
pub fn produce(topic: &str, partitions: &[i32], batch: &Bytes) -> Fallible<Vec<u8>> {
    let data = partitions
        .iter()
        .map(|partition| PartitionProduceData::default().with_index(*partition).with_records(Some(batch.clone())))
        .collect();
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(data);
    let body = ProduceRequest::default().with_acks(-1).with_timeout_ms(REQUEST_TIMEOUT_MS).with_topic_data(vec![topic]);
    frame(ApiKey::Produce, PRODUCE_VERSION, &body)
}

/// A whole CreateTopics request for one topic with one replica.
pub fn create_topic(topic: &str, partitions: i32) -> Fallible<Vec<u8>> {
    let topic = CreatableTopic::default()
        .with_name(topic_name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let body = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(REQUEST_TIMEOUT_MS);
    frame(ApiKey::CreateTopics, CREATE_TOPICS_VERSION, &body)
}

/// Where the error code of the only partition lies in the frame that answers a request to one partition of `topic`.
pub fn error_code_position(topic: &str) -> usize {
    // header, one topic, its name with a length of one byte, one partition, its index
    RESPONSE_HEADER_BYTES + 1 + 1 + topic.len() + 1 + 4
}

/// Refuses a Produce response (without length prefix) in which any partition has an error.
pub fn check_produced(response: &[u8]) -> Fallible<()> {
    let mut body = Bytes::copy_from_slice(response.get(RESPONSE_HEADER_BYTES..).ok_or("response is too short")?);
    let response = ProduceResponse::decode(&mut body, PRODUCE_VERSION)?;
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses).peekable();
    if partitions.peek().is_none() {
        return Err("produce response names no partition".into());
    }
    for partition in partitions {
        check_code(partition.error_code).map_err(|error| format!("partition {}: {error}", partition.index))?;
    }
    Ok(())
}

/// Refuses a CreateTopics response (without length prefix) with an error, an existing topic excepted.
pub fn check_created(response: &[u8]) -> Fallible<()> {
    let mut body = Bytes::copy_from_slice(response.get(4..).ok_or("response is too short")?);
    let response = CreateTopicsResponse::decode(&mut body, CREATE_TOPICS_VERSION)?;
    for topic in &response.topics {
        if topic.error_code != ResponseError::TopicAlreadyExists.code() {
            check_code(topic.error_code)?;
        }
    }
    Ok(())
}

fn check_code(code: i16) -> Fallible<()> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(format!("the server answered {error:?} ({code})").into()),
    }
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn frame(key: ApiKey, version: i16, body: &impl Encodable) -> Fallible<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("baton-bench")));
    let mut message = BytesMut::new();
    header.encode(&mut message, key.request_header_version(version))?;
    body.encode(&mut message, version)?;
    let mut frame = Vec::with_capacity(message.len() + 4);
    frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    frame.extend_from_slice(&message);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use kafka_protocol::records::RecordBatchDecoder;

    fn answer(topic: &str, code: i16) -> Vec<u8> {
        let partition = PartitionProduceResponse::default().with_index(3).with_error_code(code);
        let topic =
            TopicProduceResponse::default().with_name(topic_name(topic)).with_partition_responses(vec![partition]);
        let mut encoded = BytesMut::new();
        encoded.put_slice(&[0, 0, 0, 1, 0]);
        ProduceResponse::default().with_responses(vec![topic]).encode(&mut encoded, PRODUCE_VERSION).unwrap();
        encoded.to_vec()
    }

    #[test]
    fn the_error_code_is_found_without_decoding() {
        for topic in ["a", "wait64-kafka-sync-3"] {
            let position = error_code_position(topic);
            assert_eq!(answer(topic, 6)[position..position + 2], [0, 6]);
        }
    }

    #[test]
    fn an_error_of_any_partition_is_refused() {
        assert!(check_produced(&answer("topic", 0)).is_ok());
        let refused = check_produced(&answer("topic", 6)).unwrap_err().to_string();
        assert!(refused.contains("NotLeaderOrFollower"), "{refused}");
    }

    #[test]
    fn many_records_make_one_batch() {
        let mut encoded = batch(250, &noise(1024)).unwrap();
        let sets = RecordBatchDecoder::decode_all(&mut encoded).unwrap();
        assert_eq!(sets.iter().map(|set| set.records.len()).collect::<Vec<_>>(), [250]);
    }
}
