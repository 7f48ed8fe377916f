//! What came of it.

use std::fmt;
use std::time::Duration;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The engine keeps the rule.
    Passed,
    /// It does not, and this is how.
    Failed(String),
    /// It declares that it cannot.
    Skipped(String),
}

/// One case.
#[derive(Debug, Clone)]
pub struct Row {
    /// The rule.
    pub case: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// All cases of one engine.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which engine.
    pub subject: String,
    /// In the order in which they ran.
    pub rows: Vec<Row>,
}

impl Report {
    /// The cases that failed.
    pub fn failures(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).collect()
    }

    /// The cases that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Skipped(_))).map(|row| row.case).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "| {} | outcome | seconds |\n|---|---|---|", self.subject)?;
        for row in &self.rows {
            let outcome = match &row.outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed(why) => format!("FAILED: {why}"),
                Outcome::Skipped(why) => format!("skipped: {why}"),
            };
            writeln!(formatter, "| {} | {} | {:.1} |", row.case.replace('_', " "), outcome, row.took.as_secs_f64())?;
        }
        Ok(())
    }
}
