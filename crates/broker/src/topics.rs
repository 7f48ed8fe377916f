//! Rules for topics, and their creation; the same wherever a topic comes from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use baton_log::{Catalog, Ticket};
use baton_wire::ErrorCode;

use crate::handlers::produce::append_error_code;
use crate::metrics::Limit;
use crate::state::BrokerState;

/// Longest topic name, in bytes: Kafka's.
const NAME_BYTES_MAX: usize = 249;

/// Why a change of the catalog was refused, in Kafka's code and in words.
#[derive(Debug, Clone)]
pub(crate) struct TopicError {
    pub code: ErrorCode,
    pub message: String,
}

impl TopicError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<baton_log::AppendError> for TopicError {
    fn from(error: baton_log::AppendError) -> Self {
        Self::new(append_error_code(&error), error.to_string())
    }
}

impl From<baton_log::Poisoned> for TopicError {
    fn from(error: baton_log::Poisoned) -> Self {
        Self::new(ErrorCode::KafkaStorageError, error.to_string())
    }
}

/// Whether a topic may have this name; the words are Kafka's.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = match name {
        "" => "Topic name is invalid: the empty string is not allowed".to_owned(),
        "." | ".." => "Topic name is invalid: '.' or '..' is not allowed".to_owned(),
        long if long.len() > NAME_BYTES_MAX => {
            format!(
                "Topic name is invalid: the length of '{long}' is longer than the max allowed length {NAME_BYTES_MAX}"
            )
        }
        odd if !odd.chars().all(legal) => format!(
            "Topic name is invalid: '{odd}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ),
        _ => return Ok(()),
    };
    Err(TopicError::new(ErrorCode::InvalidTopicException, reason))
}

/// What a name is called in metrics, where '.' and '_' are the same.
pub(crate) fn folded(name: &str) -> String {
    name.replace('.', "_")
}

/// How many topics and partitions there are while one change of the catalog is made: those of the catalog as it was found, and
/// those added since. Only within [`change_catalog`].
pub(crate) struct Room<'a> {
    state: &'a BrokerState,
    topics: usize,
    partitions: usize,
}

impl<'a> Room<'a> {
    pub fn new(state: &'a BrokerState, catalog: &Catalog) -> Self {
        Self { state, topics: catalog.topic_count(), partitions: catalog.partition_count() }
    }

    /// Counts topics and partitions that are to be created, or says that there would be too many.
    pub fn take(&mut self, topics: usize, partitions: u32) -> Result<(), TopicError> {
        let values = self.state.settings.values();
        let (topics_max, partitions_max) = (values.topics_max, values.partitions_max);
        if self.topics + topics > topics_max {
            let message = format!("There are {} topics already and topics.max is {topics_max}", self.topics);
            self.state.metrics.limit_hit(Limit::Topics);
            return Err(TopicError::new(ErrorCode::PolicyViolation, message));
        }
        if self.partitions + partitions as usize > partitions_max {
            let message = format!(
                "There are {} partitions already, {partitions} more were asked for, and partitions.max is {partitions_max}",
                self.partitions
            );
            self.state.metrics.limit_hit(Limit::Partitions);
            return Err(TopicError::new(ErrorCode::PolicyViolation, message));
        }
        self.topics += topics;
        self.partitions += partitions as usize;
        Ok(())
    }
}

/// Topics being created by one change of the catalog: checks each against the catalog, and against those before it, which the
/// catalog does not show yet. Only within [`change_catalog`].
pub(crate) struct Creations<'a> {
    state: &'a BrokerState,
    /// As it was found: what is created shows there only bit by bit.
    catalog: Arc<Catalog>,
    room: Room<'a>,
    /// Names by what they are called in metrics; made when the first name comes that could collide.
    called: Option<HashMap<String, String>>,
    accepted: HashSet<String>,
    ticket: Option<Ticket>,
}

