//! Sending in the remoting protocol of RocketMQ.

use std::net::TcpStream;

use crate::waiting::{Clients, Dialect, Verdict, be_u32};
use crate::{Fallible, frames};

/// Queues of a topic that the broker creates on its first message.
const QUEUES: usize = 4;

/// The same message again and again.
struct Send {
    frame: Vec<u8>,
}

impl Dialect for Send {
    fn request(&self) -> &[u8] {
        &self.frame
    }

    fn judge(&self, received: &[u8]) -> Fallible<Verdict> {
        let (Some(length), Some(header)) = (be_u32(received, 0), be_u32(received, 4)) else {
            return Ok(Verdict::More(8));
        };
        let whole = 4 + length as usize;
        let Some(rest) = received.get(8..whole) else { return Ok(Verdict::More(whole)) };
        // The top byte names the encoding of the header: JSON, as asked.
        let header = rest.get(..(header & 0x00ff_ffff) as usize).ok_or("the header is longer than the response")?;
        if !header.windows(9).any(|text| text == b"\"code\":0,") {
            return Err(format!("the broker answered {}", String::from_utf8_lossy(header)).into());
        }
        Ok(Verdict::Acknowledged(whole))
    }
}

/// Opens `clients` connections to the broker that send `bytes` bytes to `topic`, which it creates.
pub fn connect(broker: &str, topic: &str, clients: usize, bytes: usize) -> Fallible<Clients> {
    let connected = (0..clients).map(|client| -> Fallible<(TcpStream, Box<dyn Dialect>)> {
        Ok((super::open(broker)?, Box::new(Send { frame: frame(topic, client % QUEUES, bytes)? })))
    });
    Clients::new(connected.collect::<Fallible<Vec<_>>>()?)
}

/// SEND_MESSAGE_V2 (310), its fields under the one-letter names that the protocol gives them.
fn frame(topic: &str, queue: usize, bytes: usize) -> Fallible<Vec<u8>> {
    let born = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let header = serde_json::json!({
        "code": 310, "language": "JAVA", "version": 505, "opaque": 1, "flag": 0, "serializeTypeCurrentRPC": "JSON",
        "extFields": {
            "a": "bench", "b": topic, "c": "TBW102", "d": QUEUES.to_string(), "e": queue.to_string(), "f": "0",
            "g": born.to_string(), "h": "0", "i": "", "j": "0", "k": "false", "l": "0", "m": "false", "n": "broker-a",
        },
    })
    .to_string();
    let mut frame = u32::try_from(4 + header.len() + bytes)?.to_be_bytes().to_vec();
    frame.extend(u32::try_from(header.len())?.to_be_bytes());
    frame.extend(header.as_bytes());
    frame.extend_from_slice(&frames::noise(bytes));
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_0_acknowledges() {
        let answer = |code: u32| {
            let header = format!("{{\"code\":{code},\"opaque\":1}}");
            let mut bytes = u32::try_from(4 + header.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
            bytes.extend(header.as_bytes());
            bytes
        };
        let send = Send { frame: Vec::new() };
        let whole = answer(0);
        assert!(matches!(send.judge(&whole).unwrap(), Verdict::Acknowledged(bytes) if bytes == whole.len()));
        assert!(matches!(send.judge(&whole[..20]).unwrap(), Verdict::More(bytes) if bytes == whole.len()));
        // 10: FLUSH_DISK_TIMEOUT, stored but perhaps not durable
        assert!(send.judge(&answer(10)).is_err());
    }
}
