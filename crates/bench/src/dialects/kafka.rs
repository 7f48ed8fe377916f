//! Produce requests of the Kafka protocol.

use std::io::Write;
use std::net::TcpStream;

use bytes::Bytes;

use crate::waiting::{Clients, Dialect, Verdict, be_u32};
use crate::{Fallible, frames};

/// The same Produce request again and again, under a new correlation id each time.
pub struct Produce {
    frame: Vec<u8>,
    records: u64,
    /// Where the only error code lies in the response; `None` when there are several and it must be decoded.
    error_code_position: Option<usize>,
    correlation: u32,
}

impl Produce {
    /// One record, `batch`, to `partition`.
    pub fn to_one(topic: &str, partition: i32, batch: &Bytes) -> Fallible<Self> {
        let frame = frames::produce(topic, &[partition], batch)?;
        Ok(Self { frame, records: 1, error_code_position: Some(frames::error_code_position(topic)), correlation: 0 })
    }

    /// `batch` to each of `partitions`, `records` in all.
    pub fn to_many(topic: &str, partitions: &[i32], batch: &Bytes, records: u64) -> Fallible<Self> {
        let frame = frames::produce(topic, partitions, batch)?;
        Ok(Self { frame, records, error_code_position: None, correlation: 0 })
    }
}

impl Dialect for Produce {
    fn prepare(&mut self) {
        self.correlation = self.correlation.wrapping_add(1);
        let position = frames::CORRELATION_POSITION;
        // Every encoded request has its correlation id there.
        if let Some(field) = self.frame.get_mut(position..position + 4) {
            field.copy_from_slice(&self.correlation.to_be_bytes());
        }
    }

    fn request(&self) -> &[u8] {
        &self.frame
    }

    fn records(&self) -> u64 {
        self.records
    }

    fn judge(&self, received: &[u8]) -> Fallible<Verdict> {
        let Some(length) = be_u32(received, 0) else { return Ok(Verdict::More(4)) };
        let whole = 4 + length as usize;
        let Some(body) = received.get(4..whole) else { return Ok(Verdict::More(whole)) };
        if be_u32(body, 0) != Some(self.correlation) {
            return Err("the response belongs to another request".into());
        }
        match self.error_code_position {
            Some(position) if body.get(position..position + 2) == Some(&[0, 0]) => {}
            _ => frames::check_produced(body)?,
        }
        Ok(Verdict::Acknowledged(whole))
    }
}

/// Opens one connection for each of `requests`.
pub fn connect(address: &str, requests: Vec<Produce>) -> Fallible<Clients> {
    let connected = requests
        .into_iter()
        .map(|request| -> Fallible<(TcpStream, Box<dyn Dialect>)> { Ok((super::open(address)?, Box::new(request))) });
    Clients::new(connected.collect::<Fallible<Vec<_>>>()?)
}

/// Sends `frame` and returns the response without its length. Blocks.
pub fn ask(stream: &mut TcpStream, frame: &[u8]) -> Fallible<Vec<u8>> {
    stream.write_all(frame)?;
    let length = super::read_exactly(stream, 4)?;
    super::read_exactly(stream, be_u32(&length, 0).ok_or("no length")? as usize)
}
