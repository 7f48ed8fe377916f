//! JetStream publishing in the text protocol of NATS.

use std::io::Write;
use std::net::TcpStream;

use crate::waiting::{Clients, Dialect, Verdict};
use crate::{Fallible, frames};

/// Longest line that a server is heard out for while greeting.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The same message again and again, its acknowledgement sent to this connection's inbox.
struct Publish {
    frame: Vec<u8>,
}

impl Dialect for Publish {
    fn request(&self) -> &[u8] {
        &self.frame
    }

    fn judge(&self, received: &[u8]) -> Fallible<Verdict> {
        let Some(line) = received.windows(2).position(|pair| pair == b"\r\n") else { return Ok(Verdict::More(0)) };
        let text = std::str::from_utf8(received.get(..line).unwrap_or_default())?;
        if text == "PING" {
            return Ok(Verdict::Aside(line + 2, b"PONG\r\n"));
        }
        let length: usize = match text.strip_prefix("MSG ").and_then(|rest| rest.rsplit(' ').next()) {
            Some(length) => length.parse()?,
            None => return Err(format!("the server said {text:?}").into()),
        };
        let whole = line + 2 + length + 2;
        let Some(body) = received.get(line + 2..whole) else { return Ok(Verdict::More(whole)) };
        if body.windows(7).any(|text| text == b"\"error\"") || !body.windows(6).any(|text| text == b"\"seq\":") {
            return Err(format!("the server refused: {}", String::from_utf8_lossy(body)).into());
        }
        Ok(Verdict::Acknowledged(whole))
    }
}

/// Opens `clients` connections that publish `bytes` bytes to `subject`, kept in a stream on files.
pub fn connect(address: &str, subject: &str, clients: usize, bytes: usize) -> Fallible<Clients> {
    let mut connected: Vec<(TcpStream, Box<dyn Dialect>)> = Vec::with_capacity(clients);
    for client in 0..clients {
        let inbox = format!("_INBOX.{client}");
        let mut stream = super::open(address)?;
        let options = r#"{"verbose":false,"pedantic":false,"headers":false,"lang":"bench","version":"1"}"#;
        write!(stream, "CONNECT {options}\r\nSUB {inbox} 1\r\nPING\r\n")?;
        while read_line(&mut stream)? != "PONG" {}
        if client == 0 {
            create_stream(&mut stream, &inbox, subject)?;
        }
        let mut frame = format!("PUB {subject} {inbox} {bytes}\r\n").into_bytes();
        frame.extend_from_slice(&frames::noise(bytes));
        frame.extend_from_slice(b"\r\n");
        connected.push((stream, Box::new(Publish { frame })));
    }
    Clients::new(connected)
}

fn create_stream(stream: &mut TcpStream, inbox: &str, subject: &str) -> Fallible<()> {
    let settings = format!(
        r#"{{"name":"{subject}","subjects":["{subject}"],"storage":"file","retention":"limits","num_replicas":1,"max_age":0}}"#
    );
    write!(stream, "PUB $JS.API.STREAM.CREATE.{subject} {inbox} {}\r\n{settings}\r\n", settings.len())?;
    loop {
        let line = read_line(stream)?;
        if line == "PING" {
            stream.write_all(b"PONG\r\n")?;
        } else if line.starts_with("MSG ") {
            let answer = read_line(stream)?;
            return if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) };
        }
    }
}

fn read_line(stream: &mut TcpStream) -> Fallible<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > LINE_BYTES_MAX {
            return Err("the server's line does not end".into());
        }
        line.extend(super::read_exactly(stream, 1)?);
    }
    Ok(String::from_utf8(line)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(received: &str) -> Fallible<Verdict> {
        Publish { frame: Vec::new() }.judge(received.as_bytes())
    }

    #[test]
    fn an_acknowledgement_counts_when_it_is_whole_and_carries_a_sequence() {
        let whole = "MSG _INBOX.1 1 26\r\n{\"stream\":\"peers\",\"seq\":9}\r\n";
        assert!(matches!(judge(whole).unwrap(), Verdict::Acknowledged(bytes) if bytes == whole.len()));
        assert!(matches!(judge(&whole[..30]).unwrap(), Verdict::More(bytes) if bytes == whole.len()));
        assert!(matches!(judge("MSG _INB").unwrap(), Verdict::More(0)));
        assert!(judge("MSG _INBOX.1 1 28\r\n{\"error\":{\"code\":503},\"a\":1}\r\n").is_err());
        assert!(judge("-ERR 'bad'\r\n").is_err());
    }

    #[test]
    fn a_ping_is_answered_aside() {
        assert!(matches!(judge("PING\r\nMSG").unwrap(), Verdict::Aside(6, b"PONG\r\n")));
    }
}
