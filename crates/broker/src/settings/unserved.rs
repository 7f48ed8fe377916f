//! Settings that Apache Kafka has and this version does not: refused by name, and with the reason.

const LATER: &str = "retention and compaction come in a later version; records are kept until somebody deletes them";
const ONE_LOG: &str = "all partitions share one log, whose segments are set by commit.segment.bytes";
const ALWAYS_SYNCED: &str = "everything is on the disk before it is acknowledged";
const ONE_NODE: &str = "there is one node, 0";
const NO_THREADS: &str = "requests need no threads of their own here";
const AS_SENT: &str = "batches are kept as their producers compressed them";
const PLAIN: &str = "encryption and authentication come in a later version";
const TRANSACTIONS: &str = "transactions come in a later version";
const QUOTAS: &str = "clients are slowed down by the limits on bytes and requests";

/// Names, or the beginnings of names (with a dot at the end), and why they are refused.
pub(super) const UNSERVED: &[(&str, &str)] = &[
    ("listeners", "use baton serve --listen"),
    ("advertised.listeners", "use baton serve --advertised-listener"),
    ("log.dirs", "use baton serve --data"),
    ("log.dir", "use baton serve --data"),
    ("broker.id", ONE_NODE),
    ("node.id", ONE_NODE),
    ("process.roles", ONE_NODE),
    ("broker.rack", ONE_NODE),
    ("controller.", ONE_NODE),
    ("unclean.leader.election.enable", ONE_NODE),
    ("leader.replication.throttled.replicas", ONE_NODE),
    ("follower.replication.throttled.replicas", ONE_NODE),
    ("replica.", ONE_NODE),
    ("offsets.topic.", "offsets of groups are kept in tables of the one log, not in a topic"),
    ("transaction.state.log.", TRANSACTIONS),
    ("transaction.max.timeout.ms", TRANSACTIONS),
    ("transactional.id.expiration.ms", TRANSACTIONS),
    ("num.network.threads", NO_THREADS),
    ("num.io.threads", NO_THREADS),
    ("num.recovery.threads.per.data.dir", NO_THREADS),
    ("background.threads", NO_THREADS),
    ("queued.max.requests", "queued.max.request.bytes limits requests by their size"),
    ("max.connections.per.ip", "max.connections limits all connections together"),
    ("log.retention.hours", LATER),
    ("log.retention.minutes", LATER),
    ("log.retention.check.interval.ms", LATER),
    ("log.cleaner.", LATER),
    ("delete.retention.ms", LATER),
    ("file.delete.delay.ms", LATER),
    ("min.compaction.lag.ms", LATER),
    ("max.compaction.lag.ms", LATER),
    ("min.cleanable.dirty.ratio", LATER),
    ("local.retention.", LATER),
    ("remote.", LATER),
    ("log.segment.", ONE_LOG),
    ("segment.", ONE_LOG),
    ("index.interval.bytes", ONE_LOG),
    ("log.index.", ONE_LOG),
    ("preallocate", ONE_LOG),
    ("log.preallocate", ONE_LOG),
    ("log.roll.", ONE_LOG),
    ("flush.messages", ALWAYS_SYNCED),
    ("flush.ms", ALWAYS_SYNCED),
    ("log.flush.", ALWAYS_SYNCED),
    ("compression.gzip.level", AS_SENT),
    ("compression.lz4.level", AS_SENT),
    ("compression.zstd.level", AS_SENT),
    ("message.format.version", "there is one format of records, Kafka's newest"),
    ("message.downconversion.enable", "records are never converted to older formats"),
    ("message.timestamp.difference.max.ms", "use message.timestamp.before.max.ms and message.timestamp.after.max.ms"),
    ("ssl.", PLAIN),
    ("sasl.", PLAIN),
    ("security.", PLAIN),
    ("authorizer.", PLAIN),
    ("socket.send.buffer.bytes", "the operating system chooses it"),
    ("socket.receive.buffer.bytes", "the operating system chooses it"),
    ("quota.", QUOTAS),
];

/// Why Kafka's setting of this name is refused, if it is one that is known to be.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let fits = |unserved: &str| unserved == name || (unserved.ends_with('.') && name.starts_with(unserved));
    UNSERVED.iter().find(|(unserved, _)| fits(unserved)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{BROKER_SETTINGS, TOPIC_SETTINGS};

    #[test]
    fn no_setting_is_both_served_and_refused() {
        for definition in BROKER_SETTINGS.iter().chain(TOPIC_SETTINGS) {
            assert_eq!(reason(definition.name), None, "{}", definition.name);
        }
        assert_eq!(reason("segment.ms"), Some(ONE_LOG));
        assert_eq!(reason("segments"), None);
    }
}
