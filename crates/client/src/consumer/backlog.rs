//! Asks the engine from time to time what it still has of each partition: for the watchdog, and for who wants to know the lag.

use std::time::Duration;

use baton_core::consumer::{BacklogQuestion, Core};
use baton_engine::{Backlog, EngineConsumer, EngineError, Question};
use tokio::sync::mpsc::UnboundedSender;

use super::driver::Input;

/// How often is asked at most, and at least: a part of the watchdog's bound, so that it is not late because of this.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=5_000;
const ASKED_PER_BOUND: u64 = 6;
/// How long an answer is waited for. Engines take some seconds at most; one that takes longer is asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// What came back.
pub(super) struct Answer {
    questions: Vec<BacklogQuestion>,
    result: Result<Vec<Backlog>, EngineError>,
}

/// When to ask.
pub(super) struct Asking {
    interval_ms: u64,
    due_ms: u64,
    under_way: bool,
}

impl Asking {
    pub fn new(stuck_after_ms: u64) -> Self {
        let interval_ms = (stuck_after_ms / ASKED_PER_BOUND).clamp(*INTERVAL_MS.start(), *INTERVAL_MS.end());
        Self { interval_ms, due_ms: 0, under_way: false }
    }

    /// When to look at this again, unless an answer comes before.
    pub fn due_ms(&self) -> Option<u64> {
        (!self.under_way).then_some(self.due_ms)
    }

    /// What to ask now, if it is time.
    pub fn questions(&mut self, core: &Core, now_ms: u64) -> Option<Vec<BacklogQuestion>> {
        if self.under_way || now_ms < self.due_ms {
            return None;
        }
        self.due_ms = now_ms.saturating_add(self.interval_ms);
        let questions = core.backlog_questions(now_ms);
        self.under_way = !questions.is_empty();
        Some(questions)
    }

    /// Tells the core what came back. What is not known is not told.
    pub fn answered(&mut self, answer: Answer, core: &mut Core, now_ms: u64) {
        self.under_way = false;
        let answers = match answer.result {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(%error, "asking for a backlog");
                return;
            }
        };
        for Backlog { partition, waiting, exact } in answers {
            let asked = answer.questions.binary_search_by(|question| question.partition.cmp(&partition));
            if let Some(question) = asked.ok().and_then(|index| answer.questions.get(index)) {
                core.backlog(question, waiting, exact, now_ms);
            }
        }
    }
}

/// Asks in a task of its own; whatever comes of it, an answer follows.
pub(super) fn ask(member: &mut dyn EngineConsumer, questions: Vec<BacklogQuestion>, inputs: UnboundedSender<Input>) {
    let asked = questions.iter().map(|BacklogQuestion { partition, next, exact }| Question {
        partition: partition.clone(),
        next: *next,
        exact: *exact,
    });
    let answering = member.backlog(asked.collect());
    tokio::spawn(async move {
        let late = || EngineError::Unavailable("no answer".to_owned());
        let result = tokio::time::timeout(ANSWER_WAIT, answering).await.unwrap_or_else(|_| Err(late()));
        // Nobody listens only after the consumer has ended.
        let _ = inputs.send(Input::Backlog(Answer { questions, result }));
    });
}
