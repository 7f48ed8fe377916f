//! Random histories of commits and deletions that end with a loss of power, again and again on the same disk: whatever was
//! confirmed is there, and nothing is there that nobody wrote.

use baton_testkit::Random;

use super::*;

const SEEDS: u64 = 300;
const LIVES: usize = 4;
const STEPS: usize = 60;
const GROUPS: [&str; 3] = ["a", "ab", "b"];
const PARTITIONS: i32 = 3;

/// What one partition of a group can be: the last value known to be durable, then what was asked for and not confirmed.
type Possible = Vec<Option<i64>>;

/// Something asked for: the values it gives to keys, and how many had been asked for before in each.
struct Asked {
    keys: Vec<((usize, i32), usize)>,
    answer: tokio::task::JoinHandle<bool>,
}

#[derive(Default)]
struct Model {
    possible: BTreeMap<(usize, i32), Possible>,
    asked: Vec<Asked>,
}

impl Model {
    fn ask(&mut self, keys: Vec<(usize, i32)>, value: Option<i64>, answer: tokio::task::JoinHandle<bool>) {
        let place = |key| {
            let possible = self.possible.entry(key).or_insert_with(|| vec![None]);
            possible.push(value);
            (key, possible.len() - 1)
        };
        let keys = keys.into_iter().map(place).collect();
        self.asked.push(Asked { keys, answer });
    }

    /// What was confirmed must be there: nothing before it is possible any more.
    async fn hear_answers(&mut self) {
        let mut left = Vec::new();
        for asked in self.asked.drain(..) {
            if !asked.answer.is_finished() {
                left.push(asked);
            } else if asked.answer.await.expect("it runs") {
                for (key, at) in asked.keys {
                    let possible = self.possible.get_mut(&key).expect("it was asked for");
                    possible[..at].fill(None);
                    let certain = possible[at];
                    possible[..at].fill(certain);
                }
            }
        }
        self.asked = left;
    }

    /// After a restart there is one truth for each partition, and it must be a possible one.
    fn settle(&mut self, node: &Node) {
        self.asked.clear();
        for ((group, partition), possible) in &mut self.possible {
            let found = node.fetched(GROUPS[*group], "orders", *partition);
            assert!(possible.contains(&found), "{} {partition}: {found:?}, possible: {possible:?}", GROUPS[*group]);
            *possible = vec![found];
        }
        let all: usize =
            GROUPS.iter().flat_map(|group| node.groups.fetch_all(group)).map(|topic| topic.offsets.len()).sum();
        let expected = self.possible.values().filter(|possible| possible[0].is_some()).count();
        assert_eq!((all, node.groups.metrics().offsets), (expected, expected));
    }
}

fn step(node: &Node, model: &mut Model, dice: &mut Random, next: &mut i64) {
    let group = dice.index(GROUPS.len());
    let partition = dice.below(PARTITIONS as u64) as i32;
    let groups = node.groups.clone();
    match dice.below(10) {
        0 => {
            let answer = async move { groups.delete_groups(&[GROUPS[group]]).await == [ErrorCode::None] };
            let keys = (0..PARTITIONS).map(|partition| (group, partition)).collect();
            model.ask(keys, None, tokio::spawn(answer));
        }
        1 => {
            let answer = async move { groups.delete_offsets(GROUPS[group], &[("orders", partition)]).await.is_ok() };
            model.ask(vec![(group, partition)], None, tokio::spawn(answer));
        }
        _ => {
            *next += 1;
            let offset = node.offset("orders", partition, *next);
            let answer = async move {
                groups.commit(&simple(GROUPS[group]), 9, None, &[offset]).await == Ok(vec![ErrorCode::None])
            };
            model.ask(vec![(group, partition)], Some(*next), tokio::spawn(answer));
        }
    }
}

async fn run(seed: u64) {
    let mut dice = Random::new(seed);
    let mut node = Node::on(SimDisk::new(seed), START_WALL_MS, options(), log_options()).with_topic("orders", 3).await;
    let mut model = Model::default();
    let mut next = 0;
    for _ in 0..LIVES {
        for _ in 0..dice.index(STEPS) {
            step(&node, &mut model, &mut dice, &mut next);
            // Spawned tasks run in the order in which they were spawned, so what was asked first is written first.
            tokio::task::yield_now().await;
            if dice.percent(30) {
                node.log.commit_once();
                tokio::task::yield_now().await;
            }
            model.hear_answers().await;
        }
        node = if dice.coin() { node.after_power_loss() } else { node.after_kill() };
        model.settle(&node);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_is_there_after_every_power_loss() {
    for seed in 0..SEEDS {
        // A failure names the seed.
        let name = tokio::spawn(run(seed)).await;
        assert!(name.is_ok(), "failed with seed {seed}: {name:?}");
    }
}
