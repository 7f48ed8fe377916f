//! Judges what the suites printed.

use std::collections::BTreeMap;

use crate::cases::{Cases, Client, KnownDifferences};

/// How a case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It passed in so many seconds.
    Passed(f64),
    /// It failed, with the suite's reason.
    Failed(String),
}

/// The cases that a suite reported, by name.
pub type Results = BTreeMap<String, Outcome>;

/// Reads the lines `PASS name seconds` and `FAIL name: reason`; any other line is not for us.
pub fn parse(output: &str) -> Results {
    output.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, Outcome)> {
    if let Some(rest) = line.strip_prefix("FAIL ") {
        let (name, reason) = rest.split_once(": ").unwrap_or((rest, "no reason given"));
        return Some((name.to_owned(), Outcome::Failed(reason.to_owned())));
    }
    let (name, seconds) = line.strip_prefix("PASS ")?.split_once(' ')?;
    Some((name.to_owned(), Outcome::Passed(seconds.parse().ok()?)))
}

/// Everything that is wrong with these results; empty when the client behaves alike on both servers.
pub fn judge(client: Client, cases: &Cases, known: &KnownDifferences, kafka: &Results, baton: &Results) -> Vec<String> {
    let expected = cases.of(client);
    let mut problems = Vec::new();
    for (server, results) in [("kafka", kafka), ("baton", baton)] {
        for case in &expected {
            if !results.contains_key(*case) {
                problems.push(format!("{server}: {case} did not run"));
            }
        }
        for case in results.keys().filter(|case| !expected.contains(case.as_str())) {
            problems.push(format!("{server}: {case} is not in compat/cases.toml for {}", client.name()));
        }
    }
    for (case, outcome) in kafka {
        if let Outcome::Failed(reason) = outcome {
            problems.push(format!("kafka: {case}: {reason}"));
        }
    }
    for (case, outcome) in baton {
        match (outcome, known.reason(client, case)) {
            (Outcome::Failed(reason), None) => problems.push(format!("baton: {case}: {reason}")),
            (Outcome::Passed(_), Some(_)) => {
                problems.push(format!("baton: {case} passes; take it out of compat/known-differences.md"));
            }
            _ => {}
        }
    }
    let stale = known.of(client).filter(|case| !expected.contains(case));
    problems.extend(stale.map(|case| format!("compat/known-differences.md names {case}, which is no case")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: &str =
        "[a]\nclients = ['kcat', 'python', 'java', 'rust']\n[b]\nclients = ['kcat', 'python', 'java', 'rust']";

    fn judged(known: &str, kafka: &str, baton: &str) -> Vec<String> {
        let known = KnownDifferences::parse(known).unwrap();
        judge(Client::Rust, &Cases::parse(CASES).unwrap(), &known, &parse(kafka), &parse(baton))
    }

    #[test]
    fn equal_passes_are_no_problem() {
        assert_eq!(judged("", "PASS a 0.1\nPASS b 2.0\n", "noise\nPASS b 0.1\nPASS a 2.0"), Vec::<String>::new());
    }

    #[test]
    fn a_case_that_did_not_run_is_a_problem() {
        assert_eq!(judged("", "PASS a 0.1\nPASS b 1.0", "PASS a 0.1"), ["baton: b did not run"]);
        assert_eq!(judged("", "PASS a 0.1\nPASS b 1.0", "PASS a 0.1\nPASS b"), ["baton: b did not run"]);
    }

    #[test]
    fn a_case_that_no_one_expects_is_a_problem() {
        let problems = judged("", "PASS a 0.1\nPASS b 1.0\nPASS c 1.0", "PASS a 0.1\nPASS b 1.0");
        assert_eq!(problems, ["kafka: c is not in compat/cases.toml for rust"]);
    }

    #[test]
    fn failures_are_problems_unless_known_on_baton() {
        let failed = "PASS a 0.1\nFAIL b: expected 1: got 2";
        let passed = "PASS a 0.1\nPASS b 1.0";
        assert_eq!(judged("", failed, passed), ["kafka: b: expected 1: got 2"]);
        assert_eq!(judged("", passed, failed), ["baton: b: expected 1: got 2"]);
        assert_eq!(judged("| rust | b | not served yet |", passed, failed), Vec::<String>::new());
        assert_eq!(judged("| rust | b | not served yet |", failed, passed).len(), 2);
    }

    #[test]
    fn a_known_difference_that_is_gone_must_be_taken_out() {
        let passed = "PASS a 0.1\nPASS b 1.0";
        assert_eq!(
            judged("| rust | b | not served yet |", passed, passed),
            ["baton: b passes; take it out of compat/known-differences.md"]
        );
        assert_eq!(
            judged("| rust | c | not served yet |", passed, passed),
            ["compat/known-differences.md names c, which is no case"]
        );
    }
}
