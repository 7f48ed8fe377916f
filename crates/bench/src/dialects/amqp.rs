//! Publisher confirms of AMQP 0-9-1.

use std::io::Write;
use std::net::TcpStream;

use crate::waiting::{Clients, Dialect, Verdict, be_u32};
use crate::{Fallible, frames};

/// Frame types.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Ends every frame.
const END: u8 = 0xce;
/// Bytes of a frame around its payload: type, channel, length, end.
const AROUND: usize = 8;
/// Class and method numbers of what is sent and awaited.
const CONNECTION_START: (u16, u16) = (10, 10);
const CONNECTION_START_OK: (u16, u16) = (10, 11);
const CONNECTION_TUNE: (u16, u16) = (10, 30);
const CONNECTION_TUNE_OK: (u16, u16) = (10, 31);
const CONNECTION_OPEN: (u16, u16) = (10, 40);
const CONNECTION_OPEN_OK: (u16, u16) = (10, 41);
const CHANNEL_OPEN: (u16, u16) = (20, 10);
const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
const QUEUE_DECLARE: (u16, u16) = (50, 10);
const QUEUE_DECLARE_OK: (u16, u16) = (50, 11);
const BASIC_PUBLISH: (u16, u16) = (60, 40);
const BASIC_ACK: (u16, u16) = (60, 80);
const CONFIRM_SELECT: (u16, u16) = (85, 10);
const CONFIRM_SELECT_OK: (u16, u16) = (85, 11);
/// Content header: the properties that follow are only the delivery mode, which is persistent.
const DELIVERY_MODE_FLAG: u16 = 0x1000;
const PERSISTENT: u8 = 2;

/// The same persistent message again and again.
struct Publish {
    frames: Vec<u8>,
}

impl Dialect for Publish {
    fn request(&self) -> &[u8] {
        &self.frames
    }

    fn judge(&self, received: &[u8]) -> Fallible<Verdict> {
        let Some(length) = be_u32(received, 3) else { return Ok(Verdict::More(7)) };
        let whole = length as usize + AROUND;
        if received.len() < whole {
            return Ok(Verdict::More(whole));
        }
        match method_of(received) {
            Some(BASIC_ACK) => Ok(Verdict::Acknowledged(whole)),
            other => Err(format!("the server sent {other:?} instead of an acknowledgement").into()),
        }
    }
}

/// Opens `clients` connections with a confirming channel each, on one durable quorum queue.
pub fn connect(address: &str, queue: &str, clients: usize, bytes: usize) -> Fallible<Clients> {
    let connected = (0..clients).map(|_| -> Fallible<(TcpStream, Box<dyn Dialect>)> {
        let stream = greet(address, queue)?;
        Ok((stream, Box::new(Publish { frames: publish(queue, &frames::noise(bytes))? })))
    });
    Clients::new(connected.collect::<Fallible<Vec<_>>>()?)
}

fn greet(address: &str, queue: &str) -> Fallible<TcpStream> {
    let mut stream = super::open(address)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    expect(&mut stream, CONNECTION_START)?;
    let mut start_ok = long_string(b"")?; // no client properties
    start_ok.extend(short_string("PLAIN")?);
    start_ok.extend(long_string(b"\x00guest\x00guest")?);
    start_ok.extend(short_string("en_US")?);
    send(&mut stream, 0, CONNECTION_START_OK, &start_ok)?;
    let mut tune = expect(&mut stream, CONNECTION_TUNE)?;
    // Channel and frame limits as offered; no heartbeats.
    tune.truncate(6);
    tune.extend([0, 0]);
    send(&mut stream, 0, CONNECTION_TUNE_OK, &tune)?;
    send(&mut stream, 0, CONNECTION_OPEN, b"\x01/\x00\x00")?;
    expect(&mut stream, CONNECTION_OPEN_OK)?;
    send(&mut stream, 1, CHANNEL_OPEN, b"\x00")?;
    expect(&mut stream, CHANNEL_OPEN_OK)?;
    let mut declare = vec![0, 0];
    declare.extend(short_string(queue)?);
    declare.push(0b0000_0010); // durable
    let mut arguments = short_string("x-queue-type")?;
    arguments.push(b'S');
    arguments.extend(long_string(b"quorum")?);
    declare.extend(long_string(&arguments)?);
    send(&mut stream, 1, QUEUE_DECLARE, &declare)?;
    expect(&mut stream, QUEUE_DECLARE_OK)?;
    send(&mut stream, 1, CONFIRM_SELECT, b"\x00")?;
    expect(&mut stream, CONFIRM_SELECT_OK)?;
    Ok(stream)
}

