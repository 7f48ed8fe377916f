//! A client: blocking, on one connection, with `kafka-protocol` as its codec.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::LONG;

pub struct Client {
    pub stream: TcpStream,
    /// What was sent: API, version and frame.
    pub sent: Vec<(i16, i16, Vec<u8>)>,
    next_correlation_id: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).expect("the broker accepts"))
    }

    /// A client on a connection that is there.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(LONG)).expect("a socket option");
        stream.set_write_timeout(Some(LONG)).expect("a socket option");
        Self { stream, sent: Vec::new(), next_correlation_id: 1 }
    }

    /// Sends a request; returns its correlation id.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = frame(version, correlation_id, request);
        self.stream.write_all(&frame).expect("the broker reads");
        self.sent.push((R::KEY, version, frame));
        correlation_id
    }

    /// Takes the next response, which must be that of `correlation_id`.
    pub fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let mut bytes = self.receive_frame().expect("the broker answers");
        let header_version = if R::KEY == ApiVersionsRequest::KEY { 0 } else { R::Response::header_version(version) };
        let header = ResponseHeader::decode(&mut bytes, header_version).expect("a response header");
        assert_eq!(header.correlation_id, correlation_id, "responses come in the order of their requests");
        let response = R::Response::decode(&mut bytes, version).expect("a response that another implementation reads");
        assert!(bytes.is_empty(), "{} bytes too many in version {version} of {}", bytes.len(), R::KEY);
        response
    }

    /// Sends a request and takes its response.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation_id = self.send(version, request);
        self.receive::<R>(version, correlation_id)
    }

    /// Takes the next response as it is, without its length.
    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Whether nothing comes within `time`. Panics when the connection ends instead.
    pub fn is_silent_for(&self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a socket option");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(LONG)).expect("a socket option");
        match peeked {
            Ok(0) => panic!("the broker has closed the connection"),
            Ok(_) => false,
            Err(error) => {
                assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
                true
            }
        }
    }

    /// Reads until the broker closes the connection; returns what came before.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            // What the broker had not read when it closed makes the machine say so.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
        bytes
    }
}

/// A whole request with its length.
pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, R::header_version(version)).expect("a header that can be encoded");
    request.encode(&mut bytes, version).expect("a request that can be encoded");
    prefixed(&bytes)
}

/// Bytes with their length in front.
pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = (bytes.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}
