//! All settings: one table that parsing, `DescribeConfigs`, `AlterConfigs` and the documentation are made from.
//!
//! What Apache Kafka has too keeps Kafka's name, and Kafka's default unless the text says otherwise.

mod broker;
mod document;
mod live;
mod topic;
mod unserved;
mod value;

use std::collections::BTreeMap;

use thiserror::Error;

pub use broker::{BROKER_SETTINGS, BrokerValues};
pub use document::document;
pub(crate) use live::LiveSettings;
pub use topic::{TOPIC_SETTINGS, TopicValues};
pub(crate) use topic::{check_topic_configs, find_topic_setting};
pub use value::Kind;

/// Whether a setting can change while the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Only by a restart.
    Restart,
    /// By `AlterConfigs` or `IncrementalAlterConfigs`; the change is durable.
    Running,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// Its value when nothing is set. A topic setting with a `synonym` takes the broker's value instead.
    pub default: &'static str,
    /// Unit of its value; empty where there is none.
    pub unit: &'static str,
    /// Whether it can change while the broker runs.
    pub update: Update,
    /// The broker setting that a topic setting takes its default from.
    pub synonym: Option<&'static str>,
    /// What it means.
    pub document: &'static str,
}

/// Why something was not set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("unknown setting {name:?}{}; docs/SETTINGS.md lists all", did_you_mean(.suggestion))]
    Unknown {
        /// The name.
        name: String,
        /// The name that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// Apache Kafka has this setting; here it would have no effect.
    #[error("{name} is a setting of Apache Kafka that would have no effect here: {reason}")]
    Unserved {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The setting does not take this value; the words are Kafka's.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What it was to be set to.
        value: String,
        /// What it takes.
        reason: String,
    },
    /// No value at all was given; the words are Kafka's.
    #[error("Null value not supported for topic configs: {name}")]
    Null {
        /// The setting.
        name: &'static str,
    },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// The broker's settings as they are given at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Sets `name` to `value`, written as in a configuration file.
    ///
    /// # Errors
    /// When there is no such setting, or it does not take the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let definition = find(BROKER_SETTINGS, name)?;
        let checked = definition.check(value)?;
        self.values.insert(definition.name, checked);
        Ok(())
    }

    /// What was set.
    pub fn given(&self) -> &BTreeMap<&'static str, String> {
        &self.values
    }

    /// All values, those that were not set included.
    pub fn values(&self) -> BrokerValues {
        BrokerValues::new(|definition| self.values.get(definition.name).map_or(definition.default, String::as_str))
    }
}

impl Definition {
    /// The value as it is kept, if the setting takes it.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, value: &str) -> Result<String, SettingError> {
        let value = value.trim();
        let shown = || value.chars().take(VALUE_CHARS_SHOWN_MAX).collect();
        let wrong = |reason| SettingError::Value { name: self.name, value: shown(), reason };
        self.kind.check(value).map(|()| value.to_owned()).map_err(wrong)
    }
}

/// The setting of the broker of this name.
///
/// # Errors
/// When there is none.
pub(crate) fn find_broker_setting(name: &str) -> Result<&'static Definition, SettingError> {
    find(BROKER_SETTINGS, name)
}

fn find(settings: &'static [Definition], name: &str) -> Result<&'static Definition, SettingError> {
    if let Some(definition) = settings.iter().find(|definition| definition.name == name) {
        return Ok(definition);
    }
    let shown = name.chars().take(NAME_CHARS_SHOWN_MAX).collect();
    Err(match unserved::reason(name) {
        Some(reason) => SettingError::Unserved { name: shown, reason },
        None => SettingError::Unknown { name: shown, suggestion: nearest(settings, name) },
    })
}

/// A wrong name or value may be of any length; more of it helps nobody.
const NAME_CHARS_SHOWN_MAX: usize = 100;
const VALUE_CHARS_SHOWN_MAX: usize = 100;
/// Names that differ by more than this are not suggested.
const EDITS_MAX: usize = 6;

fn nearest(settings: &'static [Definition], name: &str) -> Option<&'static str> {
    if name.len() > NAME_CHARS_SHOWN_MAX {
        return None;
    }
    let near = settings.iter().map(|definition| (edits(definition.name, name), definition.name)).min()?;
    (near.0 <= EDITS_MAX.min(near.1.len() / 2)).then_some(near.1)
}

/// Letters to insert, remove or replace to get from one name to the other.
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, byte) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (place, wanted) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != wanted);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Definition> {
        BROKER_SETTINGS.iter().chain(TOPIC_SETTINGS)
    }

    #[test]
    fn every_default_is_a_value_that_its_setting_takes() {
        for definition in all() {
            assert_eq!(definition.check(definition.default).as_deref(), Ok(definition.default), "{}", definition.name);
            assert!(definition.document.len() > 20, "{} is explained", definition.name);
        }
    }

    #[test]
    fn no_name_begins_another_so_that_all_fit_into_one_toml_file() {
        for one in BROKER_SETTINGS {
            let longer = |other: &&Definition| other.name.starts_with(&format!("{}.", one.name));
            assert!(BROKER_SETTINGS.iter().find(longer).is_none(), "{}", one.name);
            assert_eq!(BROKER_SETTINGS.iter().filter(|other| other.name == one.name).count(), 1, "{}", one.name);
        }
    }

    #[test]
    fn topic_settings_take_their_defaults_from_broker_settings_of_the_same_kind() {
        for topic in TOPIC_SETTINGS {
            let broker = find(BROKER_SETTINGS, topic.synonym.expect("each has one")).expect("exists");
            assert_eq!(topic.default, broker.default, "{}", topic.name);
            assert_eq!(topic.kind, broker.kind, "{}", topic.name);
        }
    }

    #[test]
    fn a_wrong_name_is_refused_with_the_nearest_right_one() {
        let mut settings = Settings::default();
        let error = settings.set("num.partition", "3").expect_err("no such setting");
        assert_eq!(
            error.to_string(),
            "unknown setting \"num.partition\" (did you mean num.partitions?); docs/SETTINGS.md lists all"
        );
        let error = settings.set("quite.something.else", "3").expect_err("no such setting");
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_the_setting_takes() {
        let mut settings = Settings::default();
        let wrong = [
            ("num.partitions", "many", "a whole number from 1 to 10000"),
            ("num.partitions", "0", "a whole number from 1 to 10000"),
            ("auto.create.topics.enable", "yes", "true or false"),
            ("log.message.timestamp.type", "Never", "one of CreateTime, LogAppendTime"),
            ("log.retention.ms", "1000", "later version"),
        ];
        for (name, value, reason) in wrong {
            let error = settings.set(name, value).expect_err(name).to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn what_is_set_is_what_counts() {
        let mut settings = Settings::default();
        assert_eq!(settings.values().partitions_default, 1);
        settings.set("num.partitions", " 6 ").expect("taken");
        assert_eq!(settings.values().partitions_default, 6);
        assert_eq!(settings.given().len(), 1);
    }
}
