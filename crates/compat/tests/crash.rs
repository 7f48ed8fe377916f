//! kill -9 of Baton under load in its short form (`crash --rounds 200` is the long one), and the proof that the checker
//! behind its verdict finds what it is there to find.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

use std::fmt::Write as _;
use std::path::PathBuf;

use baton_compat::crash::{check, run};
use baton_compat::places::Places;
use baton_compat::server::Kind;

const ROUNDS: u32 = 15;

fn places() -> Places {
    Places::find(PathBuf::new()).unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved_when_the_broker_is_killed_under_load() {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let replay = format!("cargo run -p baton-compat --bin crash -- --rounds {ROUNDS} --seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(Kind::Baton, &places(), ROUNDS, seed, folder.path());
    match outcome {
        Ok(report) if report.clean => println!("{replay}\n{}", report.said),
        Ok(report) => panic!("{}histories in {}\nreplay: {replay}", report.said, folder.keep().display()),
        Err(error) => panic!("{error}\nhistories in {}\nreplay: {replay}", folder.keep().display()),
    }
}

/// A clean history of two messages of an idempotent producer and two of another, with one commit.
const CLEAN: [&str; 16] = [
    r#"{"kind":"sent","producer":"a","idempotent":true,"topic":"t","partition":0,"count":2}"#,
    r#"{"kind":"sent","producer":"b","idempotent":false,"topic":"t","partition":0,"count":2}"#,
    r#"{"kind":"acknowledged","producer":"a","topic":"t","partition":0,"number":0,"offset":0,"value":"a:0:0:x"}"#,
    r#"{"kind":"acknowledged","producer":"b","topic":"t","partition":0,"number":0,"offset":1,"value":"b:0:0:x"}"#,
    r#"{"kind":"acknowledged","producer":"a","topic":"t","partition":0,"number":1,"offset":2,"value":"a:0:1:x"}"#,
    r#"{"kind":"read","topic":"t","partition":0,"offset":0,"value":"a:0:0:x"}"#,
    r#"{"kind":"read","topic":"t","partition":0,"offset":1,"value":"b:0:0:x"}"#,
    r#"{"kind":"read","topic":"t","partition":0,"offset":2,"value":"a:0:1:x"}"#,
    r#"{"kind":"committed","topic":"t","partition":0,"offset":2,"at":5}"#,
    r#"{"kind":"found","topic":"t","partition":0,"offset":2,"asked_at":6}"#,
    r#"{"kind":"found","topic":"t","partition":0,"offset":3,"asked_at":7}"#,
    r#"{"kind":"stored","topic":"t","partition":0,"offset":0,"key":"a-0","value":"a:0:0:x"}"#,
    r#"{"kind":"stored","topic":"t","partition":0,"offset":1,"key":"b-0","value":"b:0:0:x"}"#,
    r#"{"kind":"stored","topic":"t","partition":0,"offset":2,"key":"a-0","value":"a:0:1:x"}"#,
    r#"{"kind":"stored","topic":"t","partition":0,"offset":3,"key":"b-0","value":"b:0:0:x"}"#,
    r#"{"kind":"stored","topic":"t","partition":0,"offset":4,"key":"b-0","value":"b:0:1:x"}"#,
];

/// The verdict over the clean history after replacements of text in its lines; a line made empty is left out.
fn verdict(changes: &[(&str, &str)]) -> (bool, String) {
    let mut text = String::new();
    for line in CLEAN {
        let changed = changes.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
        if !changed.is_empty() {
            writeln!(text, "{changed}").unwrap();
        }
    }
    for (from, _) in changes {
        assert!(CLEAN.iter().any(|line| line.contains(from)), "{from} is not in the history");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("history.jsonl"), text).unwrap();
    check(&places(), folder.path()).unwrap()
}

#[test]
fn checker_accepts_a_clean_history_with_a_repeat_of_a_producer_that_is_not_idempotent() {
    let (clean, said) = verdict(&[]);
    assert!(clean, "{said}");
}

#[test]
fn checker_names_each_violation_of_a_doctored_history() {
    let doctored: &[(&str, &[(&str, &str)])] = &[
        ("lost", &[(CLEAN[13], ""), (CLEAN[14], ""), (CLEAN[15], "")]),
        ("two_values", &[(CLEAN[7], &CLEAN[7].replace("a:0:1", "b:0:1"))]),
        ("strangers", &[(CLEAN[15], &CLEAN[15].replace("b:0:1", "b:0:9"))]),
        ("strangers", &[(CLEAN[15], &CLEAN[15].replace("\"b-0\"", "\"b-1\""))]),
        ("strangers", &[(CLEAN[14], "")]),
        ("duplicates", &[(CLEAN[14], &CLEAN[14].replace("b-0", "a-0").replace("b:0:0", "a:0:0"))]),
        (
            "out_of_order",
            &[(CLEAN[12], &CLEAN[12].replace("b:0:0", "b:0:1")), (CLEAN[15], &CLEAN[15].replace("b:0:1", "b:0:0"))],
        ),
        ("commits_back", &[(CLEAN[9], &CLEAN[9].replace("\"offset\":2", "\"offset\":1"))]),
        ("commits_back", &[(CLEAN[10], &CLEAN[10].replace("\"offset\":3", "\"offset\":1"))]),
        ("not_delivered", &[(CLEAN[7], "")]),
        ("nothing_to_judge", &[(CLEAN[8], "")]),
        ("nothing_to_judge", &[(CLEAN[9], r#"{"kind":"failed","producer":"a","error":"timed out"}"#)]),
    ];
    for (rule, changes) in doctored {
        let (clean, said) = verdict(changes);
        assert!(!clean, "{rule} is not found in {changes:?}:\n{said}");
        assert!(!said.contains(&format!("\n{rule}: 0")), "{rule} is not what was found in {changes:?}:\n{said}");
        assert!(said.contains(&format!("\n{rule}: ")), "{rule} is no rule:\n{said}");
    }
}
