//! The suite that every guard passes, whoever wrote it. Each sentence of [`Guard`]'s contract has a case; what a guard does not
//! promise ([`Guard::strength`]) is skipped, with the reason in the table.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use baton_core::TopicPartition;

use crate::{Admission, ApplyError, EffectOf, Group, Guard, GuardError, Identity, Outcome, Place, Pruned, Redelivery};

mod batches;
mod faults;
mod owners;
mod singles;

/// How long a case asks again while a message is in progress or the store is away.
const PATIENCE: Duration = Duration::from_secs(60);

/// A failure of a handler of the suite.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SubjectError(pub String);

/// Where a link is cut: at the n-th time (from 1) that a client's bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// At which time.
    pub at: u32,
    /// Whether those bytes still reach the store; its answer is dropped.
    pub delivered: bool,
}

/// A guard under test, and the store around it.
pub trait Subject: Send + Sync + 'static {
    /// The guard.
    type Guard: Guard;

    /// The guard. All that this returns share their store.
    fn guard(&self) -> &Self::Guard;

    /// Writes an effect of this name, as a handler does.
    fn write(
        &self,
        effect: EffectOf<Self::Guard>,
        name: String,
    ) -> impl Future<Output = Result<(), SubjectError>> + Send;

    /// Runs a statement that the store refuses, as a faulty handler does. `Ok` if there are no statements.
    fn blunder(&self, effect: EffectOf<Self::Guard>) -> impl Future<Output = Result<(), SubjectError>> + Send;

    /// How often an effect of this name is there, on a connection that has nothing to do with the guard.
    fn count(&self, name: &str) -> impl Future<Output = u64> + Send;

    /// Prunes; `None` if marks go by themselves.
    fn prune(
        &self,
        group: &Group,
        kept: Duration,
        redelivery: Redelivery,
    ) -> impl Future<Output = Option<Result<Pruned, GuardError>>> + Send;

    /// Makes all marks of a group look as if they had been made this much earlier.
    fn age(&self, group: &Group, by: Duration) -> impl Future<Output = ()> + Send;

    /// A guard whose links are all cut as described, and a question whether that has happened; `None` if there is no link.
    fn cut(&self, cut: Cut) -> impl Future<Output = Option<CutGuard<Self::Guard>>> + Send;

    /// Kills the store's server (-9) and starts it again on its data; `false` if there is none.
    fn restart(&self) -> impl Future<Output = bool> + Send;
}

/// A guard behind a link that will be cut.
pub struct CutGuard<G> {
    /// The guard.
    pub guard: G,
    /// Whether the link was cut.
    pub was_cut: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It holds.
    Passed,
    /// The guard does not promise it.
    Skipped(&'static str),
    /// It does not hold.
    Failed(String),
}

/// What became of all cases for one guard.
#[derive(Debug, Clone)]
pub struct Report {
    /// The guard.
    pub guard: &'static str,
    /// Case, finding, and how long it took.
    pub rows: Vec<(&'static str, Finding, Duration)>,
}

impl Report {
    /// The cases that do not hold.
    pub fn failures(&self) -> impl Iterator<Item = String> + '_ {
        self.rows.iter().filter_map(|(case, finding, _)| match finding {
            Finding::Failed(why) => Some(format!("{}: {case}: {why}", self.guard)),
            _ => None,
        })
    }
}

/// Guards × cases as a table in Markdown; reasons for what was skipped stand below it.
pub fn table(reports: &[Report]) -> String {
    let mut text = "| case |".to_owned();
    let mut reasons = Vec::new();
    for report in reports {
        let _ = write!(text, " {} |", report.guard);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(reports.len()));
    let cases = reports.first().map_or(&[][..], |report| &report.rows[..]);
    for (case, _, _) in cases {
        let _ = write!(text, "\n| {case} |");
        for report in reports {
            let row = report.rows.iter().find(|(name, _, _)| name == case);
            match row.map(|(_, finding, took)| (finding, took)) {
                Some((Finding::Passed, took)) => {
                    let _ = write!(text, " ok, {} ms |", took.as_millis());
                }
                Some((Finding::Failed(_), _)) => text.push_str(" **FAILED** |"),
                Some((Finding::Skipped(reason), _)) => {
                    let at = reasons.iter().position(|known| known == reason).unwrap_or_else(|| {
                        reasons.push(*reason);
                        reasons.len() - 1
                    });
                    let _ = write!(text, " – ({}) |", at + 1);
                }
                None => text.push_str(" not run |"),
            }
        }
    }
    text.push('\n');
    for (at, reason) in reasons.iter().enumerate() {
        let _ = write!(text, "\n({}) {reason}", at + 1);
    }
    text
}

/// Runs all cases, one after the other.
pub async fn run<S: Subject>(subject: &S) -> Report {
    let mut report = Report { guard: subject.guard().name(), rows: Vec::new() };
    for (case, test) in cases::<S>() {
        let began = Instant::now();
        let finding = test(Bench { subject, case, next: AtomicU32::new(0) }).await;
        report.rows.push((case, finding.unwrap_or_else(Finding::Failed), began.elapsed()));
    }
    report
}

type Verdict = Result<Finding, String>;
type Test<S> = for<'a> fn(Bench<'a, S>) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        fn cases<S: Subject>() -> Vec<(&'static str, Test<S>)> {
            vec![$((stringify!($case), |bench| Box::pin($module::$case(bench)))),*]
        }
    };
}

