//! What the demonstration says in the end.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::BEANS_PER_ORDER;
use super::count::Count;
use crate::colour::{Colour, coloured};

/// The figures, and whether they are what was promised.
pub(super) struct Verdict {
    pub count: Count,
    pub orders: u64,
    pub consumer_kills: u64,
    pub broker_kills: u64,
    /// Redeliveries that the inbox kept out, as each consumer said last before it was killed: no fewer than these.
    pub absorbed: u64,
    pub took: Duration,
}

impl Verdict {
    /// Every order was acknowledged and applied once.
    pub(super) fn holds(&self) -> bool {
        let expected = Count {
            sent: self.orders,
            applied: self.orders,
            beans: self.orders * BEANS_PER_ORDER,
            twice: 0,
            missing: 0,
            unknown: 0,
        };
        self.count == expected
    }

    pub(super) fn json(&self) -> String {
        let Count { sent, applied, beans, twice, missing, unknown } = self.count;
        let verdict = json!({
            "orders": self.orders,
            "orders_sent": sent,
            "orders_applied": applied,
            "beans": beans,
            "applied_twice": twice,
            "missing": missing,
            "applied_without_receipt": unknown,
            "redeliveries_absorbed": self.absorbed,
            "consumer_kills": self.consumer_kills,
            "broker_kills": self.broker_kills,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "holds": self.holds(),
        });
        format!("{verdict:#}\n")
    }

    pub(super) fn text(&self) -> String {
        let Count { sent, applied, beans, twice, missing, unknown } = self.count;
        let mut text = "\nCounted in the databases with plain SQL:\n\n".to_owned();
        let mut line = |name: &str, figure: u64| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<38}{:>11}", grouped(figure));
        };
        line("orders sent, with a receipt", sent);
        line("orders applied", applied);
        line("beans, 100 for each order", beans);
        line("orders applied twice", twice);
        line("orders missing", missing);
        if unknown > 0 {
            line("orders applied without a receipt", unknown);
        }
        line("redeliveries that the inbox kept out", self.absorbed);
        let took = format!("{}.{} s", self.took.as_secs(), self.took.subsec_millis() / 100);
        let (kills, brokers) = (self.consumer_kills, self.broker_kills);
        let (colour, verdict) = match self.holds() {
            true => (Colour::Good, "Every order was applied once: none lost, none twice."),
            false => (Colour::Bad, "THE PROMISE DID NOT HOLD."),
        };
        let verdict = coloured(colour, verdict);
        let _ = writeln!(text, "\n{verdict} Kills: consumer {kills}, broker {brokers}. It took {took}.");
        text
    }
}

/// `1,000,000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(count: Count) -> Verdict {
        let took = Duration::from_millis(15_432);
        Verdict { count, orders: 1_000, consumer_kills: 5, broker_kills: 1, absorbed: 17, took }
    }

    const FINE: Count = Count { sent: 1_000, applied: 1_000, beans: 100_000, twice: 0, missing: 0, unknown: 0 };

    #[test]
    fn anything_that_is_not_once_breaks_the_promise() {
        assert!(verdict(FINE).holds());
        let wrong = [
            Count { sent: 999, ..FINE },
            Count { applied: 999, ..FINE },
            Count { beans: 100_100, ..FINE },
            Count { twice: 1, ..FINE },
            Count { missing: 1, ..FINE },
            Count { unknown: 1, ..FINE },
        ];
        for count in wrong {
            assert!(!verdict(count).holds(), "{count:?}");
            assert!(verdict(count).text().contains("DID NOT HOLD"), "{count:?}");
        }
        assert!(verdict(FINE).text().contains("Every order was applied once"));
    }

    #[test]
    fn large_numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
