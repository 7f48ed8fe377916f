//! Settings of a running broker: those of its start, and those that were changed since.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{BROKER_SETTINGS, BrokerValues, Definition, Settings, TopicValues, Update};

/// Values changed while the broker runs, by name.
pub(crate) type Changes = BTreeMap<&'static str, String>;

struct Live {
    changed: Changes,
    values: Arc<BrokerValues>,
}

/// The settings as they are now.
pub(crate) struct LiveSettings {
    given: Settings,
    live: RwLock<Live>,
}

impl LiveSettings {
    /// `changed` holds what was changed while an earlier process ran; what no longer fits is left out.
    pub fn new(given: Settings, changed: impl IntoIterator<Item = (String, String)>) -> Self {
        let checked = changed.into_iter().filter_map(|(name, value)| {
            let definition = BROKER_SETTINGS.iter().find(|definition| definition.name == name)?;
            let fits = definition.update == Update::Running && definition.check(&value).is_ok();
            if !fits {
                tracing::warn!(
                    name,
                    value,
                    "a setting changed earlier is not taken by this version and does not count"
                );
            }
            fits.then_some((definition.name, value))
        });
        let changed: Changes = checked.collect();
        let values = Arc::new(values(&given, &changed));
        Self { given, live: RwLock::new(Live { changed, values }) }
    }

    /// All values.
    pub fn values(&self) -> Arc<BrokerValues> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).values.clone()
    }

    /// The values of a topic with these settings of its own.
    pub fn topic(&self, configs: &BTreeMap<String, String>) -> TopicValues {
        TopicValues::new(&self.live.read().unwrap_or_else(PoisonError::into_inner).values, configs)
    }

    /// What was set at the start.
    pub fn given(&self, definition: &Definition) -> Option<&str> {
        self.given.given().get(definition.name).map(String::as_str)
    }

    /// What was changed since.
    pub fn changed(&self) -> Changes {
        self.live.read().unwrap_or_else(PoisonError::into_inner).changed.clone()
    }

    /// Makes `changed`, whose values were checked, count from now on.
    pub fn change(&self, changed: Changes) {
        let values = Arc::new(values(&self.given, &changed));
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Live { changed, values };
    }
}

fn values(given: &Settings, changed: &Changes) -> BrokerValues {
    BrokerValues::new(|definition| {
        let value = changed.get(definition.name).or_else(|| given.given().get(definition.name));
        value.map_or(definition.default, String::as_str)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_counts_before_what_was_given_and_the_rest_is_default() {
        let mut given = Settings::default();
        given.set("message.max.bytes", "1000").expect("taken");
        given.set("num.partitions", "3").expect("taken");
        let stored = [("message.max.bytes", "2000"), ("num.partitions", "9"), ("topics.max", "junk"), ("gone", "1")];
        let live = LiveSettings::new(given, stored.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(live.values().message_bytes_max, 2000);
        assert_eq!(live.values().partitions_default, 3, "only a restart changes it");
        assert_eq!(live.values().topics_max, 10_000);
        live.change(Changes::new());
        assert_eq!(live.values().message_bytes_max, 1000);
    }
}