cases!(
    singles::the_first_is_fresh_and_the_second_done,
    singles::two_at_once_are_applied_once,
    singles::a_crowd_is_applied_once,
    singles::aborted_is_fresh_again,
    singles::dropped_is_fresh_again,
    singles::a_failed_handler_leaves_nothing,
    singles::an_error_that_the_handler_passes_over_is_no_half_effect,
    singles::handles_are_dead_after_the_end,
    singles::the_same_id_in_two_groups_is_two_messages,
    singles::ids_are_as_long_and_as_exact_as_they_may_be,
    batches::a_batch_is_applied_together,
    batches::a_batch_with_a_bad_one_applies_the_others,
    batches::two_batches_crosswise_apply_each_once,
    owners::zombies_are_fenced,
    owners::an_open_effect_of_the_owner_before_is_over_after_a_take_over,
    owners::any_order_side_by_side_is_applied_once,
    owners::a_new_epoch_begins_anew,
    owners::pruning_keeps_what_can_come_again,
    owners::the_store_is_set_up_to_keep_what_it_commits,
    faults::a_link_cut_at_any_step_loses_and_doubles_nothing,
    faults::a_batch_cut_at_any_step_loses_and_doubles_nothing,
    faults::a_store_killed_under_an_open_effect_forgets_it,
    faults::a_store_killed_under_load_loses_and_doubles_nothing,
);

/// What a case works with.
struct Bench<'a, S: Subject> {
    subject: &'a S,
    case: &'static str,
    next: AtomicU32,
}

impl<S: Subject> Bench<'_, S> {
    fn group(&self) -> Group {
        self.named_group(self.case)
    }

    #[allow(clippy::unwrap_used, reason = "names of cases are good names of groups")]
    fn named_group(&self, name: &str) -> Group {
        Group::new(name).unwrap()
    }

    /// The next message of this case.
    fn message(&self) -> Identity {
        self.numbered(u64::from(self.next.fetch_add(1, Relaxed)) + 1)
    }

    #[allow(clippy::unwrap_used, reason = "names of cases with a number are good ids")]
    fn numbered(&self, sequence: u64) -> Identity {
        let id = format!("{}-{sequence}", self.case).as_str().try_into().unwrap();
        let mut identity = Identity::new(self.group(), id);
        identity.place = Some(Place { instance: "producer".into(), epoch: 1, partition: self.partition(), sequence });
        identity
    }

    fn partition(&self) -> TopicPartition {
        TopicPartition::new(self.case, 0)
    }

    /// A handler that writes the effect of a message.
    async fn write(&self, effect: EffectOf<S::Guard>, identity: &Identity) -> Result<(), SubjectError> {
        self.subject.write(effect, identity.id.to_string()).await
    }

    async fn begin(&self, identity: &Identity) -> Result<<S::Guard as Guard>::Open, String> {
        let ended = Instant::now() + PATIENCE;
        loop {
            match self.subject.guard().begin(identity).await {
                Ok(Admission::Fresh(open)) => return Ok(open),
                Ok(Admission::InProgress(wait)) if Instant::now() < ended => pause(wait).await,
                Err(error) if error.is_transient() && Instant::now() < ended => pause(Duration::ZERO).await,
                Ok(other) => return Err(format!("{} is {}", identity.id, admission(&other))),
                Err(error) => return Err(format!("{}: {error}", identity.id)),
            }
        }
    }

    /// Applies a message, and asks again as a consumer does until it is decided.
    async fn settle(&self, guard: &S::Guard, identity: &Identity) -> Result<Outcome, String> {
        let ended = Instant::now() + PATIENCE;
        loop {
            let last = match crate::apply(guard, identity, |effect| self.write(effect, identity)).await {
                Ok(Outcome::InProgress(wait)) => {
                    pause(wait).await;
                    "in progress".to_owned()
                }
                Ok(outcome) => return Ok(outcome),
                Err(ApplyError::Begin(error)) if !error.is_transient() => return Err(error.to_string()),
                Err(error) => {
                    pause(Duration::from_millis(20)).await;
                    error.to_string()
                }
            };
            if Instant::now() > ended {
                return Err(format!("{} is undecided after {PATIENCE:?}: {last}", identity.id));
            }
        }
    }

    async fn expect_count(&self, identity: &Identity, expected: u64, when: &str) -> Result<(), String> {
        let count = self.subject.count(identity.id.as_str()).await;
        ensure(count == expected, || format!("{when}: the effect is there {count} times instead of {expected}"))
    }
}

fn admission<O>(admission: &Admission<O>) -> &'static str {
    match admission {
        Admission::Fresh(_) => "fresh",
        Admission::AlreadyDone => "already done",
        Admission::InProgress(_) => "in progress",
        Admission::Fenced => "fenced",
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// Waits as long as the guard said, but no longer than a case has time for.
async fn pause(wait: Duration) {
    tokio::time::sleep(wait.clamp(Duration::from_millis(5), Duration::from_millis(200))).await;
}

/// Why a case about memory is not for a guard that has none.
const REMEMBERS_NOTHING: &str = "the guard remembers nothing: the handler's conditions decide";
/// Why a case about one transaction is not for a guard without.
const NOT_ATOMIC: &str = "the effect is in no transaction with the mark; see the guard's failure window";
