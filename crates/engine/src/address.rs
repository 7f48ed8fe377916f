//! From an address to the engine that it names.

use std::sync::Arc;

use crate::{Engine, EngineError};

/// Settings with this before their name are the embedded broker's; others are the client's.
#[cfg(feature = "embedded")]
const BROKER_PREFIX: &str = "broker.";

/// The engine at an address:
///
/// | address | engine |
/// |---|---|
/// | `embedded://<folder>` (`embedded:///var/lib/orders`, `embedded://data`) | the broker of this project, in this process |
/// | `kafka://host:port,host:port` | Apache Kafka, and what speaks its protocol |
/// | `amqp://user:password@host:port/vhost`, `amqps://...` | RabbitMQ |
///
/// `settings` are the client's, under its own names (librdkafka's for Kafka); for the embedded broker also its own, with `broker.` before
/// their names. What RabbitMQ's client can be told is in the URI.
pub async fn connect(address: &str, settings: &[(String, String)]) -> Result<Arc<dyn Engine>, EngineError> {
    // The text may hold a password: it is not repeated.
    let unknown = || {
        let known = "embedded://<folder>, kafka://host:port or amqp://user:password@host:port/vhost";
        EngineError::Caller(format!(
            "the engine's address must be {known}, and its engine built in (see cargo features)"
        ))
    };
    let (scheme, rest) = address.split_once("://").ok_or_else(unknown)?;
    match scheme {
        #[cfg(feature = "embedded")]
        "embedded" => {
            if rest.is_empty() {
                return Err(EngineError::Caller("embedded:// needs a folder: embedded:///var/lib/orders".to_owned()));
            }
            let mut options = crate::embedded::EmbeddedOptions::local(rest);
            for (name, value) in settings {
                match name.strip_prefix(BROKER_PREFIX) {
                    Some(name) => options.broker.push((name.to_owned(), value.clone())),
                    None => options.client.push((name.clone(), value.clone())),
                }
            }
            Ok(Arc::new(crate::embedded::EmbeddedEngine::start(options).await?))
        }
        #[cfg(feature = "kafka")]
        "kafka" => {
            let servers = rest.trim_end_matches('/');
            if servers.contains(['/', '?', '@']) {
                let text = "kafka:// takes host:port, with commas between; give user, password and others as settings";
                return Err(EngineError::Caller(text.to_owned()));
            }
            Ok(Arc::new(crate::kafka::KafkaEngine::connect(servers, settings)?))
        }
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => {
            if let Some((name, _)) = settings.first() {
                let text = format!("the setting {name} is refused: what RabbitMQ's client can be told is in its URI");
                return Err(EngineError::Caller(text));
            }
            Ok(Arc::new(crate::rabbitmq::RabbitEngine::connect(address)?))
        }
        _ => Err(unknown()),
    }
}

#[cfg(all(test, feature = "embedded", feature = "rabbitmq"))]
mod tests {
    use super::*;

    async fn refused(address: &str, settings: &[(&str, &str)]) -> String {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match connect(address, &settings).await {
            Err(EngineError::Caller(text)) => text,
            Err(other) => panic!("{address}: {other:?}"),
            Ok(_) => panic!("{address} was accepted"),
        }
    }

    #[tokio::test]
    async fn an_address_names_its_engine() {
        let data = tempfile::tempdir().unwrap();
        let embedded = format!("embedded://{}", data.path().display());
        for (address, name) in [
            (embedded.as_str(), "embedded"),
            ("kafka://localhost:1,localhost:2", "kafka"),
            ("amqp://localhost", "rabbitmq"),
        ] {
            assert_eq!(connect(address, &[]).await.map(|engine| engine.name()).unwrap(), name);
        }
    }

    #[tokio::test]
    async fn a_wrong_address_is_refused_without_repeating_its_password() {
        for address in
            ["localhost:9092", "redis://user:secret@host", "kafka://user:secret@host:1", "amqp://user:secret@host:port"]
        {
            let text = refused(address, &[]).await;
            assert!(!text.contains("secret"), "{text}");
        }
        refused("embedded://", &[]).await;
        refused("amqp://localhost", &[("heartbeat", "5")]).await;
        let data = tempfile::tempdir().unwrap();
        let text = refused(&format!("embedded://{}", data.path().display()), &[("broker.no.such", "1")]).await;
        assert!(text.contains("no.such"), "{text}");
    }
}
