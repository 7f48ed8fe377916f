//! What services write.

use std::time::{Duration, Instant};

use baton_core::{Message, MessageId};
use baton_outbox::{Duplicate, Outbox, OutboxError};

use crate::database::{Database, numbered, on_each_database};
use crate::finding::{all, look, number};

on_each_database!(
    an_id_that_is_there_is_refused_or_passed_over_as_the_caller_says,
    many_messages_in_one_call_keep_their_order,
    a_message_that_no_relay_could_send_is_refused_before_it_is_written,
    who_waits_is_woken_or_looks_again,
);

fn order(id: &str) -> Message {
    numbered("k", 1).id(MessageId::new(id).unwrap())
}

async fn an_id_that_is_there_is_refused_or_passed_over_as_the_caller_says(database: Database) {
    let mut writer = database.writer().await;
    let ignoring = Outbox::new().on_duplicate(Duplicate::Ignore);
    writer.write(vec![order("order-17")]).await;
    writer.begin().await;
    let refused = writer.enqueue_with(Outbox::new(), vec![order("order-16"), order("order-17")]).await;
    assert!(matches!(&refused, Err(OutboxError::Duplicate(id)) if id == "order-17"), "{refused:?}");
    writer.roll_back().await;
    writer.begin().await;
    let ids = writer.enqueue_with(ignoring, vec![order("order-17"), order("order-18"), order("order-18")]).await;
    assert_eq!(ids.unwrap().len(), 3);
    writer.commit().await;
    let rows = all(&mut *database.store().search(), &look(10)).await;
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["order-17", "order-18"]);
    // Ids that differ in nothing but their case are two.
    writer.write(vec![order("ORDER-17")]).await;
    assert_eq!(database.rows().await, 3);
}

async fn many_messages_in_one_call_keep_their_order(database: Database) {
    let mut writer = database.writer().await;
    let large = |number: u64| if number % 400 == 7 { "x".repeat(900_000) } else { String::new() };
    let message = |number: u64| numbered("k", number).header("large", large(number));
    writer.write((0..1_500).map(message).collect()).await;
    writer.begin().await;
    assert!(writer.enqueue(Vec::new()).await.is_empty());
    writer.commit().await;
    let rows = all(&mut *database.store().search(), &look(500)).await;
    assert_eq!(rows.iter().map(number).collect::<Vec<_>>(), (0..1_500).collect::<Vec<_>>());
}

async fn a_message_that_no_relay_could_send_is_refused_before_it_is_written(database: Database) {
    let mut writer = database.writer().await;
    let wrong = [
        Message::to(""),
        Message::to("t".repeat(256)),
        Message::to("t").payload(vec![0; (16 << 20) + 1]),
        Message::to("t").partition(u32::MAX),
        Message::to("t").header(baton_core::stamp::STAMP_HEADER, "forged"),
    ];
    for message in wrong {
        let refused = writer.enqueue_with(Outbox::new(), vec![message]).await;
        assert!(matches!(refused, Err(OutboxError::Caller(_))), "{refused:?}");
    }
    assert_eq!(database.rows().await, 0);
}

/// As a relay does it: it looks, finds nothing, waits, and looks again.
async fn who_waits_is_woken_or_looks_again(database: Database) {
    let (store, mut writer) = (database.store(), database.writer().await);
    let mut search = store.search();
    let bound = Duration::from_millis(250);
    for round in 0..30 {
        let write = async {
            tokio::time::sleep(Duration::from_millis(round * 2)).await;
            writer.write(vec![numbered("k", round)]).await;
        };
        let find = async {
            loop {
                let rows = all(&mut *search, &look(10)).await;
                if !rows.is_empty() {
                    assert_eq!(number(&rows[0]), round);
                    return;
                }
                store.wait(bound).await.unwrap();
            }
        };
        let both = async { tokio::join!(write, find) };
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("what was written is found");
    }
    let began = Instant::now();
    for _ in 0..3 {
        store.wait(Duration::from_millis(50)).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(5), "who waits does not spin");
}
