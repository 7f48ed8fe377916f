//! What an address says. Written by people, so that every mistake is answered with what to write instead, and never with what could be a
//! secret.

use thiserror::Error;

/// What is in front of librdkafka's properties in an address.
const CLIENT_PREFIX: &str = "librdkafka.";
/// What is in front of the embedded broker's settings.
pub(crate) const BROKER_PREFIX: &str = "broker.";
/// Where the embedded broker listens, in its address.
const LISTEN: &str = "listen";

/// An engine, and how to reach it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `kafka://host:port,host:port?librdkafka.property=value`
    Kafka { servers: String, properties: Vec<(String, String)> },
    /// `embedded:///path/to/data?broker.setting=value`, the broker's settings with their prefix
    Embedded { data: String, listen: Option<String>, properties: Vec<(String, String)> },
    /// `amqp://user:password@host/vhost`, as a whole: it is for the client of AMQP to read.
    Amqp { uri: String },
}

/// The address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadAddress {
    /// It does not say which engine.
    #[error(
        "the address does not begin with an engine: write kafka://host:port, amqp://user:password@host/vhost, or \
         embedded:///path/to/data"
    )]
    Scheme,
    /// The engine is unknown.
    #[error("{0}:// is no engine known here: write kafka://, amqp://, amqps:// or embedded://")]
    Unknown(String),
    /// Kafka without servers.
    #[error("the address names no server: write kafka://host:port, more of them with commas between")]
    NoServer,
    /// A server of Kafka that is none.
    #[error("{0:?} is no server: write host:port, more of them with commas between, and no path behind them")]
    Server(String),
    /// A user in an address of Kafka.
    #[error(
        "an address of Kafka holds no user: set the properties security.protocol, sasl.mechanism, sasl.username and \
         sasl.password"
    )]
    User,
    /// The embedded broker without a directory.
    #[error("the address names no directory for the embedded broker: write embedded:///path/to/data")]
    NoDirectory,
    /// A host in an address of the embedded broker.
    #[error(
        "{0:?} is in the place of a host, and the embedded broker has none: write embedded:///path/to/data, with three slashes"
    )]
    Host(String),
    /// A property without a value.
    #[error("{0:?} has no value: write ?name=value&name=value")]
    NoValue(String),
    /// A property of Kafka's client without its prefix.
    #[error(
        "{0:?} is no property here: those of Kafka's client are written librdkafka.<name>=<value>, those of the embedded broker \
         broker.<name>=<value> and listen=<host:port>"
    )]
    Property(String),
    /// A percent sign that stands for nothing.
    #[error(
        "the property {0:?} has a percent sign that is not followed by two hexadecimal digits: write %25 for the sign itself"
    )]
    Percent(String),
    /// No host in an address of RabbitMQ.
    #[error("the address names no host: write amqp://user:password@host:port/vhost")]
    NoHost,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, BadAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(BadAddress::Scheme)?;
        match scheme {
            "kafka" => kafka(rest),
            "embedded" => embedded(rest),
            "amqp" | "amqps" => amqp(text, rest),
            // What is no word could be anything, a secret too.
            other
                if other.len() > 16
                    || !other.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte)) =>
            {
                Err(BadAddress::Scheme)
            }
            other => Err(BadAddress::Unknown(other.to_owned())),
        }
    }

    /// The engine's name.
    pub(crate) fn engine(&self) -> &'static str {
        match self {
            Self::Kafka { .. } => "kafka",
            Self::Embedded { .. } => "embedded",
            Self::Amqp { .. } => "rabbitmq",
        }
    }

    /// What of it may be seen by everybody: no user, no password, no property.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Kafka { servers, .. } => format!("kafka://{servers}"),
            Self::Embedded { data, .. } => format!("embedded://{data}"),
            Self::Amqp { uri } => {
                let (scheme, rest) = uri.split_once("://").unwrap_or(("amqp", ""));
                let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            }
        }
    }

    /// What must be seen by nobody.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let Self::Amqp { uri } = self else { return Vec::new() };
        let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        let password = user.split_once(':').map_or("", |(_, password)| password);
        let options = rest.split_once('?').map_or("", |(_, options)| options);
        [user, password, &decoded(password).unwrap_or_default(), options].map(str::to_owned).to_vec()
    }
}

fn kafka(rest: &str) -> Result<Address, BadAddress> {
    let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
    if servers.contains('@') {
        return Err(BadAddress::User);
    }
    let servers = servers.strip_suffix('/').unwrap_or(servers);
    if servers.is_empty() {
        return Err(BadAddress::NoServer);
    }
    for server in servers.split(',') {
        let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return Err(BadAddress::Server(server.to_owned()));
        }
    }
    let properties = pairs(query)?.into_iter().map(client_property).collect::<Result<_, _>>()?;
    Ok(Address::Kafka { servers: servers.to_owned(), properties })
}

