//! How groups and committed offsets are stored: keys and values of the log's tables. `docs/FORMAT.md` describes the bytes.
//!
//! Every value begins with the version of its layout. Integers are big-endian; a string is a `u16` length and UTF-8;
//! bytes are a `u32` length and the bytes; an optional string is a byte 0 or 1, then the string.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use thiserror::Error;

/// Layout of a stored group.
const GROUP_VERSION: u8 = 1;
/// Layout of a stored offset.
const OFFSET_VERSION: u8 = 1;

/// Stored bytes that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Written by a version that does not exist yet.
    #[error("layout version {found} is unknown, this program reads up to {known}; use a newer baton")]
    UnknownVersion {
        /// What the bytes say.
        found: u8,
        /// The newest one known here.
        known: u8,
    },
    /// Cut short, too long, or not UTF-8.
    #[error("the stored bytes are damaged")]
    Damaged,
}

/// What is kept of a group over a restart. The key is the group's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroup {
    /// `consumer` for instance.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol of this generation.
    pub protocol_name: Option<Arc<str>>,
    /// The generation.
    pub generation: i32,
    /// Member id of the leader.
    pub leader: Option<Arc<str>>,
    /// When the group's state was entered, in milliseconds since 1970.
    pub state_since_wall_ms: i64,
    /// Its members; none in an empty group, else the group is stable.
    pub members: Vec<StoredMember>,
}

/// What is kept of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    /// Its id.
    pub id: Arc<str>,
    /// Its `group.instance.id`.
    pub instance_id: Option<Arc<str>>,
    /// As the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connected from.
    pub client_host: Arc<str>,
    /// How long a rebalance waits for it, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// Names of the protocols it supports, in its order of preference, and what it said of itself for each. All of them
    /// are kept, so that a restart changes nothing for those who join later or again.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// Its assignment.
    pub assignment: Bytes,
}

impl StoredGroup {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![GROUP_VERSION];
        put_optional(&mut out, self.protocol_type.as_deref());
        put_optional(&mut out, self.protocol_name.as_deref());
        out.put_i32(self.generation);
        put_optional(&mut out, self.leader.as_deref());
        out.put_i64(self.state_since_wall_ms);
        out.put_u32(length(self.members.len()));
        for member in &self.members {
            put_string(&mut out, &member.id);
            put_optional(&mut out, member.instance_id.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            out.put_u32(length(member.protocols.len()));
            for (name, metadata) in &member.protocols {
                put_string(&mut out, name);
                put_bytes(&mut out, metadata);
            }
            put_bytes(&mut out, &member.assignment);
        }
        out.into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is of an unknown version, or damaged.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        let mut from = Input::new(stored, GROUP_VERSION)?;
        let mut group = Self {
            protocol_type: from.optional()?,
            protocol_name: from.optional()?,
            generation: i32::from_be_bytes(from.array()?),
            leader: from.optional()?,
            state_since_wall_ms: i64::from_be_bytes(from.array()?),
            members: Vec::new(),
        };
        for _ in 0..u32::from_be_bytes(from.array()?) {
            group.members.push(StoredMember {
                id: from.string()?.into(),
                instance_id: from.optional()?,
                client_id: from.string()?.into(),
                client_host: from.string()?.into(),
                rebalance_timeout_ms: i32::from_be_bytes(from.array()?),
                session_timeout_ms: i32::from_be_bytes(from.array()?),
                protocols: from.protocols()?,
                assignment: from.bytes()?,
            });
        }
        from.finish()?;
        Ok(group)
    }
}

/// Where an offset belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey<'a> {
    /// The group.
    pub group_id: &'a str,
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's index in the topic.
    pub partition: i32,
}

impl<'a> OffsetKey<'a> {
    /// The stored form: group, topic and partition, so that a group's offsets lie side by side.
    pub fn encode(&self) -> Bytes {
        let mut out = Self::prefix(self.group_id);
        put_string(&mut out, self.topic);
        out.put_i32(self.partition);
        out.into()
    }

