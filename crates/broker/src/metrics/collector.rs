//! Names and labels for the numbers, in the text format of OpenMetrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_wire::{ApiKey, ErrorCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{LATENCY_BUCKETS, Limit};
use crate::connection::{CloseReason, InputBudget};
use crate::groups::core::GroupState;
use crate::state::BrokerState;

const NANOS_PER_SECOND: f64 = 1e9;

/// Reads all of a broker's numbers when asked.
pub(crate) struct BrokerCollector {
    pub state: Arc<BrokerState>,
    pub budget: Arc<InputBudget>,
}

impl fmt::Debug for BrokerCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BrokerCollector")
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn counter<V: prometheus_client::encoding::EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: V,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn labelled<const N: usize>(metric: &mut MetricEncoder<'_>, labels: [(&str, &str); N], value: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

impl BrokerCollector {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.state.metrics;
        let used: Vec<_> = ApiKey::ALL
            .iter()
            .map(|key| (*key, metrics.api(*key)))
            .filter(|(_, api)| read(&api.answered) > 0)
            .collect();
        let mut metric = encoder.encode_descriptor(
            "baton_request_seconds",
            "From a request's arrival to its answer.",
            None,
            MetricType::Histogram,
        )?;
        for (key, api) in &used {
            let ends = LATENCY_BUCKETS.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = ends.zip(api.latency.iter().map(read)).collect();
            let labels = [("api", key.name())];
            let (sum, count) = (read(&api.nanos) as f64 / NANOS_PER_SECOND, read(&api.answered));
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let mut metric =
            encoder.encode_descriptor("baton_request_errors", "Error codes in answers.", None, MetricType::Counter)?;
        for (key, api) in &used {
            for (code, count) in ErrorCode::ALL.iter().zip(&api.errors).filter(|(_, count)| read(count) > 0) {
                labelled(&mut metric, [("api", key.name()), ("error", code.name())], read(count))?;
            }
        }
        counter(
            encoder,
            "baton_requests_unsupported",
            "Requests for what is not served; their connections were closed.",
            read(&metrics.unsupported),
        )
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.state.metrics;
        gauge(encoder, "baton_connections", "Open connections.", metrics.connections.load(Ordering::Relaxed) as u64)?;
        counter(encoder, "baton_connections_accepted", "Connections accepted.", read(&metrics.accepted))?;
        let mut metric = encoder.encode_descriptor(
            "baton_connections_closed",
            "Connections closed, by reason.",
            None,
            MetricType::Counter,
        )?;
        for reason in CloseReason::ALL {
            labelled(&mut metric, [("reason", reason.name())], metrics.closed_for(reason))?;
        }
        let mut metric = encoder.encode_descriptor(
            "baton_limit_hits",
            "How often a limit was met, by its setting.",
            None,
            MetricType::Counter,
        )?;
        for (limit, setting) in &Limit::ALL {
            labelled(&mut metric, [("setting", setting)], metrics.limit_hits(*limit))?;
        }
        counter(encoder, "baton_received_bytes", "Bytes received from clients.", read(&metrics.received_bytes))?;
        counter(encoder, "baton_sent_bytes", "Bytes sent to clients.", read(&metrics.sent_bytes))?;
        gauge(
            encoder,
            "baton_queued_request_bytes",
            "Bytes of requests that are not answered yet.",
            self.budget.bytes() as u64,
        )?;
        gauge(
            encoder,
            "baton_unread_response_bytes",
            "Bytes of responses that clients have not read.",
            self.state.unread.bytes() as u64,
        )?;
        gauge(
            encoder,
            "baton_fetches_waiting",
            "Fetches that wait for records.",
            self.state.fetch_waiters.waiting() as u64,
        )
    }

    fn limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let values = self.state.settings.values();
        let limits = [
            ("max.connections", values.connections_max as u64),
            ("connections.max.idle.ms", values.idle_max_ms),
            ("connections.max.slow.ms", values.slow_max_ms),
            ("connection.max.requests", values.connection_requests_max as u64),
            ("connection.max.unread.bytes", values.connection_unread_bytes_max as u64),
            ("socket.request.max.bytes", values.request_bytes_max as u64),
            ("queued.max.request.bytes", values.queued_request_bytes_max as u64),
            ("queued.max.response.bytes", values.queued_response_bytes_max as u64),
            ("message.max.bytes", values.message_bytes_max as u64),
            ("fetch.max.bytes", values.fetch_bytes_max as u64),
            ("fetch.max.queued.bytes", values.fetched_bytes_max as u64),
            ("disk.reads.max", values.disk_reads_max as u64),
            ("commit.max.pending.bytes", values.pending_bytes_max as u64),
            ("disk.min.free.bytes", values.disk_free_bytes_min),
            ("topics.max", values.topics_max as u64),
            ("partitions.max", values.partitions_max as u64),
            ("producers.max", values.producers_max as u64),
            ("groups.max", values.groups_max as u64),
            ("groups.bytes.max", values.groups_bytes_max as u64),
            ("group.max.size", values.group_members_max as u64),
            ("group.max.bytes", values.group_bytes_max as u64),
            ("offsets.max", values.offsets_max as u64),
            ("offsets.bytes.max", values.offsets_bytes_max as u64),
        ];
        let help = "What a limit is set to, by its setting.";
        let mut metric = encoder.encode_descriptor("baton_limit", help, None, MetricType::Gauge)?;
        limits
            .into_iter()
            .try_for_each(|(setting, value)| metric.encode_family(&[("setting", setting)])?.encode_gauge(&value))
    }

    fn log(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.state.log.stats();
        let counters = [
            ("baton_log_commits", "Commit groups made durable.", stats.commits),
            ("baton_log_syncs", "Syncs of the log: one for each commit group.", stats.syncs),
            ("baton_log_written_bytes", "Bytes written to the log.", stats.bytes_written),
            ("baton_log_batch_bytes", "Bytes of batches appended.", stats.batch_bytes),
            ("baton_log_batches", "Batches appended.", stats.batches),
            ("baton_log_duplicates", "Batches that were stored before, and not stored again.", stats.duplicates),
            ("baton_log_refused_full", "Appends refused because the disk is full.", stats.refused_full),
            ("baton_damaged_reads", "Fetches that met damaged records.", read(&self.state.metrics.damaged_reads)),
        ];
        for (name, help, value) in counters {
            counter(encoder, name, help, value)?;
        }
        counter(encoder, "baton_log_sync_seconds", "Time spent in syncs.", stats.sync_nanos as f64 / NANOS_PER_SECOND)?;
        let catalog = self.state.log.catalog();
        let gauges = [
            ("baton_log_pending_bytes", "Bytes that wait for the next commit.", stats.pending_bytes),
            ("baton_log_segments", "Segments on disk.", stats.segments),
            ("baton_log_segment_bytes", "Bytes of the segments.", stats.segment_bytes),
            (
                "baton_log_poisoned",
                "1 when a failed write has stopped the log; restart to go on.",
                u64::from(stats.poisoned.is_some()),
            ),
            ("baton_log_damaged_ranges", "Damaged ranges of offsets that are known.", stats.damaged_ranges),
            ("baton_disk_free_bytes", "Bytes free on the disk.", stats.free_bytes),
            ("baton_producers", "Idempotent producers remembered.", stats.producers),
            ("baton_topics", "Topics.", catalog.topic_count() as u64),
            ("baton_partitions", "Partitions of all topics.", catalog.partition_count() as u64),
        ];
        gauges.into_iter().try_for_each(|(name, help, value)| gauge(encoder, name, help, value))
    }

    fn groups(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let groups = self.state.groups.metrics();
        let mut metric =
            encoder.encode_descriptor("baton_groups", "Consumer groups, by state.", None, MetricType::Gauge)?;
        for (state, count) in GroupState::ALL.iter().zip(groups.core.groups) {
            metric.encode_family(&[("state", state.name())])?.encode_gauge(&(count as u64))?;
        }
        counter(encoder, "baton_group_rebalances", "Rebalances completed.", groups.core.rebalances)?;
        counter(
            encoder,
            "baton_group_members_expired",
            "Members removed because they fell silent.",
            groups.core.expired_members,
        )?;
        gauge(encoder, "baton_group_bytes", "Bytes of ids, protocols and assignments.", groups.core.bytes as u64)?;
        gauge(encoder, "baton_group_members", "Members of all groups.", groups.core.members as u64)?;
        gauge(encoder, "baton_group_offsets", "Committed offsets kept.", groups.offsets as u64)?;
        gauge(
            encoder,
            "baton_group_offset_bytes",
            "Bytes that committed offsets take up.",
            groups.offset_bytes as u64,
        )?;
        counter(encoder, "baton_group_offset_commits", "Offsets committed.", groups.offset_commits)?;
        counter(encoder, "baton_group_offset_deletions", "Offsets deleted on request.", groups.offset_deletions)?;
        counter(encoder, "baton_group_offset_expirations", "Offsets that expired.", groups.offset_expirations)
    }
}

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.limits(&mut encoder)?;
        self.log(&mut encoder)?;
        self.groups(&mut encoder)
    }
}
