//! Clients that wait for each acknowledgement, driven by one thread so that they leave the processor to the server.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::Fallible;

/// A server that takes longer than this over one request has failed the benchmark.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Latencies are kept in microseconds up to this, with three digits.
const LATENCY_MICROSECONDS_MAX: u64 = 120_000_000;
/// Largest response that is read; a Produce response to 1,000 partitions has about 40 KB.
pub const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// What a dialect makes of the bytes received so far.
pub enum Verdict {
    /// So many bytes are needed before there is more to say; 0 when even that is unknown.
    More(usize),
    /// The first so many bytes acknowledge the request.
    Acknowledged(usize),
    /// The first so many bytes are something else, and this is the reply to it.
    Aside(usize, &'static [u8]),
}

/// A protocol in which a client sends one request and waits for its acknowledgement.
pub trait Dialect {
    /// Readies the next request.
    fn prepare(&mut self) {}
    /// The whole request.
    fn request(&self) -> &[u8];
    /// Records that one acknowledgement stands for.
    fn records(&self) -> u64 {
        1
    }
    /// Looks at what came; a refusal by the server is an error.
    fn judge(&self, received: &[u8]) -> Fallible<Verdict>;
}

/// What a run of waiting clients saw.
pub struct Waited {
    /// Records acknowledged.
    pub records: u64,
    /// From the first request to the last acknowledgement.
    pub seconds: f64,
    /// Request to acknowledgement, in microseconds.
    pub latency: Histogram<u64>,
}

struct Connection {
    stream: TcpStream,
    dialect: Box<dyn Dialect>,
    written: usize,
    received: Vec<u8>,
    filled: usize,
    sent_at: Instant,
    waiting: bool,
}

/// Open connections, one request in flight on each.
pub struct Clients {
    poll: Poll,
    connections: Vec<Connection>,
}

impl Clients {
    /// Takes over connections that are ready for their first request.
    pub fn new(connected: Vec<(std::net::TcpStream, Box<dyn Dialect>)>) -> Fallible<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(connected.len());
        for (index, (stream, dialect)) in connected.into_iter().enumerate() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            connections.push(Connection {
                stream,
                dialect,
                written: 0,
                received: vec![0; 512],
                filled: 0,
                sent_at: Instant::now(),
                waiting: false,
            });
        }
        Ok(Self { poll, connections })
    }

    /// Sends for `duration`, then waits for what is still in flight.
    pub fn run(&mut self, duration: Duration) -> Fallible<Waited> {
        let start = Instant::now();
        let mut seen =
            Waited { records: 0, seconds: 0.0, latency: Histogram::new_with_max(LATENCY_MICROSECONDS_MAX, 3)? };
        let mut open = 0_usize;
        for connection in &mut self.connections {
            connection.send()?;
            open += 1;
        }
        let mut events = Events::with_capacity(1024);
        while open > 0 {
            self.poll.poll(&mut events, Some(ANSWER_WAIT)).or_else(|error| match error.kind() {
                ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            })?;
            if events.is_empty() {
                return Err(format!("{open} clients had no answer for {} s", ANSWER_WAIT.as_secs()).into());
            }
            for event in &events {
                // Tokens are the indexes that `connect` gave.
                let Some(connection) = self.connections.get_mut(event.token().0) else { continue };
                if event.is_writable() && connection.waiting {
                    connection.write_rest()?;
                }
                if event.is_readable() && connection.answered()? {
                    let waited = connection.sent_at.elapsed();
                    seen.latency.saturating_record(u64::try_from(waited.as_micros())?);
                    seen.records += connection.dialect.records();
                    if start.elapsed() < duration {
                        connection.send()?;
                    } else {
                        open -= 1;
                    }
                }
            }
        }
        seen.seconds = start.elapsed().as_secs_f64();
        Ok(seen)
    }
}

impl Waited {
    /// The median and the 99th percentile in microseconds.
    pub fn p50_p99_us(&self) -> (f64, f64) {
        let micros = |quantile| self.latency.value_at_quantile(quantile) as f64;
        (micros(0.5), micros(0.99))
    }
}

impl Connection {
    fn send(&mut self) -> Fallible<()> {
        self.dialect.prepare();
        self.written = 0;
        self.waiting = true;
        self.sent_at = Instant::now();
        self.write_rest()
    }

