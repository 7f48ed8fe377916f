//! How it is told what became of a record.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{SendError, Stored};

/// What became of a record.
pub type SendOutcome = Result<Stored, SendError>;

/// Who has many records under way, and hears what became of each. Cheaper than a future for each: what comes together is looked at
/// together.
pub trait Answers: Send + Sync {
    /// What became of the record that had this name. Called on threads of the engine, so it must not block.
    fn answer(&self, name: u128, outcome: SendOutcome);
}

/// Where the answer of one record goes. Dropped without one, it says that nobody knows whether the record is stored.
pub struct Answer(Option<To>);

enum To {
    One(oneshot::Sender<SendOutcome>),
    Many(Arc<dyn Answers>, u128),
}

impl Answer {
    /// For who has many records under way. `name` is whatever tells them apart.
    pub fn of(answers: Arc<dyn Answers>, name: u128) -> Self {
        Self(Some(To::Many(answers, name)))
    }

    /// For who waits for one.
    pub fn one() -> (Self, oneshot::Receiver<SendOutcome>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(To::One(sender))), receiver)
    }

    /// Gives it.
    pub fn give(mut self, outcome: SendOutcome) {
        self.tell(outcome);
    }

    /// The record was not handed over: there is nothing to say.
    pub fn withdraw(mut self) {
        self.0 = None;
    }

    fn tell(&mut self, outcome: SendOutcome) {
        match self.0.take() {
            // Nobody listening is fine: the record was handed over all the same.
            Some(To::One(sender)) => _ = sender.send(outcome),
            Some(To::Many(answers, name)) => answers.answer(name, outcome),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.tell(Err(SendError::ended()));
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Answer")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Copies, Durability, Fate, Medium};

    #[derive(Default)]
    struct Heard(Mutex<Vec<(u128, Result<(), Fate>)>>);

    impl Answers for Heard {
        fn answer(&self, name: u128, outcome: SendOutcome) {
            self.0.lock().unwrap().push((name, outcome.map(drop).map_err(|error| error.fate)));
        }
    }

    #[test]
    fn an_answer_is_given_once_and_one_that_is_dropped_says_that_nobody_knows() {
        let heard = Arc::new(Heard::default());
        let answer = |name| Answer::of(heard.clone(), name);
        let durability = Durability { medium: Medium::Disk, copies: Copies::One };
        answer(1).give(Ok(Stored { offset: None, durability }));
        answer(2).withdraw();
        drop(answer(3));
        assert_eq!(*heard.0.lock().unwrap(), [(1, Ok(())), (3, Err(Fate::Unknown))]);
        let (answer, mut one) = Answer::one();
        drop(answer);
        assert!(one.try_recv().unwrap().is_err_and(|error| error.fate == Fate::Unknown));
    }
}
