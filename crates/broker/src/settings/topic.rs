//! The settings of topics.

use std::collections::BTreeMap;

use super::broker::{
    BrokerValues, CLEANUP, COMPRESSION, IN_SYNC_REPLICAS, MESSAGE_BYTES, RETENTION, TIMESTAMP_DISTANCE, TIMESTAMP_TYPES,
};
use super::value::FromChecked;
use super::{Definition, Kind, SettingError, Update, find};

const CLEANUP_POLICY: &str = "cleanup.policy";
const COMPRESSION_TYPE: &str = "compression.type";
const MESSAGE_BYTES_MAX: &str = "max.message.bytes";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const TIMESTAMP_BEFORE: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_AFTER: &str = "message.timestamp.after.max.ms";

/// All settings of topics, sorted by name.
pub const TOPIC_SETTINGS: &[Definition] = &[
    define(CLEANUP_POLICY, CLEANUP, "delete", "", "log.cleanup.policy", "What happens to old records."),
    define(COMPRESSION_TYPE, COMPRESSION, "producer", "", "compression.type", "How batches are compressed."),
    define(
        MESSAGE_BYTES_MAX,
        MESSAGE_BYTES,
        "1048588",
        "bytes",
        "message.max.bytes",
        "The largest batch of records, as it is sent: compressed, if it is.",
    ),
    define(
        TIMESTAMP_AFTER,
        TIMESTAMP_DISTANCE,
        "3600000",
        "ms",
        "log.message.timestamp.after.max.ms",
        "How much later than now a producer's timestamp may be.",
    ),
    define(
        TIMESTAMP_BEFORE,
        TIMESTAMP_DISTANCE,
        "9223372036854775807",
        "ms",
        "log.message.timestamp.before.max.ms",
        "How much older than now a producer's timestamp may be.",
    ),
    define(
        TIMESTAMP_TYPE,
        TIMESTAMP_TYPES,
        "CreateTime",
        "",
        "log.message.timestamp.type",
        "Whether records keep their producer's time, or get the time at which they were appended.",
    ),
    define(
        "min.insync.replicas",
        IN_SYNC_REPLICAS,
        "1",
        "copies",
        "min.insync.replicas",
        "Copies that must be on a disk before an acknowledgement.",
    ),
    define(
        "retention.bytes",
        RETENTION,
        "-1",
        "bytes",
        "log.retention.bytes",
        "How many bytes of records a partition keeps. -1 is all.",
    ),
    define("retention.ms", RETENTION, "-1", "ms", "log.retention.ms", "How long records are kept. -1 is for ever."),
];

const fn define(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
    synonym: &'static str,
    document: &'static str,
) -> Definition {
    Definition { name, kind, default, unit, update: Update::Running, synonym: Some(synonym), document }
}

/// The setting of topics of this name.
///
/// # Errors
/// When there is none.
pub(crate) fn find_topic_setting(name: &str) -> Result<&'static Definition, SettingError> {
    find(TOPIC_SETTINGS, name)
}

/// Checks one setting of a topic; returns its name and value as they are kept.
///
/// # Errors
/// When there is no such setting, or it does not take the value. The words are for the client, with `INVALID_CONFIG`.
fn check_topic_config(name: &str, value: Option<&str>) -> Result<(String, String), SettingError> {
    let definition = find_topic_setting(name)?;
    let value = value.ok_or(SettingError::Null { name: definition.name })?;
    Ok((definition.name.to_owned(), definition.check(value)?))
}

/// Checks the settings that a topic is created with. The last one counts where one is given twice, as in Kafka.
///
/// # Errors
/// As [`check_topic_config`], for the first that is wrong.
pub(crate) fn check_topic_configs<'a>(
    configs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<BTreeMap<String, String>, SettingError> {
    configs.into_iter().map(|(name, value)| check_topic_config(name, value)).collect()
}

/// What counts for one topic when records are appended to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicValues {
    /// The largest batch, in bytes.
    pub message_bytes_max: usize,
    /// How much older than now a timestamp may be, in milliseconds.
    pub timestamp_before_max_ms: i64,
    /// How much later than now a timestamp may be, in milliseconds.
    pub timestamp_after_max_ms: i64,
    /// Whether records get the time at which they are appended.
    pub log_append_time: bool,
}

impl TopicValues {
    /// The broker's values, and what is set for the topic instead.
    pub(super) fn new(broker: &BrokerValues, configs: &BTreeMap<String, String>) -> Self {
        let mut values = Self {
            message_bytes_max: broker.message_bytes_max,
            timestamp_before_max_ms: broker.timestamp_before_max_ms,
            timestamp_after_max_ms: broker.timestamp_after_max_ms,
            log_append_time: broker.timestamp_type == "LogAppendTime",
        };
        for (name, value) in configs {
            match name.as_str() {
                MESSAGE_BYTES_MAX => values.message_bytes_max = FromChecked::from_checked(value),
                TIMESTAMP_BEFORE => values.timestamp_before_max_ms = FromChecked::from_checked(value),
                TIMESTAMP_AFTER => values.timestamp_after_max_ms = FromChecked::from_checked(value),
                TIMESTAMP_TYPE => values.log_append_time = value == "LogAppendTime",
                _ => {}
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn a_topic_is_created_only_with_settings_that_have_an_effect() {
        let taken = check_topic_configs([("retention.ms", Some("-1")), ("max.message.bytes", Some("5"))]);
        assert_eq!(taken.expect("both are taken").len(), 2);
        let refused = |name, value| check_topic_configs([(name, value)]).expect_err("refused").to_string();
        assert!(refused("retention.ms", Some("1000")).contains("later version"));
        assert!(refused("cleanup.policy", Some("compact")).contains("later version"));
        assert!(refused("segment.bytes", Some("1000")).contains("segment.bytes"));
        assert!(refused("retention.ms", None).contains("Null value"));
    }

    #[test]
    fn what_is_set_for_a_topic_counts_before_what_is_set_for_the_broker() {
        let mut settings = Settings::default();
        settings.set("message.max.bytes", "5000").expect("taken");
        let broker = settings.values();
        assert_eq!(TopicValues::new(&broker, &BTreeMap::new()).message_bytes_max, 5000);
        let configs = [(MESSAGE_BYTES_MAX, "7000"), (TIMESTAMP_TYPE, "LogAppendTime"), (TIMESTAMP_AFTER, "5")];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let values = TopicValues::new(&broker, &configs);
        assert_eq!(values.message_bytes_max, 7000);
        assert_eq!(values.timestamp_after_max_ms, 5);
        assert_eq!(values.timestamp_before_max_ms, i64::MAX);
        assert!(values.log_append_time);
    }
}