    fn write_rest(&mut self) -> Fallible<()> {
        while let Some(rest) = self.dialect.request().get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is; true when the request is acknowledged.
    fn answered(&mut self) -> Fallible<bool> {
        loop {
            if self.filled == self.received.len() {
                self.grow(self.filled * 2)?;
            }
            let rest = self.received.get_mut(self.filled..).ok_or("response buffer overrun")?;
            match self.stream.read(rest) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            // With one request in flight its acknowledgement is all there is: no second read that finds nothing.
            if self.judged()? {
                return Ok(true);
            }
        }
    }

    fn judged(&mut self) -> Fallible<bool> {
        while self.filled > 0 {
            let received = self.received.get(..self.filled).ok_or("response buffer overrun")?;
            match self.dialect.judge(received)? {
                Verdict::More(wanted) => {
                    self.grow(wanted)?;
                    return Ok(false);
                }
                Verdict::Acknowledged(_) if !self.waiting => {
                    return Err("the server answered what was not asked".into());
                }
                Verdict::Acknowledged(bytes) => {
                    self.waiting = false;
                    self.forget(bytes);
                    return Ok(true);
                }
                Verdict::Aside(bytes, reply) => {
                    // A reply of some bytes always fits in the socket's buffer beside one small request.
                    self.stream.write_all(reply)?;
                    self.forget(bytes);
                }
            }
        }
        Ok(false)
    }

    fn forget(&mut self, bytes: usize) {
        self.received.copy_within(bytes.min(self.filled)..self.filled, 0);
        self.filled = self.filled.saturating_sub(bytes);
    }

    fn grow(&mut self, wanted: usize) -> Fallible<()> {
        if wanted > RESPONSE_BYTES_MAX {
            return Err(format!("a response of {wanted} bytes was announced").into());
        }
        if wanted > self.received.len() {
            self.received.resize(wanted, 0);
        }
        Ok(())
    }
}

/// The big-endian number at `position`.
pub fn be_u32(bytes: &[u8], position: usize) -> Option<u32> {
    bytes.get(position..position + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::kafka::{self, Produce};
    use crate::frames;
    use std::net::TcpListener;

    /// Answers requests to one partition of topic `t` with what `answer` makes of the correlation id, cut in two.
    fn serve(answer: impl Fn(u32) -> Vec<u8> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            while stream.read_exact(&mut length).is_ok() {
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                let body = answer(be_u32(&request, 4).unwrap());
                let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
                frame.extend(body);
                let (head, tail) = frame.split_at(7);
                stream.write_all(head).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                stream.write_all(tail).unwrap();
            }
        });
        address
    }

    fn response(correlation: u32, code: i16) -> Vec<u8> {
        let mut body = correlation.to_be_bytes().to_vec();
        body.extend([0, 2, 2, b't', 2, 0, 0, 0, 0]);
        body.extend(code.to_be_bytes());
        // base offset, log append time, log start offset, no record errors, no message; tags; throttle time; tags
        body.extend([0; 8].into_iter().chain([0xff; 8]).chain([0; 8]).chain([1, 0, 0, 0]).chain([0; 5]));
        body
    }

    fn run(answer: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Fallible<Waited> {
        let batch = frames::batch(1, &frames::noise(16))?;
        let request = Produce::to_one("t", 0, &batch)?;
        kafka::connect(&serve(answer), vec![request])?.run(Duration::from_millis(30))
    }

    #[test]
    fn answers_that_come_in_pieces_count_once() {
        let waited = run(|correlation| response(correlation, 0)).unwrap();
        assert!(waited.records >= 2);
        assert_eq!(waited.records, waited.latency.len());
    }

    #[test]
    fn a_refused_record_ends_the_run_with_the_servers_reason() {
        let error = run(|correlation| response(correlation, 6)).err().unwrap().to_string();
        assert!(error.contains("NotLeaderOrFollower"), "{error}");
    }

    #[test]
    fn an_answer_to_another_request_ends_the_run() {
        let error = run(|correlation| response(correlation + 1, 0)).err().unwrap().to_string();
        assert!(error.contains("another request"), "{error}");
    }

    #[test]
    fn an_announced_response_beyond_the_bound_is_refused_before_it_is_read() {
        let error = run(|_| vec![0; RESPONSE_BYTES_MAX + 1]).err().unwrap().to_string();
        assert!(error.contains("announced"), "{error}");
    }
}
