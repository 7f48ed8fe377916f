//! The checker over runs that were made up.

use std::fmt::Write as _;

use baton_crash::check;
use rusqlite::Connection;

use crate::places;

/// Two keys. Of the first all is applied; of the second, 1 is poison and dead, 2 has an unknown fate and no effect, 3 was refused
/// for sure, 4 lost its producer and was applied.
const LINES: [&str; 21] = [
    r#"{"kind":"guard","name":"inbox","lease_ms":4000}"#,
    r#"{"kind":"sending","key":"a","number":1,"amount":10,"poison":false}"#,
    r#"{"kind":"receipt","key":"a","number":1}"#,
    r#"{"kind":"sending","key":"a","number":2,"amount":20,"poison":false}"#,
    r#"{"kind":"receipt","key":"a","number":2}"#,
    r#"{"kind":"sending","key":"a","number":3,"amount":30,"poison":false}"#,
    r#"{"kind":"receipt","key":"a","number":3}"#,
    r#"{"kind":"sending","key":"b","number":1,"amount":7,"poison":true}"#,
    r#"{"kind":"receipt","key":"b","number":1}"#,
    r#"{"kind":"dead","key":"b","number":1}"#,
    r#"{"kind":"sending","key":"b","number":2,"amount":8,"poison":false}"#,
    r#"{"kind":"refused","key":"b","number":2,"stored":"unknown","error":"cut"}"#,
    r#"{"kind":"sending","key":"b","number":3,"amount":8,"poison":false}"#,
    r#"{"kind":"refused","key":"b","number":3,"stored":"no","error":"too large"}"#,
    r#"{"kind":"sending","key":"b","number":4,"amount":9,"poison":false}"#,
    r#"{"kind":"owner","member":"c1","partition":"orders-0","epoch":1,"at_ms":1000}"#,
    r#"{"kind":"owner","member":"c2","partition":"orders-0","epoch":2,"at_ms":9000}"#,
    r#"{"kind":"killed","member":"c1"}"#,
    r#"{"kind":"fault","what":"engine killed","hides_commits":false,"from_ms":2000,"to_ms":3000}"#,
    r#"{"kind":"lag","where":"orders-0","behind":0}"#,
    r#"{"kind":"lag","where":"orders-1","behind":0}"#,
];
/// `c1` has the one partition under the fence 1, and `c2` under the fence 2.
const EFFECTS: [(&str, i64, i64, &str); 4] =
    [("a", 1, 10, "c1"), ("b", 4, 9, "c1"), ("a", 2, 20, "c1"), ("a", 3, 30, "c2")];
const TOTALS: [(&str, i64, i64); 2] = [("a", 3, 60), ("b", 1, 9)];

/// A run, to be spoilt.
struct MadeUp {
    lines: Vec<String>,
    effects: Vec<(&'static str, i64, i64, &'static str)>,
    totals: Vec<(&'static str, i64, i64)>,
}

impl MadeUp {
    fn clean() -> Self {
        Self { lines: LINES.map(str::to_owned).to_vec(), effects: EFFECTS.to_vec(), totals: TOTALS.to_vec() }
    }

    fn replaced(mut self, from: &str, to: &str) -> Self {
        let at = self.lines.iter().position(|line| line.contains(from)).expect("the line is there");
        self.lines[at] = self.lines[at].replace(from, to);
        self
    }

    fn without(mut self, line: &str) -> Self {
        let before = self.lines.len();
        self.lines.retain(|kept| !kept.contains(line));
        assert!(self.lines.len() < before, "{line} is there");
        self
    }

    fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    fn claims(self) -> Self {
        self.replaced("inbox", "claim")
    }

