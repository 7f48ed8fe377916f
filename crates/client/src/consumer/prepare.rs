//! What has to happen between the assignment of a partition and its first message.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Delivery;
use baton_core::consumer::Assignment;
use baton_guard::Fence;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, Id};

use super::driver::Input;
use super::handle::{Board, Notice};
use super::store::{Offsets, Opened, Place, SideStore};
use super::work::Work;

/// How long to wait before what failed is tried again; doubles. It has no end: without it the partition could not be handled.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A partition that is ours, and not ready yet. Dropped, it is prepared no further.
pub(super) struct Preparing {
    task: AbortHandle,
    /// Messages that came already.
    pub held: Vec<Delivery>,
}

impl Preparing {
    pub fn new(task: AbortHandle) -> Self {
        Self { task, held: Vec::new() }
    }

    /// Whether this is the task that prepares it.
    pub fn is(&self, task: Option<Id>) -> bool {
        Some(self.task.id()) == task
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A partition that is ready.
pub(super) struct Prepared {
    pub assignment: Assignment,
    pub fence: Option<Fence>,
    pub task: Option<Id>,
}

/// Fences off the owner before, then reads what that one left: in this order nothing is added behind our back.
pub(super) struct Preparation {
    pub work: Arc<dyn Work>,
    pub store: Option<Arc<dyn SideStore>>,
    pub place: Place,
    pub offsets: Offsets,
    pub assignment: baton_engine::Assignment,
    pub answers: UnboundedSender<Input>,
    pub board: Arc<Board>,
}

impl Preparation {
    pub async fn run(self) {
        let mut wait = WAIT_MIN;
        let fence = loop {
            match self.work.take_over(self.place.partition.clone()).await {
                Ok(fence) => break fence,
                Err(error) => self.again(&mut wait, "taking over from the owner before", &error.to_string()).await,
            }
        };
        let Opened { done, parked } = match &self.store {
            None => Opened::default(),
            Some(store) => loop {
                match store.open(&self.place, self.offsets).await {
                    Ok(opened) => break opened,
                    Err(error) => self.again(&mut wait, "reading the side store", &error.to_string()).await,
                }
            },
        };
        let baton_engine::Assignment { partition, frontier, metadata, epoch } = self.assignment;
        let assignment = Assignment { partition, frontier, metadata, stored_done: done.to_vec(), epoch, parked };
        let prepared = Prepared { assignment, fence, task: tokio::task::try_id() };
        // Nobody listens only after the consumer has ended.
        let _ = self.answers.send(Input::Prepared(Box::new(prepared)));
    }

    async fn again(&self, wait: &mut Duration, doing: &'static str, cause: &str) {
        let (partition, cause) = (self.place.partition.clone(), Arc::from(cause));
        self.board.notice(Notice::NotReady { partition, doing, cause });
        tokio::time::sleep(*wait).await;
        *wait = (*wait * 2).min(WAIT_MAX);
    }
}
