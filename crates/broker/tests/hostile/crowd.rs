//! Two thousand clients that ask for nothing, or too slowly, or do not listen.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::messages::ProduceRequest;

use crate::support::batches::batch;
use crate::support::client::{Client, frame};
use crate::support::requests;
use crate::support::server::Server;
use crate::support::wait_until;
use crate::{Bystander, MemoryWatch, alone};

const IDLE: usize = 1450;
const SLOW_SENDERS: usize = 500;
const DEAF: usize = 50;

fn server(idle_ms: &str, slow_ms: &str) -> Server {
    let server = Server::start_with(&[
        ("connections.max.idle.ms", idle_ms),
        ("connections.max.slow.ms", slow_ms),
        ("fetch.max.queued.bytes", "33554432"),
        ("queued.max.request.bytes", "33554432"),
        ("connection.max.unread.bytes", "1048576"),
    ]);
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.create_topic("bystander", 1, &[]);
    // A response holds one batch at least, and 20 of these are more than the sockets of any operating system take.
    let large = "x".repeat(1_000_000);
    for _ in 0..3 {
        client.produce("t", batch(&[large.as_str()]));
    }
    server
}

/// Asks for many megabytes and reads none of them.
fn deaf(server: &Server) -> Client {
    // With a small window of its own, so that the operating system does not take all of it.
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(server.address).await?.into_std()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(connecting).expect("the broker accepts");
    stream.set_nonblocking(false).expect("a socket option");
    let mut client = Client::on(stream);
    for correlation_id in 0..20 {
        let request = requests::fetch("t", 0, 0, 0).with_max_bytes(2 << 20);
        client.stream.write_all(&frame(requests::FETCH, correlation_id, &request)).expect("sent");
    }
    client
}

#[test]
fn two_thousand_idle_and_slow_connections_are_closed_in_time_and_others_are_served_meanwhile() {
    let _alone = alone();
    let server = server("10000", "3000");
    let memory = MemoryWatch::start();
    let bystander = Bystander::start(&server);
    let idle: Vec<Client> = (0..IDLE).map(|_| server.client()).collect();
    let mut slow: Vec<Client> = (0..SLOW_SENDERS).map(|_| server.client()).collect();
    let deaf: Vec<Client> = (0..DEAF).map(|_| deaf(&server)).collect();
    let all = IDLE + SLOW_SENDERS + DEAF;
    wait_until("all are connected", || server.metrics()["baton_connections_accepted_total"] as usize > all);

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A megabyte is announced, and comes byte by byte.
            slow.iter_mut().for_each(|client| client.stream.write_all(&(1_i32 << 20).to_be_bytes()).expect("sent"));
            // The limit ends it also when a wait beside it fails.
            let limit = std::time::Instant::now() + Duration::from_secs(60);
            while !is_over.load(Ordering::Relaxed) && std::time::Instant::now() < limit {
                slow.iter_mut().for_each(|client| drop(client.stream.write_all(&[0])));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        wait_until("slow senders are closed", || server.closed_for("slow_request") as usize == SLOW_SENDERS);
        wait_until("idle ones are closed", || server.closed_for("idle") as usize == IDLE);
        wait_until("deaf ones are closed", || server.closed_for("slow_reader") as usize == DEAF);
        is_over.store(true, Ordering::Relaxed);
    });
    bystander.finish("2,000 idle, slow and deaf connections");
    memory.finish("2,000 idle, slow and deaf connections");
    drop((idle, deaf));
}

#[test]
fn requests_that_arrive_in_part_are_held_within_their_limit_and_others_are_served_meanwhile() {
    let _alone = alone();
    let server = server("60000", "60000");
    let memory = MemoryWatch::start();
    let bystander = Bystander::start(&server);
    let part = vec![0; 64 << 10];
    // 200 times 4 MiB of requests of 50 MiB: far more than the 32 MiB that may be held.
    let senders: Vec<_> = (0..200)
        .map(|_| {
            let mut client = server.client();
            let part = part.clone();
            std::thread::spawn(move || {
                client.stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket option");
                client.stream.write_all(&(50_i32 << 20).to_be_bytes()).expect("sent");
                // Ends when the broker takes no more of it.
                (0..64).take_while(|_| client.stream.write_all(&part).is_ok()).count();
                client
            })
        })
        .collect();
    wait_until("the limit is met", || {
        server.metrics()["baton_limit_hits_total{setting=\"queued.max.request.bytes\"}"] >= 1.0
    });
    let senders: Vec<Client> = senders.into_iter().map(|sender| sender.join().expect("it sends to the end")).collect();
    let held = server.metrics()["baton_queued_request_bytes"];
    assert!(held <= 2.0 * 33_554_432.0, "{held} bytes are held");
    bystander.finish("requests that never end");
    drop(senders);
    wait_until("all is given back", || server.metrics()["baton_queued_request_bytes"] == 0.0);
    memory.finish("requests that never end");
}

#[test]
fn many_large_requests_at_once_are_all_answered_though_they_do_not_fit_into_the_limit_together() {
    let _alone = alone();
    let server = server("60000", "60000");
    let memory = MemoryWatch::start();
    let begun = std::time::Instant::now();
    let large = batch(&["x".repeat(1_000_000).as_str()]);
    let bytes = Arc::new(frame(requests::PRODUCE, 1, &requests::produce("t", 0, requests::ALL, large)));
    let producers: Vec<_> = (0..150)
        .map(|_| {
            let mut client = server.client();
            let bytes = bytes.clone();
            std::thread::spawn(move || {
                // All begin, and none can go on before all have.
                let (beginning, rest) = bytes.split_at(500_000);
                client.stream.write_all(beginning).expect("sent");
                std::thread::sleep(Duration::from_millis(500));
                client.stream.write_all(rest).expect("sent");
                client.receive::<ProduceRequest>(requests::PRODUCE, 1)
            })
        })
        .collect();
    for producer in producers {
        let answer = requests::produced(&producer.join().expect("it is answered"));
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    }
    let hits = server.metrics()["baton_limit_hits_total{setting=\"queued.max.request.bytes\"}"];
    assert!(hits > 20.0, "only {hits} of them met the limit");
    println!("150 requests of 1 MB through a limit of 32 MiB: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(40), "none waits for another to be closed");
    memory.finish("many large requests at once");
}
