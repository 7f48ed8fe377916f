//! Reports what the consumer saw of messages, beside its work and never in its way; see `docs/EVIDENCE.md`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use baton_core::Report;
use baton_core::consumer::{Core, Witness};
use baton_core::stamp::Instance;
use baton_engine::{Engine, ProducerOptions};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use super::calls::Ended;
use super::driver::Input;
use super::error::ConsumerError;
use super::handle::{Board, Notice};
use crate::producer::clock::wall_ms;
use crate::producer::evidence::{self, Through};
use crate::producer::new_instance;
use crate::producer::random::Random;

/// What a consumer is called in its reports whose group has a name that no instance can have.
const NAMELESS: &str = "consumer";
/// After how long the engine's client gives a report up: longer than one is waited for.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a report waits for others: there is one a second.
const LINGER_MS: u64 = 0;
/// How long the last reports are waited for: longer than one may take.
const LAST_REPORTS_WAIT: Duration = Duration::from_secs(6);
/// How long to wait before the last reports are tried again.
const LAST_REPORTS_PAUSE: Duration = Duration::from_millis(250);

/// Sends what the core's witness has to say. One set of reports is under way at a time.
pub(super) struct Evidence {
    sets: mpsc::Sender<Vec<Report>>,
    reporting: bool,
    board: Arc<Board>,
}

/// Who keeps what was seen, and who sends it.
pub(super) fn start(
    engine: Arc<dyn Engine>,
    group: &Arc<str>,
    answers: UnboundedSender<Input>,
    board: Arc<Board>,
) -> Result<(Witness, Evidence), ConsumerError> {
    let instance = instance(group)?;
    let options = ProducerOptions {
        client_id: format!("{instance}-evidence"),
        linger_ms: LINGER_MS,
        delivery_timeout: DELIVERY_TIMEOUT,
        settings: Vec::new(),
    };
    let failing = {
        let board = board.clone();
        move |cause: &str| board.notice(Notice::EvidenceFailed { cause: cause.into() })
    };
    // Nobody listens only after the consumer has ended.
    let told = move |reports| _ = answers.send(Input::Reported(reports));
    let sets = evidence::start(engine, Through::Own(options), failing, told);
    let seed = RandomState::new().hash_one(std::process::id());
    Ok((Witness::new(instance, group.clone(), seed), Evidence { sets, reporting: false, board }))
}

fn instance(group: &str) -> Result<Instance, ConsumerError> {
    let mut random = Random::new().map_err(|error| ConsumerError::Random(error.to_string()))?;
    let named: String = group.chars().filter(|each| each.is_ascii_graphic() && *each != ';').collect();
    let instance = new_instance(&named, &mut random).or_else(|| new_instance(NAMELESS, &mut random));
    instance.ok_or_else(|| ConsumerError::Random("it makes no name".to_owned()))
}

impl Evidence {
    /// When there is something to do.
    pub fn due_ms(&self, core: &Core) -> Option<u64> {
        core.report_due_ms().filter(|_| !self.reporting)
    }

    /// Sends reports if they are due.
    pub fn report(&mut self, core: &mut Core, now_ms: u64) {
        if self.due_ms(core).is_some_and(|due_ms| due_ms <= now_ms) {
            self.send(core, now_ms);
        }
    }

    fn send(&mut self, core: &mut Core, now_ms: u64) {
        let Some(witness) = core.witness() else { return };
        let reports = witness.take_reports(wall_ms());
        if reports.is_empty() {
            return;
        }
        match self.sets.try_send(reports) {
            Ok(()) => self.reporting = true,
            // The task that sends has ended with the runtime.
            Err(mpsc::error::TrySendError::Full(reports) | mpsc::error::TrySendError::Closed(reports)) => {
                reports.into_iter().for_each(|report| witness.reported(report, false, now_ms));
            }
        }
    }

    /// What became of reports. What failed goes into the next ones.
    pub fn reported(&mut self, reports: Vec<(Report, bool)>, core: &mut Core, now_ms: u64) {
        self.reporting = false;
        let failed = reports.iter().filter(|(_, stored)| !stored).count();
        self.board.reports_failed(failed as u64);
        let Some(witness) = core.witness() else { return };
        reports.into_iter().for_each(|(report, stored)| witness.reported(report, stored, now_ms));
    }

    /// The end: all that is known is reported, and waited for, within a bound.
    pub async fn flush(mut self, core: &mut Core, mut inputs: UnboundedReceiver<Input>, now_ms: u64) {
        let until = Instant::now() + LAST_REPORTS_WAIT;
        loop {
            // Calls that were told to stop, and had committed.
            while let Ok(input) = inputs.try_recv() {
                self.hear(input, core, now_ms);
            }
            if !self.reporting {
                self.send(core, now_ms);
            }
            if !self.reporting {
                return;
            }
            let Ok(Some(input)) = tokio::time::timeout_at(until, inputs.recv()).await else { return };
            let failed = matches!(&input, Input::Reported(reports) if reports.iter().any(|(_, stored)| !stored));
            self.hear(input, core, now_ms);
            if failed && tokio::time::timeout_at(until, tokio::time::sleep(LAST_REPORTS_PAUSE)).await.is_err() {
                return;
            }
        }
    }

    fn hear(&mut self, input: Input, core: &mut Core, now_ms: u64) {
        match input {
            Input::Reported(reports) => self.reported(reports, core, now_ms),
            Input::Ran(ran) => certain(&ran.into_ended(), core, now_ms),
            Input::Ended(ended) => certain(&ended, core, now_ms),
            _ => {}
        }
    }
}

/// Tells the core's witness what became certain in calls.
pub(super) fn certain(ended: &Ended, core: &mut Core, now_ms: u64) {
    if let Some(witness) = core.witness() {
        ended.certain.iter().for_each(|(delivery, seen)| witness.saw(delivery, *seen, now_ms));
    }
}
