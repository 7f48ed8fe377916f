//! What AlterConfigs and IncrementalAlterConfigs share: checks all, then changes under one commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use baton_log::Ticket;
use baton_wire::ErrorCode;
use bytes::Bytes;

use crate::settings::{Definition, SettingError, Update, find_broker_setting, find_topic_setting};
use crate::state::{BrokerState, NODE_ID, tables};
use crate::topics::{self, TopicError};

/// Kafka's numbers for kinds of resources.
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;

/// What happens to a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Set,
    Delete,
    /// Adds words to a list.
    Append,
    /// Takes words out of a list.
    Subtract,
}

/// One setting to change.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub name: String,
    pub operation: Operation,
    /// Without a value only for [`Operation::Delete`].
    pub value: Option<String>,
}

/// A topic or the broker, as the request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    pub kind: i8,
    pub name: String,
}

/// What to change of a resource, or what is wrong with the way it is asked for.
pub(crate) struct Alteration {
    pub resource: Resource,
    pub changes: Result<Vec<Change>, TopicError>,
}

/// How the request is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    /// What is not named goes back to its default.
    pub replace: bool,
    /// Check only.
    pub validate_only: bool,
}

pub(crate) type Outcome = (Resource, Result<(), TopicError>);

/// Checks and makes the changes; returns when they are durable. Each resource is changed as a whole or not at all.
pub(crate) async fn alter(state: &Arc<BrokerState>, alterations: Vec<Alteration>, mode: Mode) -> Vec<Outcome> {
    let resources: Vec<Resource> = alterations.iter().map(|alteration| alteration.resource.clone()).collect();
    let altered = topics::change_catalog(state, move |state| alter_all(state, alterations, mode)).await;
    match altered {
        Ok(outcomes) => outcomes,
        Err(error) => resources.into_iter().map(|resource| (resource, Err(error.clone()))).collect(),
    }
}

fn alter_all(state: &BrokerState, alterations: Vec<Alteration>, mode: Mode) -> (Vec<Outcome>, Option<Ticket>) {
    let mut counts = HashMap::new();
    for alteration in &alterations {
        *counts.entry(alteration.resource.clone()).or_insert(0_usize) += 1;
    }
    let mut last = None;
    let outcomes = alterations.into_iter().map(|Alteration { resource, changes }| {
        let altered = if counts.get(&resource).is_some_and(|count| *count > 1) {
            Err(refused("Each resource must appear at most once."))
        } else {
            changes.and_then(|changes| alter_one(state, &resource, changes, mode))
        };
        let outcome = altered.map(|ticket| last = ticket.or(last));
        (resource, outcome)
    });
    let outcomes = outcomes.collect();
    (outcomes, last)
}

fn alter_one(
    state: &BrokerState,
    resource: &Resource,
    changes: Vec<Change>,
    mode: Mode,
) -> Result<Option<Ticket>, TopicError> {
    check_form(&changes)?;
    match resource.kind {
        TOPIC => alter_topic(state, &resource.name, changes, mode),
        BROKER => {
            check_broker_name(&resource.name)?;
            alter_broker(state, changes, mode)
        }
        other => Err(refused(format!("Unknown resource type {other}"))),
    }
}

/// The rules that hold for every resource; the words are Kafka's.
fn check_form(changes: &[Change]) -> Result<(), TopicError> {
    let mut names = HashSet::new();
    if !changes.iter().all(|change| names.insert(&change.name)) {
        return Err(refused("Error due to duplicate config keys"));
    }
    let without_value = |change: &&Change| change.operation != Operation::Delete && change.value.is_none();
    let nulls: Vec<&str> = changes.iter().filter(without_value).map(|change| &*change.name).collect();
    if nulls.is_empty() { Ok(()) } else { Err(refused(format!("Null value not supported for : {}", nulls.join(", ")))) }
}

/// The empty name means all brokers, which is the same as the one there is.
fn check_broker_name(name: &str) -> Result<(), TopicError> {
    match name.parse::<i32>() {
        _ if name.is_empty() => Ok(()),
        Ok(NODE_ID) => Ok(()),
        Ok(_) => Err(refused(format!("Unexpected broker id, expected {NODE_ID}, but received {name}"))),
        Err(_) => Err(refused(format!("Node id must be an integer, but it is: {name}"))),
    }
}

