//! Idempotent producers, over restarts of the broker.

use crate::support::batches::{self, Producer};
use crate::support::requests::{self, ALL};
use crate::support::server::Server;

const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;

fn send(server: &Server, producer: Producer, values: &[&str]) -> (i16, i64) {
    let request = requests::produce("t", 0, ALL, batches::idempotent(producer, values));
    let answer = requests::produced(&server.client().call(requests::PRODUCE, &request));
    (answer.error_code, answer.base_offset)
}

#[test]
fn the_same_batch_again_is_answered_as_before_and_stored_once_also_after_a_restart() {
    let mut server = Server::start();
    server.client().create_topic("t", 1, &[]);
    let id = server.client().producer_id();
    let at = |sequence| Producer { id, epoch: 0, sequence };
    assert_eq!(send(&server, at(0), &["a", "b", "c"]), (0, 0));
    assert_eq!(send(&server, at(3), &["d"]), (0, 3));
    for _ in 0..2 {
        assert_eq!(send(&server, at(0), &["a", "b", "c"]), (0, 0));
        assert_eq!(send(&server, at(3), &["d"]), (0, 3));
        assert_eq!(send(&server, at(5), &["after a gap"]).0, OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(server.client().offset_at("t", -1), 4, "nothing was stored again");
        server = server.restart();
    }
    assert_eq!(send(&server, at(4), &["e"]), (0, 4), "the sequence goes on where it was");
    let all: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(str::to_owned).collect();
    let stored = batches::values(&server.client().fetch("t", 0, 1000).records);
    assert_eq!(stored, (0..).zip(all).collect::<Vec<_>>());
}

#[test]
fn a_newer_incarnation_shuts_the_older_one_out_also_after_a_restart() {
    let mut server = Server::start();
    server.client().create_topic("t", 1, &[]);
    let id = server.client().producer_id();
    assert_eq!(send(&server, Producer { id, epoch: 0, sequence: 0 }, &["old"]), (0, 0));
    assert_eq!(send(&server, Producer { id, epoch: 1, sequence: 0 }, &["new"]), (0, 1));
    for _ in 0..2 {
        assert_eq!(send(&server, Producer { id, epoch: 0, sequence: 1 }, &["old again"]).0, INVALID_PRODUCER_EPOCH);
        server = server.restart();
    }
    assert_eq!(server.client().offset_at("t", -1), 2);
}

#[test]
fn a_producer_id_is_never_given_twice_also_after_a_restart() {
    let mut server = Server::start();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let mut client = server.client();
        for _ in 0..5 {
            let id = client.producer_id();
            assert!(seen.insert(id), "{id} was given before");
        }
        server = server.restart();
    }
}

#[test]
fn transactions_are_refused_in_a_way_that_clients_take_as_final() {
    let server = Server::start();
    let request = requests::init_producer_id().with_transactional_id(Some(requests::text("tx").into()));
    let response = server.client().call(requests::INIT_PRODUCER_ID, &request);
    assert_eq!((response.error_code, response.producer_id.0), (53, -1));
}
