//! Drives a core by hand: keeps what it asked for, and answers.

use std::collections::BTreeMap;

use baton_core::consumer::*;
use baton_core::{Delivery, Headers, Retry, TopicPartition};
use bytes::Bytes;
use std::time::Duration;

pub struct Driver {
    pub core: Core,
    pub now_ms: u64,
    /// Handlers that run, oldest first, with the offsets of their messages.
    pub running: BTreeMap<RunId, Vec<Handed>>,
    pub cancelled: Vec<RunId>,
    pub settles: Vec<(Ticket, Vec<Settlement>)>,
    pub letters: Vec<(Ticket, DeadLetter)>,
    pub parks: Vec<(Ticket, Bytes, Vec<Parked>)>,
    pub loads: Vec<(Ticket, Bytes)>,
    pub removes: Vec<(Ticket, Bytes, u64)>,
    pub stores: Vec<(Ticket, Vec<u8>)>,
    pub reports: Vec<Report>,
    /// Everything else.
    pub others: Vec<Action>,
}

pub fn partition(number: u32) -> TopicPartition {
    TopicPartition::new("orders", number)
}

pub fn delivery(number: u32, offset: i64, key: &str) -> Delivery {
    Delivery {
        from: partition(number),
        offset,
        key: (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes())),
        payload: Some(Bytes::from_static(b"0123456789")),
        headers: Headers::default(),
        timestamp_ms: None,
        delivered_before: None,
    }
}

pub fn assignment(number: u32, frontier: Option<i64>) -> Assignment {
    Assignment {
        partition: partition(number),
        frontier,
        metadata: String::new(),
        stored_done: Vec::new(),
        epoch: 1,
        parked: Vec::new(),
    }
}

pub fn failure(source: &str) -> Failure {
    Failure::new(source, "it did not work")
}

pub fn transient() -> Outcomes {
    Outcomes::All(Outcome::Transient(failure("database")))
}

/// Retries at once would hide who waits for whom: three attempts, a second at most between them.
pub fn settings() -> Settings {
    let retry = Retry::exponential(Duration::from_secs(1), 1, Duration::from_secs(1)).max_attempts(3);
    Settings { retry, ..Settings::default() }
}

impl Driver {
    pub fn new(settings: Settings) -> Self {
        let core = Core::new(settings, 7).expect("these settings fit together");
        Self {
            core,
            now_ms: 1_000,
            running: BTreeMap::new(),
            cancelled: Vec::new(),
            settles: Vec::new(),
            letters: Vec::new(),
            parks: Vec::new(),
            loads: Vec::new(),
            removes: Vec::new(),
            stores: Vec::new(),
            reports: Vec::new(),
            others: Vec::new(),
        }
    }

    /// With partition 0, from offset 0 on.
    pub fn assigned(settings: Settings) -> Self {
        let mut driver = Self::new(settings);
        driver.assign(assignment(0, Some(0)));
        driver
    }

    pub fn assign(&mut self, assignment: Assignment) {
        self.core.assigned(vec![assignment], self.now_ms);
        self.take();
    }

    pub fn deliver(&mut self, messages: &[(i64, &str)]) {
        self.deliver_to(0, messages);
    }

    pub fn deliver_to(&mut self, number: u32, messages: &[(i64, &str)]) {
        let deliveries = messages.iter().map(|(offset, key)| delivery(number, *offset, key)).collect();
        self.core.messages(deliveries, self.now_ms);
        self.take();
    }

    pub fn take(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Start { calls } => {
                    self.running.extend(calls.into_iter().map(|call| (call.run, call.messages.into_vec())));
                }
                Action::Cancel { run } => self.cancelled.push(run),
                Action::Settle { ticket, settlements } => self.settles.push((ticket, settlements)),
                Action::DeadLetter { ticket, letter } => self.letters.push((ticket, letter)),
                Action::Park { ticket, key, messages, .. } => self.parks.push((ticket, key, messages)),
                Action::LoadParked { ticket, key, .. } => self.loads.push((ticket, key)),
                Action::RemoveParked { ticket, key, up_to, .. } => self.removes.push((ticket, key, up_to)),
                Action::StoreDone { ticket, bytes, .. } => self.stores.push((ticket, bytes)),
                Action::Report(report) => self.reports.push(report),
                other => self.others.push(other),
            }
        }
    }

    /// Offsets with handlers, in the order in which they were started.
    pub fn offsets(&self) -> Vec<i64> {
        self.running.values().flatten().map(|handed| handed.delivery.offset).collect()
    }

    pub fn run_of(&self, offset: i64) -> RunId {
        let with = |messages: &Vec<Handed>| messages.iter().any(|handed| handed.delivery.offset == offset);
        let found = self.running.iter().find(|(_, messages)| with(messages));
        found.map(|(run, _)| *run).unwrap_or_else(|| panic!("nobody handles {offset}, but {:?}", self.offsets()))
    }

    pub fn finish(&mut self, offset: i64, outcomes: Outcomes) {
        let run = self.run_of(offset);
        self.finish_run(run, outcomes);
    }

    pub fn finish_run(&mut self, run: RunId, outcomes: Outcomes) {
        self.running.remove(&run);
        self.core.finished([(run, outcomes)], self.now_ms);
        self.take();
    }

    pub fn done(&mut self, offset: i64) {
        self.finish(offset, Outcomes::All(Outcome::Done));
    }

    pub fn confirm(&mut self, ticket: Ticket) {
        self.core.confirmed(ticket, Ok(()), self.now_ms);
        self.take();
    }

    pub fn refuse(&mut self, ticket: Ticket) {
        self.core.confirmed(ticket, Err("no".into()), self.now_ms);
        self.take();
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.core.tick(self.now_ms);
        self.take();
    }

    /// Lets the next settlement happen, and says what was settled last of partition 0: frontier and metadata.
    pub fn settled(&mut self) -> Option<(i64, String)> {
        let mut last = None;
        for _ in 0..3 {
            self.pass(1_000);
            for (ticket, settlements) in std::mem::take(&mut self.settles) {
                for settlement in settlements {
                    if let Settlement::Frontier { next, metadata, .. } = settlement {
                        last = Some((next, metadata));
                    }
                }
                self.confirm(ticket);
            }
        }
        last
    }

    pub fn settled_next(&mut self) -> Option<i64> {
        self.settled().map(|(next, _)| next)
    }
}
