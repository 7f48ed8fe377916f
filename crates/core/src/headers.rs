//! The headers of a message: in order, and a name may occur more than once, as on Kafka.

use std::sync::Arc;

use bytes::Bytes;

/// One header. A value that is absent is not the same as an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: Option<Bytes>,
}

/// Headers in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// None yet, with room for so many.
    pub fn with_capacity(headers: usize) -> Self {
        Self(Vec::with_capacity(headers))
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: impl Into<Arc<str>>, value: Option<Bytes>) {
        self.0.push(Header { name: name.into(), value });
    }

    /// Takes all of this name away and adds one at the end.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: Option<Bytes>) {
        let name = name.into();
        self.0.retain(|header| header.name != name);
        self.0.push(Header { name, value });
    }

    /// The value of the last header of this name, which is the one that counts on Kafka.
    pub fn last(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|header| &*header.name == name)?.value.as_ref()
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}
