//! From an address to an engine.

mod address;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use baton_engine::{Engine, EngineError, TopicSpec};
use thiserror::Error;

pub use address::BadAddress;

use address::Address;

/// What stands in a text where a secret was.
const HIDDEN: &str = "***";

/// What the names of properties have in them whose values are secrets, librdkafka's among them.
const SECRET_NAMES: &[&str] = &["password", "secret", "token", "key", "oauthbearer", "sasl.username"];

/// Connected to an engine: where producers and consumers come from. Cheap to clone; all clones are the same connection.
#[derive(Clone)]
pub struct Baton {
    engine: Arc<dyn Engine>,
}

/// No connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address is wrong.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The engine was left out when this program was built.
    #[error("this program was built without {engine}: add features = [\"{feature}\"] to its dependency on baton")]
    NotBuilt {
        /// Which engine.
        engine: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// The engine does not start, or refuses a property.
    #[error("{address}: {error}")]
    Engine {
        /// Where to; without user, password and properties.
        address: String,
        /// What is wrong.
        error: EngineError,
    },
}

impl Baton {
    /// Connects to `kafka://host:port`, `amqp://user:password@host/vhost`, or `embedded:///path/to/data`, which starts the broker in this
    /// very process. Nobody is waited for: an engine that is away now is found when it is back.
    ///
    /// Properties of Kafka's client go behind the address, `?librdkafka.compression.type=zstd`, and so do those of the embedded broker,
    /// `?broker.num.partitions=6&listen=0.0.0.0:9092`; or use [`Baton::builder`], which keeps passwords out of the address.
    ///
    /// # Errors
    /// When the address or a property is wrong, or the embedded broker does not start.
    pub async fn connect(address: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(address).connect().await
    }

    /// The same with properties beside the address.
    pub fn builder(address: impl Into<String>) -> ConnectBuilder {
        ConnectBuilder { address: address.into(), properties: Vec::new() }
    }

    /// Uses an engine that was made elsewhere.
    pub fn with_engine(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// Creates a topic, or finds it there already with as many partitions. When this returns, messages can be sent to each of them.
    ///
    /// # Errors
    /// When the topic is there with another number of partitions, or the engine refuses it or is away.
    pub async fn create_topic(&self, topic: TopicSpec) -> Result<(), EngineError> {
        self.engine.create_topic(&topic).await
    }

    /// The engine behind it, and what it can do.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }
}

impl fmt::Debug for Baton {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Baton").field("engine", &self.engine.name()).finish()
    }
}

/// An address with properties; await it, or call [`ConnectBuilder::connect`].
#[derive(Clone)]
#[must_use = "nothing is connected before this is awaited"]
pub struct ConnectBuilder {
    address: String,
    properties: Vec<(String, String)>,
}

impl ConnectBuilder {
    /// Sets a property under the name that the engine's own client has for it: librdkafka's on Kafka and on the embedded broker, whose own
    /// settings have `broker.` before their names. It counts more than one of the same name in the address.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Baton::connect`].
    pub async fn connect(self) -> Result<Baton, ConnectError> {
        let address = Address::parse(&self.address)?;
        let mut secrets = address.secrets();
        let of_address = match &address {
            Address::Kafka { properties, .. } | Address::Embedded { properties, .. } => properties.as_slice(),
            Address::Amqp { .. } => &[],
        };
        let properties = self.properties.iter().chain(of_address);
        secrets.extend(properties.filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone()));
        let shown = address.shown();
        match engine(address, self.properties).await {
            Ok(engine) => Ok(Baton { engine }),
            Err(Failed::NotBuilt { engine, feature }) => Err(ConnectError::NotBuilt { engine, feature }),
            Err(Failed::Engine(error)) => Err(ConnectError::Engine { address: shown, error: hide(error, &secrets) }),
        }
    }
}

impl IntoFuture for ConnectBuilder {
    type Output = Result<Baton, ConnectError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.connect())
    }
}

/// The names of the properties alone: values may be secrets.
impl fmt::Debug for ConnectBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Address::parse(&self.address).map(|address| address.shown()).unwrap_or_default();
        let names: Vec<_> = self.properties.iter().map(|(name, _)| name).collect();
        formatter.debug_struct("ConnectBuilder").field("address", &address).field("properties", &names).finish()
    }
}

/// Why there is no engine. What is not needed depends on the features.
#[allow(dead_code)]
enum Failed {
    NotBuilt { engine: &'static str, feature: &'static str },
    Engine(EngineError),
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

#[allow(clippy::unused_async, unused_variables, unused_mut, reason = "without any engine there is nothing to do")]
async fn engine(address: Address, given: Vec<(String, String)>) -> Result<Arc<dyn Engine>, Failed> {
    let name = address.engine();
    match address {
        #[cfg(feature = "kafka")]
        Address::Kafka { servers, mut properties } => {
            properties.extend(given);
            Ok(Arc::new(baton_engine::kafka::KafkaEngine::connect(&servers, &properties)?))
        }
        #[cfg(feature = "embedded")]
        Address::Embedded { data, listen, mut properties } => {
            properties.extend(given);
            let mut options = baton_engine::embedded::EmbeddedOptions::local(data);
            options.listen = listen.unwrap_or(options.listen);
            for (name, value) in properties {
                match name.strip_prefix(address::BROKER_PREFIX) {
                    Some(setting) => options.broker.push((setting.to_owned(), value)),
                    None => options.client.push((name, value)),
                }
            }
            Ok(Arc::new(baton_engine::embedded::EmbeddedEngine::start(options).await?))
        }
        #[cfg(feature = "rabbitmq")]
        Address::Amqp { uri } => match given.first() {
            None => Ok(Arc::new(baton_engine::rabbitmq::RabbitEngine::connect(&uri)?)),
            Some((name, _)) => {
                let text =
                    format!("the property {name} is refused: what RabbitMQ's client can be told is in its address");
                Err(EngineError::Caller(text).into())
            }
        },
        #[allow(unreachable_patterns, reason = "with all features there is an engine for each address")]
        _ => Err(Failed::NotBuilt { engine: name, feature: name }),
    }
}

/// Whether the value of a property is nobody's business.
fn is_secret(name: &str) -> bool {
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// What an engine's client says of a property may hold its value.
fn hide(error: EngineError, secrets: &[String]) -> EngineError {
    let hidden = |text: String| {
        let secrets = secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), HIDDEN))
    };
    match error {
        EngineError::Caller(text) => EngineError::Caller(hidden(text)),
        EngineError::Unavailable(text) => EngineError::Unavailable(hidden(text)),
        EngineError::Bug(text) => EngineError::Bug(hidden(text)),
        unsupported @ EngineError::Unsupported(_) => unsupported,
    }
}
