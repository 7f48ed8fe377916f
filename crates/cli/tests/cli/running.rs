//! A broker from its start to its end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::binary::{Serving, ran};

/// ApiVersions, version 0, from a client without a name, with its length before it.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255];

fn ask(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&API_VERSIONS).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 7], "the answer to our request");
}

#[test]
fn the_start_text_says_where_it_listens_and_what_to_type_next() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let serving = Serving::start(&data, &["--metrics", "127.0.0.1:0"]);
    let address = serving.address();
    ask(&mut TcpStream::connect(&address).unwrap());
    let said = &serving.said;
    assert!(said.contains(&format!("kcat -b {address} -t first -C")), "{said}");
    assert!(said.contains(&format!("data       {}", data.canonicalize().unwrap().display())), "{said}");
    assert!(said.contains("metrics    http://127.0.0.1:"), "{said}");
    assert!(said.contains("0 partitions in 0 topics") && said.contains("a new log"), "{said}");
}

#[test]
fn ctrl_c_and_sigterm_drain_and_exit_with_success() {
    let directory = tempfile::tempdir().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let serving = Serving::start(directory.path(), &[]);
        let mut client = TcpStream::connect(serving.address()).unwrap();
        ask(&mut client);
        serving.signal(signal);
        let (code, rest) = serving.ended();
        assert_eq!(code, Some(0), "{rest}");
        assert!(rest.contains("Stopping") && rest.ends_with("Stopped.\n"), "{rest}");
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the connection was closed");
    }
}

/// A client that asks and asks and never reads an answer: its connection cannot be drained.
fn stuck(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let many = API_VERSIONS.repeat(1000);
    while stream.write_all(&many).is_ok() {}
    stream
}

#[test]
fn connections_that_cannot_be_drained_are_cut_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let serving = Serving::start(directory.path(), &["--set", "shutdown.max.ms=300"]);
    let _stuck = stuck(&serving.address());
    serving.signal(Signal::INT);
    let (code, rest) = serving.ended();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("300 ms") && rest.contains("were cut"), "{rest}");
}

#[test]
fn a_second_ctrl_c_stops_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(directory.path(), &["--set", "shutdown.max.ms=600000"]);
    let _stuck = stuck(&serving.address());
    serving.signal(Signal::INT);
    serving.wait_until_it_says("Stopping");
    serving.signal(Signal::INT);
    assert_eq!(serving.ended().0, Some(130));
    // What a stop that was cut short leaves behind can be opened.
    assert!(Serving::start(directory.path(), &[]).said.contains("is ready"));
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let serving = Serving::start(directory.path(), &[]);
    let data = directory.path().to_str().unwrap();
    let (code, stdout, stderr) = ran(&["serve", "--data", data, "--listen", "127.0.0.1:0"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("in use by another process") && stderr.contains(data), "{stderr}");
    ask(&mut TcpStream::connect(serving.address()).unwrap());
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_with_what_to_do() {
    let (code, _, stderr) = ran(&["serve", "--data", "/proc/baton", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/proc/baton cannot be used") && stderr.contains("--data DIR"), "{stderr}");
}

#[test]
fn an_address_that_is_taken_is_refused_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let (code, _, stderr) = ran(&["serve", "--data", directory.path().to_str().unwrap(), "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("cannot listen on {address}")) && stderr.contains("choose another"), "{stderr}");
}

#[test]
fn an_address_that_no_client_could_use_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let (code, _, stderr) = ran(&["serve", "--data", data, "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--advertised-listener"), "{stderr}");
    let serving = Serving::start(directory.path(), &["--advertised-listener", "broker.example:9092"]);
    assert_eq!(serving.address(), "broker.example:9092");
}