impl<'a> Creations<'a> {
    pub fn new(state: &'a BrokerState) -> Self {
        let catalog = state.log.catalog();
        let room = Room::new(state, &catalog);
        Self { state, catalog, room, called: None, accepted: HashSet::new(), ticket: None }
    }

    /// Accepts a topic, or says why not.
    pub fn check(&mut self, name: &str, partitions: u32) -> Result<(), TopicError> {
        check_name(name)?;
        if self.accepted.contains(name) || self.catalog.topic(name).is_some() {
            return Err(TopicError::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        self.check_collision(name)?;
        self.room.take(1, partitions)?;
        self.accepted.insert(name.to_owned());
        if let Some(called) = &mut self.called {
            called.insert(folded(name), name.to_owned());
        }
        Ok(())
    }

    /// Whether another topic has a name that differs only in '.' and '_': their metrics would be mistaken for each other.
    fn check_collision(&mut self, name: &str) -> Result<(), TopicError> {
        if !name.contains(['.', '_']) {
            return Ok(());
        }
        let called = self.called.get_or_insert_with(|| {
            let known = self.catalog.topics().map(|topic| topic.name.to_string());
            known.chain(self.accepted.iter().cloned()).map(|name| (folded(&name), name)).collect()
        });
        match called.get(&folded(name)) {
            None => Ok(()),
            Some(other) => Err(TopicError::new(
                ErrorCode::InvalidTopicException,
                format!("Topic '{name}' collides with existing topics: {other}"),
            )),
        }
    }

    /// Creates a topic that was accepted; returns its id.
    pub fn create(
        &mut self,
        name: &str,
        partitions: u32,
        configs: BTreeMap<String, String>,
    ) -> Result<[u8; 16], TopicError> {
        let id = uuid::Uuid::new_v4().into_bytes();
        self.ticket = Some(self.state.log.create_topic(name, id, partitions, configs)?);
        tracing::info!(topic = name, partitions, "topic created");
        Ok(id)
    }

    /// What to wait for.
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }
}

/// Changes the catalog, or what else must not change at the same time: `change` looks, appends, and returns what it appended
/// last; nobody else looks until that is durable.
///
/// The change runs to its end even if nobody waits for it any more, because the client has gone: otherwise the next one would
/// look at a catalog in which the change is still missing. Only one runs at a time, so what runs on is bounded.
pub(crate) async fn change_catalog<T: Send + 'static>(
    state: &Arc<BrokerState>,
    change: impl FnOnce(&BrokerState) -> (T, Option<Ticket>) + Send + 'static,
) -> Result<T, TopicError> {
    let changing = state.catalog_changes.clone().lock_owned().await;
    let state = state.clone();
    let changed = tokio::spawn(async move {
        let _changing = changing;
        state.log.room().await;
        let (value, ticket) = change(&state);
        if let Some(ticket) = ticket {
            state.log.durable(ticket).await?;
        }
        Ok(value)
    });
    // It ends early only when the runtime is shut down.
    changed.await.unwrap_or_else(|error| Err(TopicError::new(ErrorCode::UnknownServerError, error.to_string())))
}

/// Creates a topic; returns when it is durable.
async fn create(
    state: &Arc<BrokerState>,
    name: String,
    partitions: u32,
    configs: BTreeMap<String, String>,
) -> Result<(), TopicError> {
    let created = change_catalog(state, move |state| {
        let mut creations = Creations::new(state);
        let created =
            creations.check(&name, partitions).and_then(|()| creations.create(&name, partitions, configs).map(|_| ()));
        (created, creations.ticket())
    });
    created.await?
}

/// Creates a topic because a client asked about it. Fine if somebody else was quicker.
pub(crate) async fn create_with_defaults(state: &Arc<BrokerState>, name: &str) -> Result<(), TopicError> {
    match create(state, name.to_owned(), state.settings.values().partitions_default, BTreeMap::new()).await {
        Err(error) if error.code == ErrorCode::TopicAlreadyExists => Ok(()),
        other => other,
    }
}
