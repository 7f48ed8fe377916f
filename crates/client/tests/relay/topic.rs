//! What has come to the topics.

use std::collections::{BTreeMap, HashMap};

use baton_core::stamp::Stamp;

use crate::support::{LONG, World, stamp};

/// A message as it was stored.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) stamp: Stamp,
}

/// Everything in a topic, partition by partition.
pub(crate) async fn read(world: &World, topic: &str, partitions: u32) -> Vec<Came> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        for delivery in world.read(topic, partition).await {
            let stamp = stamp(&delivery);
            let text =
                |bytes: &Option<bytes::Bytes>| String::from_utf8(bytes.clone().unwrap_or_default().to_vec()).unwrap();
            all.push(Came { id: stamp.id.to_string(), key: text(&delivery.key), text: text(&delivery.payload), stamp });
        }
    }
    all
}

/// Waits until so many different messages have come.
pub(crate) async fn wait_for(world: &World, topic: &str, partitions: u32, messages: usize) -> Vec<Came> {
    let began = std::time::Instant::now();
    loop {
        let came = read(world, topic, partitions).await;
        let different: BTreeMap<&str, ()> = came.iter().map(|came| (came.id.as_str(), ())).collect();
        if different.len() >= messages {
            return came;
        }
        assert!(began.elapsed() < LONG, "{} of {messages} messages came", different.len());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What comes twice comes under the same stamp; and of each key, what came first is in the order of the numbers in its text. Gives back how
/// many came again.
pub(crate) fn judge(came: &[Came]) -> usize {
    let mut stamps: HashMap<&str, &Stamp> = HashMap::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut again = 0;
    for one in came {
        if let Some(before) = stamps.insert(&one.id, &one.stamp) {
            assert_eq!(before, &one.stamp, "{} came under two stamps", one.id);
            again += 1;
            continue;
        }
        let number: u64 = one.text.parse().unwrap();
        if let Some(before) = last.insert(&one.key, number) {
            assert!(before < number, "{number} of key {} came after {before}", one.key);
        }
    }
    again
}
