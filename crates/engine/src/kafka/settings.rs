//! What librdkafka is told. Everything passes under librdkafka's own names, except for what would break the promise.

use rdkafka::ClientConfig;

use crate::{ConsumerOptions, EngineError, ProducerOptions};

/// Bytes that wait in a producer's buffer, unless `queue.buffering.max.kbytes` says otherwise. librdkafka's own default is 1 GiB,
/// which is more than many services have.
pub(super) const BUFFER_BYTES_MAX: usize = 64 << 20;
/// Messages that wait in a producer's buffer, unless `queue.buffering.max.messages` says otherwise; librdkafka's own default.
pub(super) const BUFFER_MESSAGES_MAX: usize = 100_000;
/// librdkafka gives room back a moment after it reports a delivery, so its own limit is wider than ours and never the one that is met.
const OWN_BUFFER_FACTOR: usize = 2;
const KIBIBYTE: usize = 1024;

/// A setting that may only have these values, and why.
type Rule = (&'static [&'static str], &'static [&'static str], &'static str);

const EVERYWHERE: &[Rule] = &[(
    &["allow.auto.create.topics"],
    &["false"],
    "a misspelled topic would be created, and its messages would reach nobody; use create_topic",
)];

const PRODUCER: &[Rule] = &[
    (
        &["acks", "request.required.acks"],
        &["all", "-1"],
        "a send would be acknowledged before it is replicated, and lost with one broker",
    ),
    (&["enable.idempotence"], &["true"], "a retry could store a message twice, or behind later ones"),
    (
        &["enable.gapless.guarantee"],
        &["false"],
        "one record that is given up would end the producer; Baton accounts for gaps itself",
    ),
    (
        &["retries", "message.send.max.retries"],
        &["2147483647"],
        "a send would be given up before its deadline; set the delivery timeout instead",
    ),
    (&["transactional.id"], &[], "transactions are not used here"),
];

const CONSUMER: &[Rule] = &[
    (&["enable.auto.commit"], &["false"], "messages would count as done before their effect is there"),
    (&["enable.auto.offset.store"], &["false"], "messages would count as done when they are handed over"),
    (
        &["auto.offset.reset", "topic.auto.offset.reset"],
        &["error", "none"],
        "messages could be skipped in silence; say where a new group starts with ConsumerOptions::start",
    ),
    (&["group.id"], &[], "the group is ConsumerOptions::group"),
    (&["enable.partition.eof"], &["false"], "ends of partitions are not messages"),
    (
        &["group.protocol"],
        &["classic"],
        "the client library in use ends a member of the new protocol for good when it was slow once",
    ),
];

/// What Baton sets by itself: name and value.
const PRODUCER_SET: &[(&str, &str)] =
    &[("enable.idempotence", "true"), ("acks", "all"), ("allow.auto.create.topics", "false")];

const CONSUMER_SET: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("allow.auto.create.topics", "false"),
    ("fetch.queue.backoff.ms", FETCH_BACKOFF_MS),
    ("queued.max.messages.kbytes", FETCHED_AHEAD_KIBIBYTES),
];

/// Settings of the engine, then those of one client, which count more.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    servers: String,
    given: Vec<(String, String)>,
}