fn publish(queue: &str, body: &[u8]) -> Fallible<Vec<u8>> {
    let mut method = vec![0, 0, 0]; // reserved, and the default exchange
    method.extend(short_string(queue)?);
    method.push(0);
    let mut header = BASIC_PUBLISH.0.to_be_bytes().to_vec();
    header.extend([0, 0]);
    header.extend((body.len() as u64).to_be_bytes());
    header.extend(DELIVERY_MODE_FLAG.to_be_bytes());
    header.push(PERSISTENT);
    let mut all = frame(METHOD, 1, &with_method(BASIC_PUBLISH, &method))?;
    all.extend(frame(HEADER, 1, &header)?);
    all.extend(frame(BODY, 1, body)?);
    Ok(all)
}

fn with_method(method: (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let mut payload = method.0.to_be_bytes().to_vec();
    payload.extend(method.1.to_be_bytes());
    payload.extend(arguments);
    payload
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Fallible<Vec<u8>> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len())?.to_be_bytes());
    frame.extend(payload);
    frame.push(END);
    Ok(frame)
}

fn short_string(text: &str) -> Fallible<Vec<u8>> {
    let mut encoded = vec![u8::try_from(text.len())?];
    encoded.extend(text.as_bytes());
    Ok(encoded)
}

fn long_string(bytes: &[u8]) -> Fallible<Vec<u8>> {
    let mut encoded = u32::try_from(bytes.len())?.to_be_bytes().to_vec();
    encoded.extend(bytes);
    Ok(encoded)
}

fn send(stream: &mut TcpStream, channel: u16, method: (u16, u16), arguments: &[u8]) -> Fallible<()> {
    Ok(stream.write_all(&frame(METHOD, channel, &with_method(method, arguments))?)?)
}

/// The arguments of the next method, which must be `method`.
fn expect(stream: &mut TcpStream, method: (u16, u16)) -> Fallible<Vec<u8>> {
    let mut received = super::read_exactly(stream, 7)?;
    let length = be_u32(&received, 3).ok_or("no length")? as usize;
    received.extend(super::read_exactly(stream, length + 1)?);
    match method_of(&received) {
        Some(got) if got == method => Ok(received.get(11..7 + length).unwrap_or_default().to_vec()),
        other => Err(format!("the server sent {other:?} instead of {method:?}").into()),
    }
}

/// Class and method of a whole method frame.
fn method_of(frame: &[u8]) -> Option<(u16, u16)> {
    let number = be_u32(frame, 7)?;
    (frame.first() == Some(&METHOD)).then_some(((number >> 16) as u16, number as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_ack_acknowledges() {
        let answer = |method| frame(METHOD, 1, &with_method(method, &[0, 0, 0, 0, 0, 0, 0, 1, 0])).unwrap();
        let publish = Publish { frames: Vec::new() };
        let ack = answer(BASIC_ACK);
        assert_eq!(ack.len(), 21);
        assert!(matches!(publish.judge(&ack).unwrap(), Verdict::Acknowledged(21)));
        assert!(matches!(publish.judge(&ack[..20]).unwrap(), Verdict::More(21)));
        // basic.nack
        assert!(publish.judge(&answer((60, 120))).is_err());
    }
}
