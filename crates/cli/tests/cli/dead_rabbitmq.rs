//! `baton dead` on a real RabbitMQ.

use baton::TopicSpec;
use baton_testkit::servers::Server;

use crate::letters::{DEAD, WAIT, World, eventually, ids};

/// Nobody is subscribed to the topic of dead letters, which RabbitMQ would therefore not keep.
#[tokio::test(flavor = "multi_thread")]
async fn letters_are_kept_looked_at_without_losing_any_and_leave_their_queue_when_they_are_sent() {
    // Time to start on a machine that is busy with other tests.
    let start = || Server::start_with("rabbitmq", &[("WAIT", "240")]);
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let address = format!("amqp://guest:guest@{}/%2f", server.address());
    let world = World::new(server, address, tempfile::tempdir().unwrap(), 1).await;
    world.baton.create_topic(TopicSpec::new(DEAD, 1)).await.unwrap();
    let (code, _, stderr) = world.ran("list", &[]).await;
    assert_eq!(code, Some(1), "looking makes no queue");
    assert!(stderr.contains("--queue-of"), "{stderr}");
    // Nobody would get what is sent before there is a queue.
    world.consumer().await.stop(WAIT).await.unwrap();
    world.make_letters().await;
    // However often one looks, they are there.
    for _ in 0..2 {
        assert_eq!(ids(&world.list(&[]).await), ["a", "b", "c"]);
    }
    assert_eq!(world.dead("show", &["b", "--raw"]).await, "beans of b");
    assert!(world.dead("list", &["--key", "key-c"]).await.contains("1 dead letter."));
    assert!(world.dead("replay", &["--dry-run"]).await.contains("3 would be sent."));
    assert_eq!(world.replay(&["--key", "key-b"]).await, (1, 0));
    assert_eq!(ids(&world.list(&[]).await), ["a", "c"], "what was not meant is still there");
    world.repair();
    let running = world.consumer().await;
    eventually("the effect of the one", || world.beans().len() == 1).await;
    assert_eq!(world.replay(&["--rate", "1000"]).await, (2, 0));
    eventually("all effects", || world.beans().len() >= 3).await;
    running.stop(WAIT).await.unwrap();
    assert_eq!(world.beans(), ["beans of a", "beans of b", "beans of c"]);
    assert!(world.list(&[]).await.is_empty());
}