    /// What all the keys of a group begin with, and no others.
    pub fn prefix(group_id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_string(&mut out, group_id);
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode(stored: &'a [u8]) -> Result<Self, FormatError> {
        let mut from = Input { rest: stored };
        let key =
            Self { group_id: from.string()?, topic: from.string()?, partition: i32::from_be_bytes(from.array()?) };
        from.finish()?;
        Ok(key)
    }
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOffset {
    /// The topic's id when it was committed: an offset of a topic that was deleted is none of a later one of that name.
    pub topic_id: [u8; 16],
    /// The offset of the record to be read next.
    pub offset: i64,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// When it was committed, in milliseconds since 1970.
    pub committed_wall_ms: i64,
    /// When it goes whatever the retention is, in milliseconds since 1970, if the client said so (versions up to 4).
    pub expires_wall_ms: Option<i64>,
    /// What the client wants to keep with it.
    pub metadata: Arc<str>,
}

/// In the place of `expires_wall_ms` when the client set none.
const NO_EXPIRY: i64 = -1;

impl StoredOffset {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(48 + self.metadata.len());
        out.put_u8(OFFSET_VERSION);
        out.put_slice(&self.topic_id);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        out.put_i64(self.committed_wall_ms);
        out.put_i64(self.expires_wall_ms.unwrap_or(NO_EXPIRY));
        put_string(&mut out, &self.metadata);
        out.into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is of an unknown version, or damaged.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        let mut from = Input::new(stored, OFFSET_VERSION)?;
        let offset = Self {
            topic_id: from.array()?,
            offset: i64::from_be_bytes(from.array()?),
            leader_epoch: i32::from_be_bytes(from.array()?),
            committed_wall_ms: i64::from_be_bytes(from.array()?),
            expires_wall_ms: Some(i64::from_be_bytes(from.array()?)).filter(|expires| *expires != NO_EXPIRY),
            metadata: from.string()?.into(),
        };
        from.finish()?;
        Ok(offset)
    }
}

/// A length as it is stored. What requests bring is shorter, for a request is.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Strings of requests are at most `i16::MAX` bytes in the old versions and are checked in the new ones.
fn put_string(out: &mut Vec<u8>, value: &str) {
    let end = value.floor_char_boundary(usize::from(u16::MAX));
    out.put_u16(u16::try_from(end).unwrap_or(u16::MAX));
    out.put_slice(&value.as_bytes()[..end]);
}

fn put_optional(out: &mut Vec<u8>, value: Option<&str>) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put_string(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.put_u32(length(value.len()));
    out.put_slice(value);
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(stored: &'a [u8], known: u8) -> Result<Self, FormatError> {
        match stored.split_first() {
            Some((found, rest)) if *found == known => Ok(Self { rest }),
            Some((found, _)) if *found > known => Err(FormatError::UnknownVersion { found: *found, known }),
            _ => Err(FormatError::Damaged),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Damaged)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(FormatError::Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn string(&mut self) -> Result<&'a str, FormatError> {
        let length = u16::from_be_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| FormatError::Damaged)
    }

    fn optional(&mut self) -> Result<Option<Arc<str>>, FormatError> {
        match self.array()? {
            [0] => Ok(None),
            [1] => Ok(Some(self.string()?.into())),
            _ => Err(FormatError::Damaged),
        }
    }

    fn bytes(&mut self) -> Result<Bytes, FormatError> {
        let length = u32::from_be_bytes(self.array()?);
        Ok(Bytes::copy_from_slice(self.take(length as usize)?))
    }

    fn protocols(&mut self) -> Result<Vec<(Arc<str>, Bytes)>, FormatError> {
        let count = u32::from_be_bytes(self.array()?);
        let mut protocols = Vec::new();
        for _ in 0..count {
            protocols.push((self.string()?.into(), self.bytes()?));
        }
        Ok(protocols)
    }

    fn finish(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> StoredGroup {
        let member = StoredMember {
            id: "consumer-1-a".into(),
            instance_id: Some("pod-0".into()),
            client_id: "consumer-1".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            protocols: vec![("range".into(), Bytes::from_static(&[0, 3])), ("sticky".into(), Bytes::new())],
            assignment: Bytes::from_static(&[0, 3, 9]),
        };
        StoredGroup {
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            generation: 7,
            leader: Some("consumer-1-a".into()),
            state_since_wall_ms: 1_700_000_000_000,
            members: vec![member.clone(), StoredMember { id: "b".into(), instance_id: None, ..member }],
        }
    }

    fn offset() -> StoredOffset {
        StoredOffset {
            topic_id: *b"0123456789abcdef",
            offset: 42,
            leader_epoch: -1,
            committed_wall_ms: 1_700_000_000_000,
            expires_wall_ms: None,
            metadata: "seen".into(),
        }
    }

    #[test]
    fn what_is_stored_reads_back_the_same() {
        assert_eq!(StoredGroup::decode(&group().encode()), Ok(group()));
        let empty = StoredGroup { protocol_name: None, leader: None, members: Vec::new(), ..group() };
        assert_eq!(StoredGroup::decode(&empty.encode()), Ok(empty));
        assert_eq!(StoredOffset::decode(&offset().encode()), Ok(offset()));
        let expiring = StoredOffset { expires_wall_ms: Some(0), ..offset() };
        assert_eq!(StoredOffset::decode(&expiring.encode()), Ok(expiring));
        let key = OffsetKey { group_id: "billing", topic: "orders", partition: 3 };
        assert_eq!(OffsetKey::decode(&key.encode()), Ok(key));
    }

    #[test]
    fn the_bytes_are_those_that_the_format_describes() {
        let key = OffsetKey { group_id: "g", topic: "top", partition: 258 };
        assert_eq!(key.encode(), &b"\x00\x01g\x00\x03top\x00\x00\x01\x02"[..]);
        let value = [
            &[1][..],
            b"0123456789abcdef",
            &42_i64.to_be_bytes(),
            &[0xff; 4],
            &1_700_000_000_000_i64.to_be_bytes(),
            &[0xff; 8],
            b"\x00\x04seen",
        ];
        assert_eq!(offset().encode(), value.concat());
        let empty = StoredGroup {
            protocol_type: None,
            protocol_name: None,
            leader: None,
            generation: 1,
            state_since_wall_ms: 2,
            members: Vec::new(),
        };
        assert_eq!(
            empty.encode(),
            &b"\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00"[..]
        );
    }

    /// A group and an offset as version 1 stored them. These bytes must be readable for ever.
    const GROUP_1: &str = "01010008636f6e73756d657201000572616e676500000007010001610000018bcfe5680000000001000161010005706f\
        642d300001630001680000ea600000271000000001000572616e6765000000020003000000020009";
    const OFFSET_1: &str = "0130313233343536373839616263646566000000000000002affffffff0000018bcfe56800ffffffffffffffff000473\
        65656e";

    fn from_hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn what_version_1_stored_can_be_read() {
        let member = StoredMember {
            id: "a".into(),
            instance_id: Some("pod-0".into()),
            client_id: "c".into(),
            client_host: "h".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            protocols: vec![("range".into(), Bytes::from_static(&[0, 3]))],
            assignment: Bytes::from_static(&[0, 9]),
        };
        let expected = StoredGroup { leader: Some("a".into()), members: vec![member], ..group() };
        assert_eq!(StoredGroup::decode(&from_hex(GROUP_1)), Ok(expected));
        assert_eq!(StoredOffset::decode(&from_hex(OFFSET_1)), Ok(offset()));
    }

    #[test]
    fn the_prefix_of_a_group_is_that_of_no_other() {
        let key = |group_id| OffsetKey { group_id, topic: "orders", partition: 0 }.encode();
        let prefix = OffsetKey::prefix("bill");
        assert!(key("bill").starts_with(&prefix));
        for other in ["billing", "bil", "", "bil\0l"] {
            assert!(!key(other).starts_with(&prefix), "{other:?}");
        }
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let bytes = group().encode();
        for cut in 0..bytes.len() {
            assert_eq!(StoredGroup::decode(&bytes[..cut]), Err(FormatError::Damaged), "cut at {cut}");
        }
        assert_eq!(StoredGroup::decode(&[&bytes[..], &[0]].concat()), Err(FormatError::Damaged));
        let bytes = offset().encode();
        for cut in 0..bytes.len() {
            assert_eq!(StoredOffset::decode(&bytes[..cut]), Err(FormatError::Damaged), "cut at {cut}");
        }
        assert_eq!(OffsetKey::decode(b"\x00\x01g\x00\x03to"), Err(FormatError::Damaged));
        assert_eq!(OffsetKey::decode(b"\x00\x01\xff\x00\x00\x00\x00\x00\x00"), Err(FormatError::Damaged));
        // A member count of 2^32-1 in a few bytes.
        let mut bytes = StoredGroup { members: Vec::new(), ..group() }.encode().to_vec();
        let end = bytes.len();
        bytes[end - 4..].fill(0xff);
        assert_eq!(StoredGroup::decode(&bytes), Err(FormatError::Damaged));
    }

    #[test]
    fn a_later_layout_asks_for_a_newer_program() {
        let mut bytes = group().encode().to_vec();
        bytes[0] = 2;
        assert_eq!(StoredGroup::decode(&bytes), Err(FormatError::UnknownVersion { found: 2, known: 1 }));
        let mut bytes = offset().encode().to_vec();
        bytes[0] = 9;
        assert_eq!(StoredOffset::decode(&bytes), Err(FormatError::UnknownVersion { found: 9, known: 1 }));
    }
}
