//! Frames that are no requests, or nearly.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;

use crate::support::client::{Client, prefixed};
use crate::support::server::Server;
use crate::support::wait_until;
use crate::support::works::{announced, first_served, work};
use crate::{Bystander, MemoryWatch, alone, closed_in_all};

/// Bytes in front of a request's body that hostile tests leave alone: length, API, version and correlation id.
const FRAME_HEAD_BYTES: usize = 12;

fn server() -> Server {
    let server = Server::start_with(&[
        ("group.initial.rebalance.delay.ms", "0"),
        ("partitions.max", "3000"),
        ("topics.max", "1000"),
        ("connections.max.slow.ms", "20000"),
    ]);
    server.client().create_topic("t", 1, &[]);
    server.client().create_topic("bystander", 1, &[]);
    server
}

/// Sends bytes on a connection of their own; returns what comes back until the connection ends.
fn send(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut client = server.client();
    // The broker may have closed already.
    let _ = client.stream.write_all(bytes);
    client.read_to_close()
}

/// The same, but the client ends the connection itself, so that a request that is answered late costs no time.
fn send_and_leave(server: &Server, bytes: &[u8]) {
    let mut client = server.client();
    let _ = client.stream.write_all(bytes);
    let _ = client.stream.shutdown(Shutdown::Write);
    client.read_to_close();
}

/// One frame of each kind of request, in its first and its last version.
fn frames(server: &Server) -> BTreeMap<(i16, i16), Vec<u8>> {
    let mut frames = BTreeMap::new();
    for (key, first, last) in announced(&mut server.client()) {
        for version in [first_served(key, first), last] {
            let mut client: Client = server.client();
            work(&mut client, key, version);
            let sent = client.sent.into_iter().rev().find(|(sent, at, _)| (*sent, *at) == (key as i16, version));
            let (_, _, frame) = sent.expect("the request was made");
            frames.insert((key as i16, version), frame);
        }
    }
    assert!(frames.len() > 45);
    frames
}

#[test]
fn lengths_that_no_request_has_end_the_connection_before_anything_is_allocated() {
    let _alone = alone();
    let server = server();
    let memory = MemoryWatch::start();
    let lengths = [i32::MAX, i32::MAX - 3, -1, i32::MIN, (100 << 20) + 1];
    let mut hostile: Vec<Vec<u8>> = lengths.iter().map(|length| length.to_be_bytes().to_vec()).collect();
    // What speaks something else: the first bytes are no length.
    hostile.push(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n".to_vec());
    hostile.push([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].to_vec());
    hostile.push(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec());
    for bytes in &hostile {
        assert_eq!(send(&server, bytes), [], "{bytes:?}");
    }
    let all = hostile.len() as u64;
    wait_until("each is counted", || server.closed_for("request_size") == all);
    memory.finish("wrong lengths");
}

#[test]
fn a_large_length_costs_only_what_is_sent() {
    let _alone = alone();
    let server = server();
    let memory = MemoryWatch::start();
    // 500 announcements of 100 MiB each, of which nothing comes.
    let clients: Vec<Client> = (0..500)
        .map(|_| {
            let mut client = server.client();
            client.stream.write_all(&(100_i32 << 20).to_be_bytes()).expect("sent");
            client
        })
        .collect();
    server.client().create_topic("others.are.served", 1, &[]);
    drop(clients);
    wait_until("each is counted", || server.closed_for("closed_by_peer_in_request") == 500);
    memory.finish("500 announcements of 100 MiB");
}

#[test]
fn requests_cut_short_anywhere_are_answered_or_end_their_connection() {
    let _alone = alone();
    let server = server();
    let frames = frames(&server);
    wait_until("nobody is connected", || server.metrics()["baton_connections"] == 0.0);
    let before = closed_in_all(&server);
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    let mut sent = 0;
    for frame in frames.values() {
        for end in (1..frame.len()).step_by(3) {
            // Cut, with the length that it had: the rest never comes.
            send_and_leave(&server, &frame[..end]);
            // Cut, with the length that it has: a whole request that ends too early.
            if end >= 4 {
                send_and_leave(&server, &prefixed(&frame[4..end]));
            }
            sent += 1 + u64::from(end >= 4);
        }
    }
    bystander.finish("requests cut short");
    wait_until("each is counted", || closed_in_all(&server) == before + sent + 1);
    assert!(server.closed_for("closed_by_peer_in_request") >= sent / 3, "cut requests");
    assert!(server.closed_for("malformed_request") >= sent / 3, "short requests");
    memory.finish(&format!("{sent} requests cut short"));
}

#[test]
fn counts_of_two_billion_anywhere_are_answered_or_end_their_connection() {
    let _alone = alone();
    let server = server();
    let frames = frames(&server);
    wait_until("nobody is connected", || server.metrics()["baton_connections"] == 0.0);
    let before = closed_in_all(&server);
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    let mut sent = 0;
    for frame in frames.values() {
        for at in FRAME_HEAD_BYTES..frame.len() {
            // As a count of four bytes; and as one of variable length, which takes the place of one byte.
            if at + 4 <= frame.len() {
                let mut wide = frame.clone();
                wide[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
                send_and_leave(&server, &wide);
                sent += 1;
            }
            let compact = [&frame[4..at], &[0xff, 0xff, 0xff, 0xff, 0x07], &frame[at + 1..]].concat();
            send_and_leave(&server, &prefixed(&compact));
            sent += 1;
        }
    }
    bystander.finish("counts of two billion");
    wait_until("each is counted", || closed_in_all(&server) == before + sent + 1);
    assert!(server.closed_for("malformed_request") > sent / 4);
    memory.finish(&format!("{sent} requests with a count of two billion"));
}
