//! Metrics and health.

use kafka_protocol::messages::ApiVersionsRequest;

use crate::support::batches::batch;
use crate::support::requests::{self, ALL};
use crate::support::server::Server;
use crate::support::wait_until;

/// The table of `docs/METRICS.md`, from what the broker serves.
fn table(served: &str) -> String {
    let mut table = "| name | type | meaning |\n|---|---|---|\n".to_owned();
    let mut meaning = "";
    for line in served.lines() {
        if let Some((_, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            meaning = help;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            table.push_str(&format!("| `{name}{suffix}` | {kind} | {} |\n", meaning.trim_end_matches('.')));
        }
    }
    table
}

#[test]
fn the_document_of_the_metrics_lists_what_is_served() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.produce("t", batch(&["a"]));
    client.call(requests::PRODUCE, &requests::produce("t", 9, ALL, batch(&["refused"])));
    let (_, body) = server.http("/metrics");
    let table = table(&body);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.contains(&table), "docs/METRICS.md must hold this table:\n{table}");
}

#[test]
fn work_is_counted_where_it_belongs() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 3, &[]);
    for _ in 0..5 {
        client.produce("t", batch(&["a"]));
    }
    client.call(requests::PRODUCE, &requests::produce("t", 9, ALL, batch(&["refused"])));
    client.fetch("t", 0, 0);
    let metrics = server.metrics();
    assert_eq!(metrics["baton_request_seconds_count{api=\"Produce\"}"], 6.0);
    assert_eq!(metrics["baton_request_seconds_count{api=\"Fetch\"}"], 1.0);
    let refused = "baton_request_errors_total{api=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"}";
    assert_eq!(metrics[refused], 1.0);
    assert_eq!(metrics["baton_log_batches_total"], 5.0);
    // One after the other: each waits for a sync of its own. The topic took one, too.
    assert_eq!(metrics["baton_log_syncs_total"], 6.0);
    assert_eq!(metrics["baton_topics"], 1.0);
    assert_eq!(metrics["baton_partitions"], 3.0);
    assert_eq!(metrics["baton_connections"], 1.0);
    assert!(metrics["baton_received_bytes_total"] > 500.0 && metrics["baton_sent_bytes_total"] > 300.0);
    drop(client);
    wait_until("the end of the connection is counted", || server.closed_for("closed_by_peer") == 1);
    assert_eq!(server.metrics()["baton_connections"], 0.0);
}

#[test]
fn a_connection_over_the_limit_is_closed_and_counted() {
    let server = Server::start_with(&[("max.connections", "2")]);
    let mut clients = [server.client(), server.client()];
    for client in &mut clients {
        client.call(3, &ApiVersionsRequest::default());
    }
    let mut third = server.client();
    assert_eq!(third.read_to_close(), []);
    wait_until("the refusal is counted", || server.closed_for("too_many_connections") == 1);
    assert_eq!(server.metrics()["baton_limit_hits_total{setting=\"max.connections\"}"], 1.0);
    drop(clients);
    wait_until("there is room again", || server.metrics()["baton_connections"] == 0.0);
    server.client().create_topic("t", 1, &[]);
}

#[test]
fn health_and_readiness_are_told() {
    let server = Server::start();
    for path in ["/healthz", "/readyz"] {
        let (head, body) = server.http(path);
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert_eq!(body, "ok\n");
    }
    assert!(server.http("/").0.starts_with("HTTP/1.1 404"));
}
