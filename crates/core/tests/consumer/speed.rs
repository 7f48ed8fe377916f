use std::time::Instant;

use baton_core::consumer::*;
use baton_core::{Delivery, Headers};
use bytes::Bytes;

use crate::driver::{assignment, partition};

/// Others' 6 (docs/TESTING.md) and the measurement (e), without I/O: what is held does not grow with what goes past a blocked key.
#[test]
fn a_key_that_is_blocked_for_the_whole_run_costs_bounded_memory_while_a_million_others_flow() {
    let messages = if cfg!(debug_assertions) { 100_000 } else { 2_000_000i64 };
    let mut core = Core::new(Settings { concurrency: Concurrency::Fixed(1_000), ..Settings::default() }, 1).unwrap();
    core.assigned(vec![assignment(0, Some(0))], 0);
    let from = partition(0);
    let payload = Some(Bytes::from_static(b"{\"beans\":100}"));
    let (mut offset, mut done, mut running, mut settled) = (0, 0u64, Vec::new(), 0);
    let (mut blocked, mut metadata_bytes_max) = (None, 0);
    let began = Instant::now();
    while offset < messages {
        let upto = (offset + 500).min(messages);
        let batch = (offset..upto).map(|offset| {
            let key = Some(Bytes::from(((offset * 7_919) % 1_000_000).to_be_bytes().to_vec()));
            let (from, payload, headers) = (from.clone(), payload.clone(), Headers::default());
            Delivery { from, offset, key, payload, headers, timestamp_ms: None, delivered_before: None }
        });
        core.messages(batch.collect(), offset as u64 / 100);
        offset = upto;
        loop {
            while let Some(action) = core.next_action() {
                match action {
                    Action::Start { calls } => {
                        let is_first = |call: &Started| call.messages[0].delivery.offset == 0;
                        blocked = blocked.or(calls.iter().find(|call| is_first(call)).map(|call| call.run));
                        running.extend(calls.iter().filter(|call| !is_first(call)).map(|call| call.run));
                    }
                    Action::Settle { ticket, settlements } => {
                        if let Settlement::Frontier { next, metadata, .. } = &settlements[0] {
                            settled = *next;
                            metadata_bytes_max = metadata_bytes_max.max(metadata.len());
                        }
                        core.confirmed(ticket, Ok(()), offset as u64 / 100);
                    }
                    Action::Pause { .. } => panic!("paused"),
                    _ => {}
                }
            }
            if running.is_empty() {
                break;
            }
            done += running.len() as u64;
            let ended = running.drain(..).map(|run| (run, Outcomes::All(Outcome::Done)));
            core.finished(ended, offset as u64 / 100);
        }
        let held = core.held();
        assert!(held.messages <= 501 && held.lanes <= 501 && held.deadlines <= 1_200, "{held:?}");
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:.0} messages a second on one core, metadata at most {metadata_bytes_max} bytes",
        messages as f64 / seconds
    );
    // Every millionth message has the key that is blocked.
    assert_eq!(done as i64, messages - (messages + 999_999) / 1_000_000);
    assert!(blocked.is_some() && settled == 0 && metadata_bytes_max < 4_096, "{blocked:?} {settled}");
}