    /// How the call of the effect in this position ended, that was asked for then.
    fn ended(self, call: &str, how: &str, asked_ms: u64) -> Self {
        let at_ms = asked_ms + 100;
        self.line(&format!(r#"{{"kind":"ended","call":"{call}","how":"{how}","asked_ms":{asked_ms},"at_ms":{at_ms}}}"#))
    }

    /// One more effect, which the totals know of.
    fn effect(mut self, key: &'static str, number: i64, amount: i64, member: &'static str) -> Self {
        self.effects.push((key, number, amount, member));
        if let Some(total) = self.totals.iter_mut().find(|total| total.0 == key) {
            total.1 += 1;
            total.2 += amount;
        } else {
            self.totals.push((key, 1, amount));
        }
        self
    }

    fn verdict(&self) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for line in &self.lines {
            writeln!(text, "{line}").unwrap();
        }
        // A process that was killed leaves a torn line.
        std::fs::write(folder.path().join("all.jsonl"), text + r#"{"kind":"recei"#).unwrap();
        let path = folder.path().join("effects.db");
        let connection = Connection::open(&path).unwrap();
        let tables =
            "CREATE TABLE effects (position INTEGER, message_key, number, amount, member, call_name, place, epoch);
            CREATE TABLE totals (message_key, messages, amount)";
        connection.execute_batch(tables).unwrap();
        for (at, (key, number, amount, member)) in (1..).zip(&self.effects) {
            let epoch = [("c1", 1), ("c2", 2)].iter().find(|(owner, _)| owner == member).map_or(0, |(_, epoch)| *epoch);
            let sql = "INSERT INTO effects VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'orders-0', ?7)";
            connection.execute(sql, (at, key, number, amount, member, format!("{member}/{at}"), epoch)).unwrap();
        }
        for total in &self.totals {
            connection.execute("INSERT INTO totals VALUES (?1, ?2, ?3)", *total).unwrap();
        }
        drop(connection);
        check(&places(), folder.path(), &format!("sqlite:{}", path.display())).unwrap()
    }

    fn is_clean(&self) {
        let (clean, said) = self.verdict();
        assert!(clean, "{said}");
    }

    fn breaks(&self, rule: &str) {
        let (clean, said) = self.verdict();
        assert!(!clean, "{rule} is not found:\n{said}");
        assert!(said.contains(&format!("\n{rule}: ")), "{rule} is no rule:\n{said}");
        assert!(!said.contains(&format!("\n{rule}: 0")), "{rule} is not what was found:\n{said}");
    }
}

#[test]
fn a_clean_run_passes_with_poison_unknown_fates_and_a_producer_that_died() {
    MadeUp::clean().is_clean();
}

#[test]
fn a_receipt_without_an_effect_or_a_dead_letter_is_a_loss() {
    let mut run = MadeUp::clean();
    run.effects.remove(3);
    run.totals[0] = ("a", 2, 30);
    run.breaks("lost");
    MadeUp::clean().without("\"dead\"").breaks("lost");
}

#[test]
fn a_second_effect_is_a_double() {
    MadeUp::clean().effect("a", 1, 10, "c2").breaks("doubled");
    // Also of a message whose sender never learnt of its fate.
    MadeUp::clean().effect("b", 4, 9, "c2").breaks("doubled");
}

/// With claims; message 1 of `a` was applied by `c1`, whose call ended thus, and again by `c2`.
fn repeated(how: &str, asked_ms: u64) -> MadeUp {
    MadeUp::clean().claims().effect("a", 1, 10, "c2").ended("c1/1", how, asked_ms).ended("c2/5", "marked", 9_100)
}

#[test]
fn a_claim_may_repeat_what_was_under_way_at_a_kill_and_nothing_that_was_marked() {
    MadeUp::clean().claims().effect("a", 1, 10, "c2").effect("b", 4, 9, "c2").is_clean();
    repeated("marked", 1_500).breaks("doubled");
    // A fenced call is marked too: the effect is there.
    repeated("fenced", 1_500).breaks("doubled");
    // Nobody killed the one who applied it first.
    MadeUp::clean().claims().effect("a", 3, 30, "c2").ended("c2/5", "marked", 9_100).breaks("doubled");
}

#[test]
fn a_claim_may_repeat_what_was_cut_off_before_its_partition_was_another_s() {
    repeated("cut off", 8_000).is_clean();
    repeated("cut off", 9_500).breaks("doubled");
    // It had the partition all the time.
    let run = MadeUp::clean().claims().effect("a", 3, 30, "c2").ended("c2/4", "cut off", 9_100);
    run.ended("c2/5", "marked", 9_300).breaks("doubled");
}

#[test]
fn a_claim_may_repeat_what_failed_only_while_the_database_could_not_say_that_it_was_committed() {
    repeated("failed", 2_500).breaks("doubled");
    let hidden =
        |asked_ms| repeated("failed", asked_ms).replaced(r#""hides_commits":false"#, r#""hides_commits":true"#);
    hidden(2_500).is_clean();
    hidden(3_001).breaks("doubled");
    hidden(1_899).breaks("doubled");
}

#[test]
fn a_claim_may_repeat_what_stood_still_for_longer_than_its_lease() {
    let paused_is = |run: MadeUp, who: &str, to_ms: u64| {
        run.line(&format!(r#"{{"kind":"paused","member":"{who}","from_ms":1550,"to_ms":{to_ms}}}"#))
    };
    let paused = |run, to_ms| paused_is(run, "c1", to_ms);
    repeated("lease lost", 1_500).breaks("doubled");
    paused(repeated("lease lost", 1_500), 5_550).is_clean();
    paused(repeated("lease lost", 1_500), 5_549).breaks("doubled");
    paused(repeated("lease lost", 5_600), 5_550).breaks("doubled");
    paused_is(repeated("lease lost", 1_500), "c2", 5_550).breaks("doubled");
    paused_is(repeated("lease lost", 1_500), "everybody", 5_550).is_clean();
}

#[test]
fn nothing_is_applied_under_a_fence_after_its_successor_was_used() {
    let late = || {
        let mut run = MadeUp::clean();
        let first = run.effects.remove(1);
        run.effects.push(first);
        run
    };
    late().breaks("zombies");
    // What was under way when the partition was taken over, a claim cannot take back.
    late().claims().is_clean();
    late().claims().ended("c1/4", "fenced", 8_000).is_clean();
    late().claims().ended("c1/4", "fenced", 9_500).breaks("zombies");
}

#[test]
fn whoever_applies_holds_the_fence() {
    MadeUp::clean().without(r#""kind":"owner","member":"c1""#).breaks("zombies");
    MadeUp::clean()
        .line(r#"{"kind":"owner","member":"c3","partition":"orders-0","epoch":2,"at_ms":9500}"#)
        .breaks("zombies");
}

#[test]
fn effects_of_a_key_out_of_the_order_of_sending_are_found() {
    let mut run = MadeUp::clean();
    run.effects.swap(0, 2);
    run.breaks("out_of_order");
}

#[test]
fn effects_of_what_was_not_sent_or_refused_or_hopeless_are_strangers() {
    MadeUp::clean().effect("c", 1, 5, "c2").breaks("strangers");
    MadeUp::clean().effect("b", 3, 8, "c2").breaks("strangers");
    MadeUp::clean().effect("b", 1, 7, "c2").breaks("strangers");
    let mut other_amount = MadeUp::clean();
    other_amount.effects[0].2 = 11;
    other_amount.totals[0].2 = 61;
    other_amount.breaks("strangers");
}

#[test]
fn half_an_effect_is_torn() {
    let mut run = MadeUp::clean();
    run.totals[0] = ("a", 2, 30);
    run.breaks("torn");
    let mut run = MadeUp::clean();
    run.totals.push(("c", 1, 5));
    run.breaks("torn");
}

#[test]
fn a_dead_letter_needs_a_reason() {
    MadeUp::clean().line(r#"{"kind":"dead","key":"a","number":1}"#).breaks("unexplained_dead_letters");
    MadeUp::clean().line(r#"{"kind":"dead","key":"z","number":1}"#).breaks("unexplained_dead_letters");
}

#[test]
fn what_waits_at_the_end_is_left_behind() {
    MadeUp::clean().replaced("\"behind\":0", "\"behind\":2").breaks("left_behind");
}

#[test]
fn a_run_without_evidence_is_not_clean() {
    for evidence in ["\"killed\"", "\"lag\"", "\"guard\"", "\"receipt\"", "\"owner\""] {
        MadeUp::clean().without(evidence).breaks("nothing_to_judge");
    }
}
