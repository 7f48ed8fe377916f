//! The messages of a run.

use baton_testkit::Random;
use serde::{Deserialize, Serialize};

/// Where orders are sent.
pub const TOPIC: &str = "orders";
/// How many partitions it has: more than there are consumers, so that each has several and a rebalance moves some.
pub const PARTITIONS: u32 = 6;
/// Where orders go that cannot be handled.
pub const DEAD_LETTERS: &str = "orders.dead";
/// Who handles them.
pub const GROUP: &str = "beans-svc";
/// Who reads the dead letters back.
pub const UNDERTAKER: &str = "undertaker";

/// One in so many cannot be handled.
const POISON_EVERY: u64 = 150;
/// The most beans in an order.
const AMOUNT_MAX: u64 = 100;

/// A message's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The customer: the key that keeps orders in order. A key belongs to one life of one producer, so that what is still on its way
    /// from a producer that was killed says nothing about the order of what its next life sends.
    pub key: String,
    /// Which order of this customer, from 1.
    pub number: u64,
    /// Beans.
    pub amount: u64,
    /// Whether the handler refuses it for good.
    pub poison: bool,
}

impl Order {
    /// The next order of a customer.
    pub fn new(key: String, number: u64, random: &mut Random) -> Self {
        let (amount, poison) = (random.between(1, AMOUNT_MAX), random.below(POISON_EVERY) == 0);
        Self { key, number, amount, poison }
    }
}
