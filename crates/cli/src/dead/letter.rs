//! A dead letter, as its headers tell it.

use std::fmt;

use baton::consumer::{
    DEAD_ATTEMPTS, DEAD_CLASS, DEAD_FIRST_TIME, DEAD_GROUP, DEAD_ID, DEAD_LAST_TIME, DEAD_OFFSET, DEAD_PARTITION,
    DEAD_REASON, DEAD_SOURCE, DEAD_TIMESTAMP, DEAD_TOPIC,
};
use baton::{Delivery, TopicPartition};
use bytes::Bytes;
use serde_json::{Value, json};

/// A message that a group gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    /// The message, with all of its headers, and where the letter lies.
    pub delivery: Delivery,
    /// What the message is known by, where it could be told.
    pub id: Option<String>,
    /// Where it came from.
    pub origin: TopicPartition,
    /// Its offset there, in decimal.
    pub origin_offset: String,
    pub group: String,
    pub class: String,
    pub source: String,
    pub reason: String,
    pub attempts: Option<u64>,
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    /// The message's own time.
    pub timestamp_ms: Option<i64>,
}

impl Letter {
    /// `None` if it is no dead letter: it does not say where it came from.
    pub(super) fn of(delivery: Delivery) -> Option<Self> {
        let text = |name| delivery.headers.last(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let or_empty = |name| text(name).unwrap_or_default();
        let time = |name| text(name).and_then(|time| time.parse().ok());
        let letter = Self {
            id: text(DEAD_ID),
            origin: TopicPartition::new(text(DEAD_TOPIC)?, text(DEAD_PARTITION)?.parse().ok()?),
            origin_offset: or_empty(DEAD_OFFSET),
            group: or_empty(DEAD_GROUP),
            class: or_empty(DEAD_CLASS),
            source: or_empty(DEAD_SOURCE),
            reason: or_empty(DEAD_REASON),
            attempts: text(DEAD_ATTEMPTS).and_then(|attempts| attempts.parse().ok()),
            first_ms: time(DEAD_FIRST_TIME),
            last_ms: time(DEAD_LAST_TIME).or(delivery.timestamp_ms),
            timestamp_ms: time(DEAD_TIMESTAMP),
            delivery,
        };
        Some(letter)
    }

    /// `orders-1-17`.
    pub(super) fn origin_name(&self) -> String {
        format!("{}-{}", self.origin, self.origin_offset)
    }

    /// Whether this is what somebody calls it by.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.id.as_deref() == Some(name) || self.origin_name() == name
    }

    /// Where it lies and what it is: no other letter has the same, not even one in a topic that was made anew.
    pub(super) fn name(&self) -> String {
        let at = &self.delivery;
        format!("{}/{}/{}", at.from.partition, at.offset, self.id.as_deref().unwrap_or_default())
    }

    pub(super) fn json(&self, replayed: bool) -> Value {
        let delivery = &self.delivery;
        json!({
            "id": self.id,
            "origin": { "topic": &*self.origin.topic, "partition": self.origin.partition, "offset": self.origin_offset },
            "lies": { "topic": &*delivery.from.topic, "partition": delivery.from.partition, "offset": delivery.offset },
            "key": delivery.key.as_ref().map(shown),
            "group": self.group,
            "class": self.class,
            "source": self.source,
            "reason": self.reason,
            "attempts": self.attempts,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "timestamp_ms": self.timestamp_ms,
            "payload_bytes": delivery.payload.as_ref().map(Bytes::len),
            "replayed": replayed,
        })
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.origin_name(), self.id.as_deref().unwrap_or("no id"))
    }
}

/// Text, and else `0x` with hexadecimal digits.
pub(super) fn shown(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// For a terminal: nothing that moves the cursor, and one line.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use baton::Headers;

    use super::*;

    pub(in super::super) fn letter(offset: i64, changed: &[(&'static str, &str)]) -> Letter {
        let all = [
            (DEAD_ID, "id-1"),
            (DEAD_TOPIC, "orders"),
            (DEAD_PARTITION, "1"),
            (DEAD_OFFSET, "17"),
            (DEAD_GROUP, "beans-svc"),
            (DEAD_CLASS, "permanent"),
            (DEAD_SOURCE, "test"),
            (DEAD_REASON, "no such order"),
            (DEAD_LAST_TIME, "5000"),
        ];
        let mut headers = Headers::default();
        for (name, value) in all.iter().chain(changed) {
            headers.push(*name, Some(Bytes::copy_from_slice(value.as_bytes())));
        }
        let delivery = Delivery {
            from: TopicPartition::new("orders.dead", 0),
            offset,
            key: Some(Bytes::from_static(b"key-1")),
            payload: None,
            headers,
            timestamp_ms: Some(6000),
            delivered_before: None,
        };
        Letter::of(delivery).expect("a letter")
    }

    #[test]
    fn a_letter_is_called_by_its_id_or_by_where_it_came_from() {
        let letter = letter(3, &[]);
        assert!(letter.is_called("id-1") && letter.is_called("orders-1-17"));
        assert!(!letter.is_called("orders-1-1") && !letter.is_called("id"));
    }

    #[test]
    fn what_says_no_origin_is_no_letter() {
        let mut delivery = letter(3, &[]).delivery;
        delivery.headers = Headers::default();
        assert_eq!(Letter::of(delivery), None);
    }

    #[test]
    fn a_message_that_died_twice_is_two_letters() {
        assert_ne!(letter(3, &[]).name(), letter(4, &[]).name());
        assert_ne!(letter(3, &[]).name(), letter(3, &[(DEAD_ID, "id-2")]).name());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        assert_eq!(shown(&Bytes::from_static(&[0xff, 0x01])), "0xff01");
        assert_eq!(plain("a\n\u{1b}[2Jb"), "a\u{fffd}\u{fffd}[2Jb");
    }
}
