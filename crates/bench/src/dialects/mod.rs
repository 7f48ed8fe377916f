//! What the waiting clients speak: the same loop for every engine, with the least processor time for each.

pub mod amqp;
pub mod kafka;
pub mod nats;
pub mod rocketmq;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use crate::Fallible;

/// A server that does not answer a greeting by then has failed.
const GREETING_WAIT: Duration = Duration::from_secs(30);

/// A blocking connection for what comes before the first request.
fn open(address: &str) -> Fallible<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GREETING_WAIT))?;
    Ok(stream)
}

/// Reads exactly `bytes` bytes.
fn read_exactly(stream: &mut TcpStream, bytes: usize) -> Fallible<Vec<u8>> {
    if bytes > crate::waiting::RESPONSE_BYTES_MAX {
        return Err(format!("a response of {bytes} bytes was announced").into());
    }
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}