fn alter_topic(
    state: &BrokerState,
    name: &str,
    changes: Vec<Change>,
    mode: Mode,
) -> Result<Option<Ticket>, TopicError> {
    if name.is_empty() {
        return Err(refused("Default topic resources are not allowed."));
    }
    topics::check_name(name)?;
    let catalog = state.log.catalog();
    let topic = catalog.topic(name);
    let current = topic.map(|topic| topic.configs.clone()).unwrap_or_default();
    let mut configs = if mode.replace { BTreeMap::new() } else { current.clone() };
    for change in changes {
        let definition = find_topic_setting(&change.name).map_err(invalid_config)?;
        match changed(definition, configs.get(definition.name), &change)? {
            Some(value) => configs.insert(change.name, value),
            None => configs.remove(definition.name),
        };
    }
    if topic.is_none() {
        let message = format!("The topic '{name}' does not exist.");
        return Err(TopicError::new(ErrorCode::UnknownTopicOrPartition, message));
    }
    if mode.validate_only || configs == current {
        return Ok(None);
    }
    tracing::info!(topic = name, ?configs, "settings of a topic changed");
    Ok(Some(state.log.set_topic_configs(name, configs)?))
}

fn alter_broker(state: &BrokerState, changes: Vec<Change>, mode: Mode) -> Result<Option<Ticket>, TopicError> {
    let current = state.settings.changed();
    let mut settings = if mode.replace { BTreeMap::new() } else { current.clone() };
    for change in changes {
        let definition = find_broker_setting(&change.name).map_err(invalid_config)?;
        if definition.update == Update::Restart {
            let message = format!("Cannot update these configs dynamically: {}", definition.name);
            return Err(refused(message));
        }
        // Kafka's code for a wrong value of a broker; a topic's is INVALID_CONFIG.
        let value =
            changed(definition, settings.get(definition.name), &change).map_err(|error| refused(error.message))?;
        match value {
            Some(value) => settings.insert(definition.name, value),
            None => settings.remove(definition.name),
        };
    }
    if mode.validate_only || settings == current {
        return Ok(None);
    }
    let key = |name: &'static str| Bytes::from_static(name.as_bytes());
    let gone = current.keys().filter(|name| !settings.contains_key(*name)).map(|name| (key(name), None));
    let there = settings.iter().map(|(name, value)| (key(name), Some(Bytes::from(value.clone()))));
    let ticket = state.log.write_table(tables::BROKER_SETTINGS, gone.chain(there).collect())?;
    tracing::info!(?settings, "settings of the broker changed");
    // Counts before it is durable: if it does not become so, the log has stopped, and only a restart helps.
    state.settings.change(settings);
    Ok(Some(ticket))
}

/// What the setting's own value becomes; none when its default counts from now on.
fn changed(definition: &Definition, current: Option<&String>, change: &Change) -> Result<Option<String>, TopicError> {
    // Checked by `check_form`: only a deletion has none.
    let value = change.value.as_deref().unwrap_or_default();
    let words = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut list = words(current.map_or(definition.default, String::as_str));
    let value = match change.operation {
        Operation::Delete => return Ok(None),
        Operation::Set => value.to_owned(),
        Operation::Append | Operation::Subtract if !definition.kind.is_list() => {
            let operation = if change.operation == Operation::Append { "APPEND" } else { "SUBTRACT" };
            let name = definition.name;
            let message = format!("Can't {operation} to key {name} because its type is not LIST.");
            return Err(TopicError::new(ErrorCode::InvalidConfig, message));
        }
        Operation::Append => {
            let new: Vec<String> = words(value).into_iter().filter(|word| !list.contains(word)).collect();
            list.extend(new);
            list.join(",")
        }
        Operation::Subtract => {
            let gone = words(value);
            list.retain(|word| !gone.contains(word));
            list.join(",")
        }
    };
    definition.check(&value).map(Some).map_err(invalid_config)
}

fn invalid_config(error: SettingError) -> TopicError {
    TopicError::new(ErrorCode::InvalidConfig, error.to_string())
}

/// A refusal with INVALID_REQUEST.
pub(crate) fn refused(message: impl Into<String>) -> TopicError {
    TopicError::new(ErrorCode::InvalidRequest, message)
}
