//! What librdkafka's error codes mean for a record, and for who calls.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::{EngineError, Fate, Retry, SendError};

/// What is known of a record that was given up with this code.
///
/// `NotStored` only where it follows from the record, the topic or the settings, so that every attempt was refused alike. Everything
/// else may follow an attempt whose answer was lost: also a record that timed out, or was purged, in the queue, where librdkafka
/// puts those back that it wants to try again, and also a refusal that can change from one attempt to the next, like a permission.
pub(super) fn send_error(code: Code) -> SendError {
    let (fate, retry, advice) = match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => (
            Fate::NotStored,
            Retry::Smaller,
            "make the message smaller, or raise message.max.bytes of the client and max.message.bytes of the topic",
        ),
        // If it was there when an earlier attempt was stored, that is gone with it.
        Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            (Fate::NotStored, Retry::Never, "create the topic, or use a partition that it has")
        }
        Code::InvalidTopic => (Fate::NotStored, Retry::Never, "use a topic name that Kafka allows"),
        Code::InvalidTimestamp => (Fate::NotStored, Retry::Never, "the topic refuses such timestamps"),
        Code::InvalidRecord | Code::UnsupportedForMessageFormat | Code::UnsupportedCompressionType => {
            (Fate::NotStored, Retry::Never, "the topic refuses such records; a compacted one wants a key")
        }
        Code::InvalidDifferentRecord => (Fate::NotStored, Retry::Later, "another record of its batch was refused"),
        Code::PolicyViolation | Code::InvalidRequiredAcks => {
            (Fate::Unknown, Retry::Never, "the topic does not allow this")
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::SaslAuthenticationFailed => {
            (Fate::Unknown, Retry::Never, "this client is not allowed to write here")
        }
        _ => (Fate::Unknown, Retry::Later, "it may be stored; send it again under the same stamp"),
    };
    SendError { fate, retry, cause: format!("Kafka: {code}; {advice}") }
}

/// Whether a commit of offsets may be tried again as long as the partition is ours.
pub(super) fn commit_may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::OffsetMetadataTooLarge
            | Code::InvalidCommitOffsetSize
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::UnknownTopicOrPartition
            | Code::InvalidGroupId
            | Code::FencedInstanceId
            | Code::Fatal
    )
}

/// Whose fault a failed request is.
pub(super) fn engine_error(doing: &str, error: &KafkaError) -> EngineError {
    let text = format!("{doing}: {error}");
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) => EngineError::Caller(text),
        error => match error.rdkafka_error_code() {
            Some(code) if of_the_caller(code) => EngineError::Caller(text),
            _ => EngineError::Unavailable(text),
        },
    }
}

/// Whether trying again is useless until somebody changes something.
pub(super) fn of_the_caller(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidRequest
            | Code::InvalidArgument
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::InconsistentGroupProtocol
            | Code::GroupMaxSizeReached
            | Code::PolicyViolation
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::Authentication
            | Code::FencedInstanceId
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainly_not_stored_is_said_only_where_every_attempt_was_refused_alike() {
        for code in [Code::MessageSizeTooLarge, Code::UnknownPartition, Code::UnknownTopic, Code::InvalidRecord] {
            assert_eq!(send_error(code).fate, Fate::NotStored, "{code}");
        }
        for code in [
            Code::MessageTimedOut,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::NotEnoughReplicasAfterAppend,
            Code::BrokerTransportFailure,
            Code::OutOfOrderSequenceNumber,
            Code::Fatal,
            Code::TopicAuthorizationFailed,
        ] {
            assert_eq!(send_error(code).fate, Fate::Unknown, "{code}");
        }
    }

    #[test]
    fn what_is_too_large_is_told_from_what_is_refused_for_something_else() {
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::InvalidMessageSize] {
            assert_eq!(send_error(code).retry, Retry::Smaller, "{code}");
        }
        assert_eq!(send_error(Code::UnknownTopicOrPartition).retry, Retry::Never);
    }

    #[test]
    fn commits_are_not_tried_again_when_they_never_pass() {
        assert!(!commit_may_pass(Code::OffsetMetadataTooLarge));
        for code in [Code::RebalanceInProgress, Code::IllegalGeneration, Code::NotCoordinator, Code::RequestTimedOut] {
            assert!(commit_may_pass(code), "{code}");
        }
    }
}
