//! From the bytes of a request to its handler.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use baton_wire::{ApiKey, DecodeError, RequestHeader};
use bytes::Bytes;

use crate::connection::{CloseReason, Handled, Peer, Service};
use crate::handlers::{
    alter_configs, api_versions, create_partitions, create_topics, delete_groups, delete_records, delete_topics,
    describe_cluster, describe_configs, describe_groups, describe_log_dirs, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets, metadata,
    offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, produce, sync_group,
};
use crate::metrics::Metrics;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// What is served, in which versions. Ends where a version brings what is not served: transactions (Produce 12,
/// InitProducerId 6), topic ids in Produce (13), the new group protocol (OffsetCommit 9 and OffsetFetch 9 are also the
/// classic one's).
pub(crate) const SERVED: &[(ApiKey, RangeInclusive<i16>)] = &[
    (ApiKey::Produce, 3..=11),
    (ApiKey::Fetch, 4..=16),
    (ApiKey::ListOffsets, 1..=9),
    (ApiKey::Metadata, 0..=12),
    (ApiKey::OffsetCommit, 2..=9),
    (ApiKey::OffsetFetch, 1..=9),
    (ApiKey::FindCoordinator, 0..=5),
    (ApiKey::JoinGroup, 0..=9),
    (ApiKey::Heartbeat, 0..=4),
    (ApiKey::LeaveGroup, 0..=5),
    (ApiKey::SyncGroup, 0..=5),
    (ApiKey::DescribeGroups, 0..=6),
    (ApiKey::ListGroups, 0..=5),
    (ApiKey::ApiVersions, 0..=4),
    (ApiKey::CreateTopics, 2..=7),
    (ApiKey::DeleteTopics, 1..=6),
    (ApiKey::DeleteRecords, 0..=2),
    (ApiKey::InitProducerId, 0..=5),
    (ApiKey::OffsetForLeaderEpoch, 2..=4),
    (ApiKey::DescribeConfigs, 1..=4),
    (ApiKey::AlterConfigs, 0..=2),
    (ApiKey::IncrementalAlterConfigs, 0..=1),
    (ApiKey::DescribeLogDirs, 1..=4),
    (ApiKey::CreatePartitions, 0..=3),
    (ApiKey::DeleteGroups, 0..=2),
    (ApiKey::OffsetDelete, 0..=0),
    (ApiKey::DescribeCluster, 0..=2),
];

/// Whether a request is served in a version.
pub(crate) fn is_served(api_key: ApiKey, version: i16) -> bool {
    SERVED.iter().any(|(served, versions)| *served == api_key && versions.contains(&version))
}

/// Hands requests to their handlers.
pub(crate) struct Router {
    pub state: Arc<BrokerState>,
}

impl Service for Router {
    fn handle(&self, request: Bytes, peer: Peer) -> Handled {
        match self.route(&request, peer) {
            Ok(handled) => handled,
            Err(error) => {
                tracing::warn!(peer = %peer.address, %error, "malformed request, connection closed");
                Handled::Close(CloseReason::Malformed)
            }
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }
}

impl Router {
    /// Reads a request's header and sends it on.
    fn route(&self, request: &Bytes, peer: Peer) -> Result<Handled, DecodeError> {
        let (header, body) = RequestHeader::decode(request)?;
        let context = RequestContext {
            api_key: header.api_key,
            api_version: header.api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.unwrap_or_default().into(),
            client_address: peer.address.ip(),
            received: Instant::now(),
            metrics: self.state.metrics.clone(),
        };
        let body = request.slice_ref(body);
        if header.api_key == ApiKey::ApiVersions {
            return Ok(Handled::Ready(api_versions::handle(&context)));
        }
        if !is_served(header.api_key, header.api_version) {
            tracing::warn!(
                peer = %peer.address,
                api = header.api_key.name(),
                version = header.api_version,
                "a request that is not served, connection closed"
            );
            self.state.metrics.unsupported.fetch_add(1, Ordering::Relaxed);
            return Ok(Handled::Close(CloseReason::UnsupportedRequest));
        }
        Ok(self.dispatch(context, body)?.unwrap_or(Handled::Close(CloseReason::UnsupportedRequest)))
    }

