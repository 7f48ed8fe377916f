//! One file for each kind of request.

pub(crate) mod alter_configs;
pub(crate) mod api_versions;
pub(crate) mod config_changes;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;

use std::time::Duration;

use baton_wire::ErrorCode;

use crate::topics::TopicError;

/// A client that allows less than this for a change allows this: it takes one sync, and some send 0 for "do not wait for the
/// others", of whom there are none.
const CHANGE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// What a change of the catalog comes to, or Kafka's "timed out" when it takes longer than the client allows; it goes on all
/// the same.
pub(crate) async fn within<T>(
    timeout_ms: i32,
    change: impl Future<Output = Result<T, TopicError>>,
) -> Result<T, TopicError> {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).max(CHANGE_TIMEOUT_MIN);
    tokio::time::timeout(timeout, change)
        .await
        .unwrap_or_else(|_| Err(TopicError::new(ErrorCode::RequestTimedOut, "The request timed out.")))
}

/// The code and the words of an outcome, as responses have them.
pub(crate) fn error_of(outcome: Result<(), TopicError>) -> (i16, Option<String>) {
    match outcome {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => (error.code.code(), Some(error.message)),
    }
}