/// How much a producer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BufferLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Settings {
    pub(super) fn new(servers: &str, given: &[(String, String)]) -> Result<Self, EngineError> {
        let settings = Self { servers: servers.to_owned(), given: given.to_vec() };
        // Wrong names and values come out here, not when the first message is sent.
        settings.config(&[], &[], EVERYWHERE)?.create_native_config().map_err(|error| {
            EngineError::Caller(format!("the settings for Kafka are refused by its client library: {error}"))
        })?;
        Ok(settings)
    }

    /// For requests that concern topics.
    pub(super) fn admin(&self) -> Result<ClientConfig, EngineError> {
        self.config(&[("allow.auto.create.topics", "false")], &[], EVERYWHERE)
    }

    pub(super) fn producer(&self, options: &ProducerOptions) -> Result<(ClientConfig, BufferLimits), EngineError> {
        let rules = [EVERYWHERE, PRODUCER].concat();
        let mut config = self.config(PRODUCER_SET, &options.settings, &rules)?;
        let timeout_ms = options.delivery_timeout.as_millis().max(1).to_string();
        for name in ["message.timeout.ms", "delivery.timeout.ms", "linger.ms", "queue.buffering.max.ms", "client.id"] {
            if config.get(name).is_some() {
                let instead = "it is a field of ProducerOptions";
                return Err(EngineError::Caller(format!("the setting {name} cannot be given: {instead}")));
            }
        }
        config.set("message.timeout.ms", timeout_ms);
        config.set("linger.ms", options.linger_ms.to_string());
        config.set("client.id", &options.client_id);
        let limits = BufferLimits {
            messages: number(&config, "queue.buffering.max.messages")?.unwrap_or(BUFFER_MESSAGES_MAX),
            bytes: number(&config, "queue.buffering.max.kbytes")?
                .map_or(BUFFER_BYTES_MAX, |kibibytes| kibibytes.saturating_mul(KIBIBYTE)),
        };
        let messages = limits.messages.saturating_mul(OWN_BUFFER_FACTOR).clamp(1, MESSAGES_MAX);
        let kibibytes = (limits.bytes / KIBIBYTE).saturating_mul(OWN_BUFFER_FACTOR).clamp(1, KIBIBYTES_MAX);
        config.set("queue.buffering.max.messages", messages.to_string());
        config.set("queue.buffering.max.kbytes", kibibytes.to_string());
        Ok((config, limits))
    }

    pub(super) fn consumer(&self, options: &ConsumerOptions) -> Result<ClientConfig, EngineError> {
        let rules = [EVERYWHERE, CONSUMER].concat();
        let mut config = self.config(CONSUMER_SET, &options.settings, &rules)?;
        config.set("group.id", &options.group);
        if let Some(prefetch) = options.prefetch
            && config.get("queued.min.messages").is_none()
        {
            config.set("queued.min.messages", prefetch.clamp(1, FETCHED_AHEAD_MAX).to_string());
        }
        Ok(config)
    }

    /// For reading without a group. librdkafka wants a name all the same; nothing is ever stored under it.
    pub(super) fn reader(&self) -> Result<ClientConfig, EngineError> {
        let mut config = self.config(CONSUMER_SET, &[], EVERYWHERE)?;
        config.set("group.id", format!("baton-reader-{}", uuid::Uuid::new_v4()));
        config.set("enable.partition.eof", "true");
        // An end is asked for often, and should not be waited for.
        config.set("fetch.wait.max.ms", READER_FETCH_WAIT_MS);
        Ok(config)
    }

    fn config(
        &self,
        set: &[(&str, &str)],
        more: &[(String, String)],
        rules: &[Rule],
    ) -> Result<ClientConfig, EngineError> {
        let mut config = ClientConfig::new();
        for (name, value) in set {
            config.set(*name, *value);
        }
        for (name, value) in self.given.iter().chain(more) {
            check(name, value, rules)?;
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.servers);
        Ok(config)
    }
}

/// librdkafka's own upper bounds.
const MESSAGES_MAX: usize = 2_147_483_647;
const KIBIBYTES_MAX: usize = 2_147_483_647;
/// How long the broker waits for more before it answers a reader.
const READER_FETCH_WAIT_MS: &str = "20";
const FETCHED_AHEAD_MAX: u32 = 10_000_000;
/// How long a partition is not fetched from once enough of it is waiting, unless the setting of that name says otherwise. One answer of the
/// broker is mostly more than `queued.min.messages`, and nothing ends this wait early: with librdkafka's own 1,000 ms a partition delivers
/// one answer a second, however fast it is consumed.
const FETCH_BACKOFF_MS: &str = "5";
/// Kibibytes that a consumer fetches ahead of those who take them, of all its partitions together, besides the answer that is just coming;
/// librdkafka's own is eight times as much. At a gigabyte a second it is 8 ms, longer than the wait above, so that nobody waits for the
/// broker; and little enough that what was fetched is still in the processor's cache when it is handed over.
const FETCHED_AHEAD_KIBIBYTES: &str = "8192";

