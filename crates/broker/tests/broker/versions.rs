//! Every request that is announced works in every version that is announced.

use std::collections::BTreeMap;
use std::io::Write;

use kafka_protocol::messages::ApiVersionsRequest;

use crate::support::client::frame;
use crate::support::server::Server;
use crate::support::wait_until;
use crate::support::works::{announced, first_served, work};

#[test]
fn every_announced_request_works_in_every_announced_version() {
    let server = Server::start_with(&[("group.initial.rebalance.delay.ms", "0")]);
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    let mut count = 0;
    for (key, first, last) in announced(&mut client) {
        for version in first_served(key, first)..=last {
            let client = &mut server.client();
            work(client, key, version);
            count += 1;
        }
    }
    assert!(count > 130, "{count} versions of requests");
    let errors = server.closed_for("malformed_request") + server.closed_for("unsupported_request");
    assert_eq!(errors, 0);
}

#[test]
fn a_client_from_the_future_is_told_what_there_is() {
    let server = Server::start();
    let mut client = server.client();
    let mut frame = frame(3, 77, &ApiVersionsRequest::default());
    frame[6..8].copy_from_slice(&99_i16.to_be_bytes());
    client.stream.write_all(&frame).expect("sent");
    let answer = client.receive_frame().expect("an answer in version 0, which everybody understands");
    assert_eq!(answer[..6], [0, 0, 0, 77, 0, 35], "correlation id and UNSUPPORTED_VERSION");
    let now: Vec<_> = announced(&mut client);
    assert_eq!(answer[6..10], (now.len() as u32).to_be_bytes());
}

#[test]
fn a_request_or_version_that_is_not_announced_ends_the_connection_and_is_counted() {
    let server = Server::start();
    let all = announced(&mut server.client());
    for (count, (key, version)) in (1..).zip([(0_i16, 2_i16), (0, 99), (1, 3), (3, -1), (24, 0), (999, 0)]) {
        assert!(!all.iter().any(|(known, first, last)| {
            *known as i16 == key && (first_served(*known, *first)..=*last).contains(&version)
        }));
        let mut client = server.client();
        let mut frame = frame(3, 1, &ApiVersionsRequest::default());
        frame[4..6].copy_from_slice(&key.to_be_bytes());
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        client.stream.write_all(&frame).expect("sent");
        assert_eq!(client.read_to_close(), [], "{key} {version}");
        let closed = || server.closed_for("unsupported_request") + server.closed_for("malformed_request");
        wait_until("it is counted", || closed() == count);
    }
}

#[test]
fn the_document_of_the_protocol_lists_what_is_announced() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/PROTOCOL.md");
    let text = std::fs::read_to_string(path).expect("docs/PROTOCOL.md is there");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_matches('`');
        let (first, last) = cells.next()?.split_once('-')?;
        Some((name.to_owned(), (first.parse().ok()?, last.parse().ok()?)))
    });
    let documented: BTreeMap<String, (i16, i16)> = rows.collect();
    let server = Server::start();
    let served = announced(&mut server.client());
    let served = served.iter().map(|(key, first, last)| (format!("{key:?}"), (first_served(*key, *first), *last)));
    assert_eq!(documented, served.collect(), "docs/PROTOCOL.md lists what is served");
}