fn embedded(rest: &str) -> Result<Address, BadAddress> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.is_empty() && !path.starts_with('/') {
        return Err(BadAddress::Host(path.split('/').next().unwrap_or_default().to_owned()));
    }
    let data = decoded(path).ok_or_else(|| BadAddress::Percent(path.to_owned()))?;
    if data.trim_matches('/').is_empty() {
        return Err(BadAddress::NoDirectory);
    }
    let (mut listen, mut properties) = (None, Vec::new());
    for (name, value) in pairs(query)? {
        if name == LISTEN {
            listen = Some(value);
        } else if name.starts_with(BROKER_PREFIX) {
            properties.push((name, value));
        } else {
            properties.push(client_property((name, value))?);
        }
    }
    Ok(Address::Embedded { data, listen, properties })
}

fn client_property((name, value): (String, String)) -> Result<(String, String), BadAddress> {
    match name.strip_prefix(CLIENT_PREFIX) {
        Some(property) => Ok((property.to_owned(), value)),
        None => Err(BadAddress::Property(name)),
    }
}

fn amqp(whole: &str, rest: &str) -> Result<Address, BadAddress> {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || host.starts_with(':') {
        return Err(BadAddress::NoHost);
    }
    Ok(Address::Amqp { uri: whole.to_owned() })
}

fn pairs(query: &str) -> Result<Vec<(String, String)>, BadAddress> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').ok_or_else(|| BadAddress::NoValue(text.to_owned()))?;
        let percent = || BadAddress::Percent(name.to_owned());
        Ok((decoded(name).ok_or_else(percent)?, decoded(value).ok_or_else(percent)?))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// `%41` is `A`. A plus sign is a plus sign: passwords have them.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn every_engine_has_its_address() {
        let kafka = Address::Kafka {
            servers: "a:9092,[::1]:9093".to_owned(),
            properties: vec![pair("ssl.ca.location", "/etc/a b"), pair("sasl.password", "1+1=%")],
        };
        let text = "kafka://a:9092,[::1]:9093/?librdkafka.ssl.ca.location=/etc/a%20b&librdkafka.sasl.password=1+1=%25";
        assert!(Address::parse(text) == Ok(kafka));
        let embedded = Address::Embedded {
            data: "/var/lib/or ders".to_owned(),
            listen: Some("0.0.0.0:9092".to_owned()),
            properties: vec![pair("broker.num.partitions", "6"), pair("fetch.wait.max.ms", "10")],
        };
        let text =
            "embedded:///var/lib/or%20ders?listen=0.0.0.0:9092&broker.num.partitions=6&librdkafka.fetch.wait.max.ms=10";
        assert!(Address::parse(text) == Ok(embedded));
        let uri = "amqps://user:pw@rabbit:5671/vhost?heartbeat=10".to_owned();
        assert!(Address::parse(&uri) == Ok(Address::Amqp { uri: uri.clone() }));
    }

    #[test]
    fn a_wrong_address_is_answered_with_what_to_write() {
        let wrong = [
            ("localhost:9092", BadAddress::Scheme),
            ("my-secret!://x", BadAddress::Scheme),
            ("http://localhost", BadAddress::Unknown("http".to_owned())),
            ("kafka://", BadAddress::NoServer),
            ("kafka://?librdkafka.a=b", BadAddress::NoServer),
            ("kafka://host", BadAddress::Server("host".to_owned())),
            ("kafka://host:0", BadAddress::Server("host:0".to_owned())),
            ("kafka://host:9092/topic", BadAddress::Server("host:9092/topic".to_owned())),
            ("kafka://a:1,,b:2", BadAddress::Server(String::new())),
            ("kafka://user:secret@host:9092", BadAddress::User),
            ("kafka://host:9092?linger.ms=5", BadAddress::Property("linger.ms".to_owned())),
            ("kafka://host:9092?librdkafka.a", BadAddress::NoValue("librdkafka.a".to_owned())),
            ("kafka://host:9092?librdkafka.a=%2", BadAddress::Percent("librdkafka.a".to_owned())),
            ("embedded:///data?num.partitions=6", BadAddress::Property("num.partitions".to_owned())),
            ("embedded://", BadAddress::NoDirectory),
            ("embedded:///", BadAddress::NoDirectory),
            ("embedded://data/orders", BadAddress::Host("data".to_owned())),
            ("amqp://user:secret@/vhost", BadAddress::NoHost),
        ];
        for (text, expected) in wrong {
            let error = Address::parse(text).err();
            assert_eq!(error.as_ref(), Some(&expected), "{text}");
            assert!(!error.map(|error| error.to_string()).unwrap_or_default().contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let amqp =
            Address::parse("amqp://user:p%40ss@rabbit/vhost?token=t0ken").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(amqp.shown(), "amqp://rabbit/vhost");
        assert_eq!(amqp.secrets(), ["user:p%40ss", "p%40ss", "p@ss", "token=t0ken"]);
        let kafka =
            Address::parse("kafka://a:1?librdkafka.sasl.password=hidden").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(kafka.shown(), "kafka://a:1");
    }
}
