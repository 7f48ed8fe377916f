//! Random bytes, for a while.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use baton_testkit::Random;
use kafka_protocol::messages::ApiVersionsRequest;

use crate::support::client::{Client, frame, prefixed};
use crate::support::server::Server;
use crate::support::wait_until;
use crate::support::works::{announced, first_served, work};
use crate::{Bystander, MemoryWatch, alone, closed_in_all};

/// A number from the environment, for a longer run or the same one again.
fn number(name: &str, otherwise: impl Fn() -> u64) -> u64 {
    std::env::var(name).ok().map_or_else(otherwise, |text| text.parse().expect("a number"))
}

fn random_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("it is after 1970").as_nanos() as u64
}

/// Frames of all kinds of requests.
fn frames(server: &Server) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (key, first, last) in announced(&mut server.client()) {
        for version in first_served(key, first)..=last {
            let mut client = server.client();
            work(&mut client, key, version);
            frames.extend(client.sent.into_iter().map(|(_, _, frame)| frame));
        }
    }
    frames
}

/// Something that a client never sends.
fn noise(random: &mut Random, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; random.index(300) + 1];
    random.fill(&mut bytes);
    match random.below(4) {
        0 => bytes,
        1 => prefixed(&bytes),
        _ => {
            let mut frame = random.pick(frames).expect("there are some").clone();
            for _ in 0..=random.index(4) {
                let at = random.index(frame.len() - 8) + 8;
                frame[at] = random.next_u64() as u8;
            }
            frame
        }
    }
}

#[test]
fn random_bytes_are_answered_or_end_their_connection() {
    let _alone = alone();
    let seed = number("BATON_SEED", random_seed);
    let time = Duration::from_secs(number("BATON_NOISE_SECONDS", || 3));
    println!("BATON_SEED={seed} BATON_NOISE_SECONDS={}", time.as_secs());
    let mut random = Random::new(seed);
    let settings = [("group.initial.rebalance.delay.ms", "0"), ("partitions.max", "3000"), ("topics.max", "1000")];
    let server = Server::start_with(&settings);
    server.client().create_topic("t", 1, &[]);
    server.client().create_topic("bystander", 1, &[]);
    let frames = frames(&server);
    wait_until("nobody is connected", || server.metrics()["baton_connections"] == 0.0);
    let before = closed_in_all(&server);
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < time {
        let mut client: Client = server.client();
        // Behind others, but not before others: it may ask for a long wait, during which those behind it are left unread.
        for correlation_id in 0..random.index(3) as i32 {
            client.stream.write_all(&frame(3, correlation_id, &ApiVersionsRequest::default())).expect("sent");
        }
        // The broker may have had enough of it already.
        let _ = client.stream.write_all(&noise(&mut random, &frames));
        let _ = client.stream.shutdown(Shutdown::Write);
        client.read_to_close();
        sent += 1;
    }
    bystander.finish("random bytes");
    wait_until("each is counted", || closed_in_all(&server) == before + sent + 1);
    memory.finish(&format!("{sent} connections with random bytes"));
}
