//! The suite that every engine passes: a case for each rule of the contract ([`crate::Engine`] and its neighbours). A case that an
//! engine cannot pass by what it declares is skipped, and the report says which and why.
//!
//! ```no_run
//! # async fn example(subject: &dyn baton_engine::conformance::Subject) {
//! let report = baton_engine::conformance::run(subject, |_| true).await;
//! println!("{report}");
//! assert!(report.failures().is_empty());
//! # }
//! ```

mod bench;
mod consuming;
mod groups;
mod outages;
mod report;
mod sending;
mod topics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::TopicPartition;

use self::bench::{Bench, Failure};
pub use self::report::{Outcome, Report, Row};
use crate::{Capabilities, Engine, EngineFuture, Settling};

/// How long one case may take: some wait for members to be put out, or for an engine to start again on a slow machine.
pub const CASE_WAIT: Duration = Duration::from_secs(900);

/// What is put to the test: an engine, and what can be done to it from outside.
pub trait Subject: Send + Sync {
    /// The name in the report.
    fn name(&self) -> String;

    /// The engine.
    fn engine(&self) -> Arc<dyn Engine>;

    /// A producer's settings with which its buffer holds about ten messages.
    fn small_buffer(&self) -> Vec<(String, String)>;

    /// Ends the engine as a crash would, and returns when it is gone. `None` if the engine cannot be taken away.
    fn interrupt(&self) -> Option<EngineFuture<'_, Result<(), String>>>;

    /// Starts the engine again on its data after [`Subject::interrupt`], and returns when it serves.
    fn restore(&self) -> EngineFuture<'_, Result<(), String>>;

    /// Removes what a partition holds before `offset`. `None` if that cannot be done.
    fn remove<'a>(&'a self, partition: &'a TopicPartition, offset: i64)
    -> Option<EngineFuture<'a, Result<(), String>>>;

    /// A consumer's settings with which a member that does not call [`crate::EngineConsumer::next`] any more is put out within half a
    /// minute. `None` if the engine never does that.
    fn short_patience(&self) -> Option<Vec<(String, String)>>;
}

/// What a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// [`Settling::Frontier`].
    Frontier,
    /// [`Settling::Each`].
    Each,
    /// [`Capabilities::reading`].
    Reading,
    /// [`Capabilities::history`].
    History,
    /// No [`Capabilities::history`].
    NoHistory,
    /// [`Capabilities::sharing`].
    Sharing,
    /// [`Subject::interrupt`].
    Interruption,
    /// [`Subject::remove`].
    Removal,
    /// [`Subject::short_patience`].
    Patience,
}

impl Need {
    /// Why it is not there.
    fn missing(self, capabilities: &Capabilities, subject: &dyn Subject) -> Option<&'static str> {
        let anywhere = TopicPartition::new("", 0);
        let (there, why) = match self {
            Self::Frontier => (capabilities.settling == Settling::Frontier, "settles each delivery"),
            Self::Each => (capabilities.settling == Settling::Each, "settles a frontier"),
            Self::Reading => (capabilities.reading, "no reading without a group"),
            Self::History => (capabilities.history, "groups get what is sent after they first subscribed"),
            Self::NoHistory => (!capabilities.history, "keeps history"),
            Self::Sharing => (capabilities.sharing, "partitions stay with their member until it leaves"),
            Self::Interruption => (subject.interrupt_possible(), "cannot be taken away"),
            Self::Removal => (subject.remove(&anywhere, 0).is_some(), "messages cannot be removed"),
            Self::Patience => (subject.short_patience().is_some(), "never puts out a member that is connected"),
        };
        (!there).then_some(why)
    }
}

impl dyn Subject + '_ {
    /// A future that is dropped before it is polled does nothing.
    fn interrupt_possible(&self) -> bool {
        self.interrupt().is_some()
    }
}

type CaseFuture<'a> = EngineFuture<'a, Result<(), Failure>>;

struct Case {
    name: &'static str,
    needs: &'static [Need],
    run: for<'a> fn(&'a Bench<'a>) -> CaseFuture<'a>,
}

/// Builds a case from an async function.
macro_rules! case {
    ($run:path, [$($need:ident),*]) => {
        $crate::conformance::Case {
            name: $crate::conformance::last_segment(stringify!($run)),
            needs: &[$($crate::conformance::Need::$need),*],
            run: |bench| Box::pin($run(bench)),
        }
    };
}
use case;

fn last_segment(path: &'static str) -> &'static str {
    path.rsplit("::").next().unwrap_or(path).trim()
}

fn cases() -> Vec<Case> {
    let mut cases = topics::cases();
    cases.extend(sending::cases());
    cases.extend(consuming::cases());
    cases.extend(groups::cases());
    cases.extend(outages::cases());
    cases
}

/// The names of all cases.
pub fn names() -> Vec<&'static str> {
    cases().iter().map(|case| case.name).collect()
}

/// Runs the cases that `wanted` says, one after the other.
pub async fn run(subject: &dyn Subject, wanted: impl Fn(&str) -> bool) -> Report {
    let capabilities = subject.engine().capabilities();
    let mut rows = Vec::new();
    for case in cases().into_iter().filter(|case| wanted(case.name)) {
        let began = Instant::now();
        let missing = case.needs.iter().find_map(|need| need.missing(&capabilities, subject));
        let outcome = match missing {
            Some(why) => Outcome::Skipped(why.to_owned()),
            None => {
                let bench = Bench::new(subject, case.name);
                match tokio::time::timeout(CASE_WAIT, (case.run)(&bench)).await {
                    Ok(Ok(())) => Outcome::Passed,
                    Ok(Err(failure)) => Outcome::Failed(failure.0),
                    Err(_) => Outcome::Failed(format!("not done after {} s", CASE_WAIT.as_secs())),
                }
            }
        };
        tracing::info!(subject = subject.name(), case = case.name, ?outcome, "conformance");
        rows.push(Row { case: case.name, outcome, took: began.elapsed() });
    }
    Report { subject: subject.name(), rows }
}