    /// Hands a request to its handler; `None` for what has none.
    fn dispatch(&self, context: RequestContext, body: Bytes) -> Result<Option<Handled>, DecodeError> {
        let state = self.state.clone();
        let asked = Asked { api_key: context.api_key, version: context.api_version, peer: context.client_address };
        Ok(Some(match context.api_key {
            ApiKey::Produce => produce::handle(&state, context, &body)?,
            ApiKey::Fetch => waiting(asked, fetch::handle(state, context, body)),
            ApiKey::ListOffsets => waiting(asked, list_offsets::handle(state, context, body)),
            ApiKey::Metadata => waiting(asked, metadata::handle(state, context, body)),
            ApiKey::InitProducerId => waiting(asked, init_producer_id::handle(state, context, body)),
            ApiKey::OffsetForLeaderEpoch => Handled::Ready(offset_for_leader_epoch::handle(&state, &context, &body)?),
            ApiKey::FindCoordinator => Handled::Ready(find_coordinator::handle(&state, &context, &body)?),
            ApiKey::JoinGroup => waiting(asked, join_group::handle(state, context, body)),
            ApiKey::SyncGroup => waiting(asked, sync_group::handle(state, context, body)),
            ApiKey::Heartbeat => Handled::Ready(heartbeat::handle(&state, &context, &body)?),
            ApiKey::LeaveGroup => Handled::Ready(leave_group::handle(&state, &context, &body)?),
            ApiKey::OffsetCommit => waiting(asked, offset_commit::handle(state, context, body)),
            ApiKey::OffsetFetch => Handled::Ready(offset_fetch::handle(&state, &context, &body)?),
            ApiKey::OffsetDelete => waiting(asked, offset_delete::handle(state, context, body)),
            ApiKey::ListGroups => Handled::Ready(list_groups::handle(&state, &context, &body)?),
            ApiKey::DescribeGroups => Handled::Ready(describe_groups::handle(&state, &context, &body)?),
            ApiKey::DeleteGroups => waiting(asked, delete_groups::handle(state, context, body)),
            ApiKey::CreateTopics => waiting(asked, create_topics::handle(state, context, body)),
            ApiKey::DeleteTopics => waiting(asked, delete_topics::handle(state, context, body)),
            ApiKey::CreatePartitions => waiting(asked, create_partitions::handle(state, context, body)),
            ApiKey::DeleteRecords => waiting(asked, delete_records::handle(state, context, body)),
            ApiKey::DescribeCluster => Handled::Ready(describe_cluster::handle(&state, &context, &body)?),
            ApiKey::DescribeConfigs => Handled::Ready(describe_configs::handle(&state, &context, &body)?),
            ApiKey::AlterConfigs => waiting(asked, alter_configs::handle(state, context, body)),
            ApiKey::IncrementalAlterConfigs => waiting(asked, incremental_alter_configs::handle(state, context, body)),
            ApiKey::DescribeLogDirs => Handled::Ready(describe_log_dirs::handle(&state, &context, &body)?),
            _ => return Ok(None),
        }))
    }
}

/// A handler that takes a while. It answers nothing when the request's bytes are wrong.
fn waiting(asked: Asked, answer: impl Future<Output = Vec<Bytes>> + Send + 'static) -> Handled {
    Handled::Waiting(Box::pin(async move {
        let chunks = answer.await;
        if chunks.is_empty() {
            let Asked { api_key, version, peer } = asked;
            tracing::warn!(%peer, api = api_key.name(), version, "malformed request, connection closed");
            return Handled::Close(CloseReason::Malformed);
        }
        Handled::Ready(chunks)
    }))
}

/// What a request was, for the log line that it may need.
#[derive(Clone, Copy)]
struct Asked {
    api_key: ApiKey,
    version: i16,
    peer: IpAddr,
}