fn check(name: &str, value: &str, rules: &[Rule]) -> Result<(), EngineError> {
    let Some((_, allowed, why)) = rules.iter().find(|(names, ..)| names.contains(&name)) else {
        return Ok(());
    };
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(EngineError::Caller(format!("the setting {name}={value} is refused: {why}")))
}

fn number(config: &ClientConfig, name: &str) -> Result<Option<usize>, EngineError> {
    let Some(text) = config.get(name) else { return Ok(None) };
    let parsed = text.parse().map_err(|_| EngineError::Caller(format!("{name}={text} is not a whole number")))?;
    Ok(Some(parsed))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Start;

    fn pairs(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    fn producer(name: &str, value: &str) -> Result<(ClientConfig, BufferLimits), EngineError> {
        let options = ProducerOptions {
            client_id: "test".to_owned(),
            linger_ms: 0,
            delivery_timeout: Duration::from_secs(1),
            settings: pairs(name, value),
        };
        Settings::new("localhost:1", &[]).unwrap().producer(&options)
    }

    fn options(settings: Vec<(String, String)>) -> ConsumerOptions {
        ConsumerOptions {
            group: "test".to_owned(),
            topics: Vec::new(),
            start: Start::Earliest,
            prefetch: None,
            release_wait: Duration::from_secs(1),
            settings,
        }
    }

    fn consumer(name: &str, value: &str) -> Result<ClientConfig, EngineError> {
        Settings::new("localhost:1", &[]).unwrap().consumer(&options(pairs(name, value)))
    }

    #[test]
    fn what_would_break_the_promise_is_refused_with_the_reason() {
        for (name, value) in
            [("acks", "1"), ("acks", "0"), ("request.required.acks", "1"), ("enable.idempotence", "false")]
        {
            assert!(
                matches!(producer(name, value), Err(EngineError::Caller(text)) if text.contains(name)),
                "{name}={value}"
            );
        }
        for (name, value) in
            [("enable.auto.commit", "true"), ("enable.auto.offset.store", "true"), ("auto.offset.reset", "latest")]
        {
            assert!(
                matches!(consumer(name, value), Err(EngineError::Caller(text)) if text.contains(name)),
                "{name}={value}"
            );
        }
    }

    #[test]
    fn what_keeps_the_promise_is_set_whatever_the_client_library_does_by_default() {
        let (config, limits) = producer("compression.type", "zstd").unwrap();
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("compression.type"), Some("zstd"));
        assert_eq!(limits, BufferLimits { messages: BUFFER_MESSAGES_MAX, bytes: BUFFER_BYTES_MAX });
        let config = consumer("fetch.wait.max.ms", "10").unwrap();
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("enable.auto.offset.store"), Some("false"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("partition.assignment.strategy"), Some("cooperative-sticky"));
    }

    #[test]
    fn a_partition_is_fetched_from_again_at_once_unless_told_otherwise() {
        assert_eq!(consumer("fetch.wait.max.ms", "10").unwrap().get("fetch.queue.backoff.ms"), Some(FETCH_BACKOFF_MS));
        assert_eq!(consumer("fetch.queue.backoff.ms", "70").unwrap().get("fetch.queue.backoff.ms"), Some("70"));
    }

    #[test]
    fn what_is_fetched_ahead_is_bounded_in_bytes_and_by_the_prefetch_where_one_is_given() {
        let config = consumer("fetch.wait.max.ms", "10").unwrap();
        assert_eq!(config.get("queued.max.messages.kbytes"), Some(FETCHED_AHEAD_KIBIBYTES));
        assert_eq!(config.get("queued.min.messages"), None);
        let settings = Settings::new("localhost:1", &[]).unwrap();
        let few = settings.consumer(&ConsumerOptions { prefetch: Some(7), ..options(Vec::new()) }).unwrap();
        assert_eq!(few.get("queued.min.messages"), Some("7"));
    }

    #[test]
    fn settings_of_the_engine_are_held_to_the_same_rules() {
        let settings = Settings::new("localhost:1", &pairs("enable.auto.commit", "true")).unwrap();
        assert!(settings.consumer(&options(Vec::new())).is_err());
        assert!(Settings::new("localhost:1", &pairs("no.such.setting", "1")).is_err());
    }
}
