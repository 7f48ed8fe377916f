//! The engine's side of a consumer: a task that owns the member of the group, so that a settlement that takes its time holds up
//! neither handlers nor their results.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::TopicPartition;
use baton_core::consumer::{BacklogQuestion, RunId, Ticket};
use baton_engine::{ConsumerOptions, Engine, EngineConsumer, EngineError, Event, Settlement};
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use super::backlog;
use super::driver::Input;

/// Events that may wait for the consumer; of messages, each is a batch. Enough that neither side waits for the other.
const EVENTS_WAITING_MAX: usize = 4;
/// How long events are left with the engine by who has plenty to do. Long beside the time in which handlers that do little are through with
/// a batch; short beside what others wait for: other partitions to be handled, the group for partitions that it wants back.
const LEFT_MAX_MS: u64 = 100;
/// How long one call for the next event waits. The member must be called every few seconds.
const NEXT_WAIT: Duration = Duration::from_secs(1);
/// How long leaving the group may take. Longer than the engines' own bounds together: Kafka's client asks for positions for 5 s, says
/// goodbye behind a join that is not answered yet, and waits 5 to 6 s for the answer.
const CLOSE_WAIT: Duration = Duration::from_secs(15);
/// How long to wait after the engine failed, before it is called again.
const FAILED_WAIT: Duration = Duration::from_millis(200);

/// How long events have been left with the engine. However long calls follow each other, something is heard of it now and then.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    until_ms: Option<u64>,
}

impl Leaving {
    /// Whether what comes may be left there for now.
    pub fn may_go_on(&mut self, now_ms: u64) -> bool {
        now_ms < *self.until_ms.get_or_insert(now_ms.saturating_add(LEFT_MAX_MS))
    }

    /// An event was taken.
    pub fn heard(&mut self) {
        self.until_ms = None;
    }
}

/// What the engine is asked to do.
#[derive(Debug)]
pub(super) enum Ask {
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    Seek(TopicPartition, i64),
    Settle(For, Vec<Settlement>),
    Release(Vec<TopicPartition>),
    Backlog(Vec<BacklogQuestion>),
    /// Leave the group and join again.
    Rejoin,
}

/// Whom the answer to a settlement is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum For {
    Core(Ticket),
    /// At most once: the handler begins when its messages are settled.
    Start(RunId),
}

/// What happened, and in the how-manieth membership.
pub(super) type Heard = (u64, Result<Event, EngineError>);

/// The way to the engine's task.
pub(super) struct Link {
    pub asks: UnboundedSender<Sent>,
    pub events: Receiver<Heard>,
    pub task: JoinHandle<Result<(), EngineError>>,
    heard: u64,
    pub membership: u64,
}

/// Something to do, and how many changes of ownership who asked knew of.
pub(super) struct Sent {
    ask: Ask,
    knows: u64,
}

impl Link {
    /// Joins the group.
    pub async fn join(
        engine: Arc<dyn Engine>,
        options: ConsumerOptions,
        inputs: UnboundedSender<Input>,
    ) -> Result<Self, EngineError> {
        let member = engine.consumer(options.clone()).await?;
        let (asks, asked) = mpsc::unbounded_channel();
        let (heard, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let side = Side { engine, options, asked, heard, inputs, changes: 0, changed: HashMap::new(), membership: 1 };
        let task = tokio::spawn(side.serve(member));
        Ok(Self { asks, events, task, heard: 0, membership: 1 })
    }

    /// Asks for something. If the engine's task is gone its events have ended, which is noticed there.
    pub fn ask(&mut self, ask: Ask) {
        if matches!(ask, Ask::Rejoin) {
            self.membership += 1;
        }
        let _ = self.asks.send(Sent { ask, knows: self.heard });
    }

    /// Notes what was heard; `false` if it belongs to a membership that is over.
    pub fn is_current(&mut self, membership: u64, event: &Result<Event, EngineError>) -> bool {
        if changes_owner(event) {
            self.heard += 1;
        }
        membership == self.membership
    }
}

fn changes_owner(event: &Result<Event, EngineError>) -> bool {
    matches!(event, Ok(Event::Assigned(_) | Event::Lost(_)))
}

struct Side {
    engine: Arc<dyn Engine>,
    options: ConsumerOptions,
    asked: UnboundedReceiver<Sent>,
    heard: Sender<Heard>,
    inputs: UnboundedSender<Input>,
    /// Changes of ownership so far, and the last one of each partition: a settlement made by who did not know of it is not passed on.
    changes: u64,
    changed: HashMap<TopicPartition, u64>,
    membership: u64,
}

impl Side {
    async fn serve(mut self, mut member: Box<dyn EngineConsumer>) -> Result<(), EngineError> {
        let heard = self.heard.clone();
        loop {
            let event = tokio::select! {
                biased;
                sent = self.asked.recv() => match sent {
                    None => break,
                    Some(Sent { ask: Ask::Rejoin, .. }) => {
                        let Some(again) = self.rejoin(member).await else { return Ok(()) };
                        member = again;
                        continue;
                    }
                    Some(sent) => {
                        self.carry_out(&mut *member, sent).await;
                        continue;
                    }
                },
                event = next(&heard, &mut *member) => event,
            };
            let Some((permit, event)) = event else { break };
            if changes_owner(&event) {
                self.changes += 1;
            }
            if let Ok(Event::Assigned(assignments)) = &event {
                self.changed.extend(assignments.iter().map(|each| (each.partition.clone(), self.changes)));
            }
            if let Ok(Event::Lost(partitions)) = &event {
                self.changed.extend(partitions.iter().map(|each| (each.clone(), self.changes)));
            }
            let failed = event.is_err();
            permit.send((self.membership, event));
            if failed {
                tokio::time::sleep(FAILED_WAIT).await;
            }
        }
        match tokio::time::timeout(CLOSE_WAIT, member.close()).await {
            Ok(closed) => closed,
            Err(_) => Err(EngineError::Unavailable("leaving the group took too long".to_owned())),
        }
    }

