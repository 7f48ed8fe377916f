//! Which client runs which case, and where Baton is known to differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::CompatError;

/// A client and its suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// kcat, Debian's build on librdkafka 2.0.
    Kcat,
    /// confluent-kafka for Python.
    Python,
    /// The Java client of Apache Kafka.
    Java,
    /// The Rust crate rdkafka.
    Rust,
}

impl Client {
    /// All clients.
    pub const ALL: [Self; 4] = [Self::Kcat, Self::Python, Self::Java, Self::Rust];

    /// The name in files, tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kcat => "kcat",
            Self::Python => "python",
            Self::Java => "java",
            Self::Rust => "rust",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    clients: BTreeSet<Client>,
    #[serde(default)]
    without: BTreeMap<Client, String>,
}

/// The cases of `compat/cases.toml`.
#[derive(Debug)]
pub struct Cases(BTreeMap<String, Row>);

impl Cases {
    /// Reads the file; each case must be run by each client or say why it is not.
    pub fn read(root: &Path) -> Result<Self, CompatError> {
        let text =
            std::fs::read_to_string(root.join("compat/cases.toml")).map_err(CompatError::io("compat/cases.toml"))?;
        Self::parse(&text)
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str) -> Result<Self, CompatError> {
        let wrong = |what: String| CompatError::Description(format!("compat/cases.toml: {what}"));
        let rows: BTreeMap<String, Row> = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for (case, row) in &rows {
            for client in Client::ALL {
                let reason = row.without.get(&client);
                if row.clients.contains(&client) == reason.is_some() {
                    return Err(wrong(format!("{case}: {} must be in either clients or without", client.name())));
                }
                if reason.is_some_and(|reason| reason.trim().is_empty()) {
                    return Err(wrong(format!("{case}: no reason why {} is without it", client.name())));
                }
            }
        }
        Ok(Self(rows))
    }

    /// The cases that this client's suite must have run.
    pub fn of(&self, client: Client) -> BTreeSet<&str> {
        self.0.iter().filter(|(_, row)| row.clients.contains(&client)).map(|(case, _)| case.as_str()).collect()
    }

    /// The names of all cases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The table of `compat/known-differences.md`: cases that must fail on Baton, each with its reason.
#[derive(Debug, Default)]
pub struct KnownDifferences(BTreeMap<(Client, String), String>);

impl KnownDifferences {
    /// Reads the file.
    pub fn read(root: &Path) -> Result<Self, CompatError> {
        let path = "compat/known-differences.md";
        Self::parse(&std::fs::read_to_string(root.join(path)).map_err(CompatError::io(path))?)
    }

    /// Reads rows `| client | case | reason |`; other lines are for people.
    pub fn parse(text: &str) -> Result<Self, CompatError> {
        let mut rows = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [client, case, reason] = cells[..] else { continue };
            let Some(client) = Client::ALL.into_iter().find(|known| known.name() == client) else { continue };
            if reason.is_empty() {
                return Err(CompatError::Description(format!("known-differences.md: {case} has no reason")));
            }
            rows.insert((client, case.trim_matches('`').to_owned()), reason.to_owned());
        }
        Ok(Self(rows))
    }

    /// Why this case differs; `None` when it must not.
    pub fn reason(&self, client: Client, case: &str) -> Option<&str> {
        self.0.get(&(client, case.to_owned())).map(String::as_str)
    }

    /// The cases named for this client.
    pub fn of(&self, client: Client) -> impl Iterator<Item = &str> {
        self.0.keys().filter(move |(of, _)| *of == client).map(|(_, case)| case.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_neither_in_nor_excused_is_refused() {
        let error = Cases::parse("[a]\nclients = ['kcat', 'python', 'java']").unwrap_err().to_string();
        assert!(error.contains("a: rust must be in either"), "{error}");
        let error = Cases::parse("[a]\nclients = ['kcat', 'python', 'java']\nwithout = { rust = ' ' }").unwrap_err();
        assert!(error.to_string().contains("no reason why rust"), "{error}");
        let cases = Cases::parse("[a]\nclients = ['kcat', 'python', 'java']\nwithout = { rust = 'no call' }").unwrap();
        assert_eq!(cases.of(Client::Rust).len(), 0);
        assert_eq!(cases.of(Client::Kcat).into_iter().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_known_difference_needs_a_reason() {
        let text = "# Title\n| client | case | reason |\n|---|---|---|\n| java | `a` | because |\n";
        let known = KnownDifferences::parse(text).unwrap();
        assert_eq!(known.reason(Client::Java, "a"), Some("because"));
        assert_eq!(known.reason(Client::Kcat, "a"), None);
        assert!(KnownDifferences::parse("| java | a |  |").is_err());
    }
}