    async fn carry_out(&mut self, member: &mut dyn EngineConsumer, sent: Sent) {
        let done = match sent.ask {
            Ask::Pause(partitions) => member.pause(&partitions),
            Ask::Resume(partitions) => member.resume(&partitions),
            Ask::Seek(partition, offset) => member.seek(&partition, offset).and_then(|()| member.resume(&[partition])),
            Ask::Settle(whom, settlements) => {
                self.settle(member, whom, settlements, sent.knows).await;
                Ok(())
            }
            Ask::Release(partitions) => {
                let released = member.release(&partitions).await;
                for partition in &partitions {
                    self.changed.remove(partition);
                }
                released
            }
            Ask::Backlog(questions) => {
                backlog::ask(member, questions, self.inputs.clone());
                Ok(())
            }
            Ask::Rejoin => Ok(()),
        };
        if let Err(error) = done {
            // Of a partition that just went, mostly: then the event that says so is on its way.
            tracing::debug!(%error, "the engine refused");
        }
    }

    async fn settle(&mut self, member: &mut dyn EngineConsumer, whom: For, settlements: Vec<Settlement>, knows: u64) {
        let changed = &self.changed;
        let known = |settlement: &Settlement| {
            let (Settlement::Frontier { partition, .. }
            | Settlement::Done { partition, .. }
            | Settlement::GiveBack { partition, .. }) = settlement;
            changed.get(partition).is_none_or(|change| *change <= knows)
        };
        let count = settlements.len();
        let settlements: Vec<Settlement> = settlements.into_iter().filter(known).collect();
        let stale = count - settlements.len();
        let result = match settlements.is_empty() {
            true => Ok(()),
            false => member.settle(&settlements).await,
        };
        let result = match (result, stale, whom) {
            (Err(error), ..) => Err(error.to_string().into()),
            (Ok(()), 1.., For::Start(_)) => Err("the partition is not ours any more".into()),
            // The core has not heard yet that these are gone, and will forget them when it does.
            (Ok(()), ..) => Ok(settlements),
        };
        // Nobody listens only after the consumer has ended.
        let _ = self.inputs.send(match whom {
            For::Core(ticket) => Input::Settled(ticket, result),
            For::Start(run) => Input::MayStart(run, result.map(drop)),
        });
    }

    /// Leaves and joins; `None` if the consumer ended meanwhile.
    async fn rejoin(&mut self, member: Box<dyn EngineConsumer>) -> Option<Box<dyn EngineConsumer>> {
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_WAIT, member.close()).await {
            tracing::debug!(%error, "leaving the group before joining again");
        }
        self.membership += 1;
        self.changed.clear();
        loop {
            match self.engine.consumer(self.options.clone()).await {
                Ok(member) => return Some(member),
                Err(error) => {
                    tracing::warn!(%error, group = self.options.group, "joining the group again");
                    tokio::time::sleep(FAILED_WAIT).await;
                    if self.heard.is_closed() {
                        return None;
                    }
                }
            }
        }
    }
}

/// The next event, once there is room for it.
async fn next<'a>(
    heard: &'a Sender<Heard>,
    member: &mut dyn EngineConsumer,
) -> Option<(mpsc::Permit<'a, Heard>, Result<Event, EngineError>)> {
    let permit = heard.reserve().await.ok()?;
    Some((permit, member.next(NEXT_WAIT).await))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_left_for_a_time_and_then_one_is_taken() {
        let mut leaving = Leaving::default();
        assert!(leaving.may_go_on(5));
        assert!(leaving.may_go_on(5 + LEFT_MAX_MS - 1));
        for now_ms in 5 + LEFT_MAX_MS..1_000 {
            assert!(!leaving.may_go_on(now_ms), "until something was heard");
        }
        leaving.heard();
        assert!(leaving.may_go_on(1_000));
        assert!(!leaving.may_go_on(1_000 + LEFT_MAX_MS));
    }
}
