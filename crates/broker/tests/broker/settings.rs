//! Settings are described and changed as in Apache Kafka, count at once, and are durable.

use kafka_protocol::messages::alter_configs_request as legacy;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::support::batches::batch;
use crate::support::client::Client;
use crate::support::requests::{ALL, PRODUCE, produce, produced, text};
use crate::support::server::Server;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Where a value comes from.
const OF_TOPIC: i8 = 1;
const OF_BROKER: i8 = 2;
const OF_ALL_BROKERS: i8 = 3;
const GIVEN: i8 = 4;
const DEFAULT: i8 = 5;

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;

/// Code and words of an answer.
type Answer = (i16, String);

fn describe(client: &mut Client, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    client.call(4, &request).results.remove(0)
}

fn setting(client: &mut Client, kind: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
    let mut described = describe(client, kind, name, Some(&[key]));
    assert_eq!((described.error_code, described.configs.len()), (NONE, 1), "{key}");
    described.configs.remove(0)
}

/// Value and source.
fn value(client: &mut Client, kind: i8, name: &str, key: &str) -> (String, i8) {
    let setting = setting(client, kind, name, key);
    (setting.value.expect("a value").to_string(), setting.config_source)
}

fn resource(kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> AlterConfigsResource {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value.map(text))
    };
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(change).collect())
}

fn alter_all(client: &mut Client, resources: Vec<AlterConfigsResource>, validate_only: bool) -> Vec<Answer> {
    let request = IncrementalAlterConfigsRequest::default().with_resources(resources).with_validate_only(validate_only);
    let responses = client.call(1, &request).responses;
    let answer = |message: Option<_>| {
        message.map_or(String::new(), |words: kafka_protocol::protocol::StrBytes| words.to_string())
    };
    responses.into_iter().map(|response| (response.error_code, answer(response.error_message))).collect()
}

fn alter(client: &mut Client, kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> Answer {
    alter_all(client, vec![resource(kind, name, changes)], false).remove(0)
}

fn replace(client: &mut Client, kind: i8, name: &str, configs: &[(&str, &str)]) -> i16 {
    let config = |(name, value): &(&str, &str)| {
        legacy::AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let resource = legacy::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(config).collect());
    client.call(2, &AlterConfigsRequest::default().with_resources(vec![resource])).responses[0].error_code
}

#[test]
fn every_setting_is_described_with_type_source_synonyms_and_documentation() {
    let server = Server::start_with(&[("message.max.bytes", "2000")]);
    let client = &mut server.client();
    client.create_topic("t", 1, &[("max.message.bytes", "1000")]);
    let described = setting(client, TOPIC, "t", "max.message.bytes");
    assert_eq!((described.value.as_deref(), described.config_source), (Some("1000"), OF_TOPIC));
    assert_eq!((described.config_type, described.read_only, described.is_sensitive), (3, false, false));
    assert!(described.documentation.is_some_and(|words| words.contains("batch")));
    let synonyms: Vec<_> =
        described.synonyms.iter().map(|synonym| (&*synonym.name, synonym.value.as_deref(), synonym.source)).collect();
    let expected = [
        ("max.message.bytes", Some("1000"), OF_TOPIC),
        ("message.max.bytes", Some("2000"), GIVEN),
        ("message.max.bytes", Some("1048588"), DEFAULT),
    ];
    assert_eq!(synonyms, expected);
    assert_eq!(value(client, TOPIC, "t", "cleanup.policy"), ("delete".to_owned(), DEFAULT));
    assert_eq!(describe(client, TOPIC, "t", None).configs.len(), 9);

    let broker = describe(client, BROKER, "0", None);
    let find = |name: &str| broker.configs.iter().find(|config| &*config.name == name).expect("described");
    assert!(find("num.partitions").read_only);
    assert!(!find("max.connections").read_only);
    assert_eq!(find("auto.create.topics.enable").config_type, 1);
    assert_eq!(find("message.max.bytes").config_source, GIVEN);
}

#[test]
fn a_resource_that_is_named_many_times_is_described_once() {
    let server = Server::start();
    let one = DescribeConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("0"));
    let request = DescribeConfigsRequest::default().with_resources(vec![one; 100_000]).with_include_documentation(true);
    let response = server.client().call(4, &request);
    assert_eq!(response.results.len(), 1);
    assert!(response.results[0].configs.len() > 40);
}

#[test]
fn what_cannot_be_described_is_refused_as_in_kafka() {
    let server = Server::start();
    let client = &mut server.client();
    let refused = [
        (TOPIC, "nowhere", UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a b", INVALID_TOPIC_EXCEPTION),
        (BROKER, "1", INVALID_REQUEST),
        (BROKER, "me", INVALID_REQUEST),
        (BROKER, "00", INVALID_REQUEST),
        (8, "0", INVALID_REQUEST),
        (99, "0", INVALID_REQUEST),
    ];
    for (kind, name, code) in refused {
        let described = describe(client, kind, name, None);
        assert_eq!((described.error_code, described.configs.len()), (code, 0), "{kind} {name}");
    }
    let unknown = describe(client, BROKER, "0", Some(&["no.such.setting"]));
    assert_eq!((unknown.error_code, unknown.configs.len()), (NONE, 0));
}

#[test]
fn a_topics_setting_counts_at_once_is_durable_and_can_be_taken_back() {
    let mut server = Server::start();
    server.client().create_topic("t", 1, &[]);
    let long = "x".repeat(500);
    let accepted =
        |client: &mut Client| produced(&client.call(PRODUCE, &produce("t", 0, ALL, batch(&[&long])))).error_code;
    assert_eq!(accepted(&mut server.client()), NONE);
    let changes = [("max.message.bytes", SET, Some("300")), ("retention.ms", SET, Some("-1"))];
    assert_eq!(alter(&mut server.client(), TOPIC, "t", &changes).0, NONE);
    assert_eq!(accepted(&mut server.client()), MESSAGE_TOO_LARGE);
    server = server.restart();
    let client = &mut server.client();
    assert_eq!(accepted(client), MESSAGE_TOO_LARGE);
    assert_eq!(value(client, TOPIC, "t", "max.message.bytes"), ("300".to_owned(), OF_TOPIC));
    assert_eq!(alter(client, TOPIC, "t", &[("max.message.bytes", DELETE, None)]).0, NONE);
    assert_eq!(accepted(client), NONE);
    assert_eq!(value(client, TOPIC, "t", "retention.ms"), ("-1".to_owned(), OF_TOPIC), "others stay");
    assert_eq!(replace(client, TOPIC, "t", &[("max.message.bytes", "400")]), NONE);
    assert_eq!(value(client, TOPIC, "t", "retention.ms").1, DEFAULT, "what is not named goes back");
    assert_eq!(value(client, TOPIC, "t", "max.message.bytes"), ("400".to_owned(), OF_TOPIC));
}

#[test]
fn a_change_that_is_wrong_is_refused_as_a_whole_with_kafkas_code() {
    let server = Server::start();
    let client = &mut server.client();
    client.create_topic("t", 1, &[]);
    let good = ("message.timestamp.type", SET, Some("LogAppendTime"));
    let wrong: [(i8, Option<&str>, &str, i16, &str); 8] = [
        (SET, Some("1"), "no.such.setting", INVALID_CONFIG, "unknown setting"),
        (DELETE, None, "no.such.setting", INVALID_CONFIG, "unknown setting"),
        (
            SET,
            Some("many"),
            "max.message.bytes",
            INVALID_CONFIG,
            "Invalid value many for configuration max.message.bytes",
        ),
        (SET, Some("60000"), "retention.ms", INVALID_CONFIG, "later version"),
        (SET, Some("1"), "segment.bytes", INVALID_CONFIG, "would have no effect"),
        (SET, None, "max.message.bytes", INVALID_REQUEST, "Null value not supported"),
        (APPEND, Some("1"), "max.message.bytes", INVALID_CONFIG, "its type is not LIST"),
        (9, Some("1"), "max.message.bytes", INVALID_REQUEST, "Unknown operations type 9"),
    ];
    for (operation, given, name, code, words) in wrong {
        let answer = alter(client, TOPIC, "t", &[good, (name, operation, given)]);
        assert!(answer.0 == code && answer.1.contains(words), "{name}: {answer:?}");
    }
    assert_eq!(alter(client, TOPIC, "t", &[good, good]).0, INVALID_REQUEST, "the same twice");
    assert_eq!(alter(client, TOPIC, "nowhere", &[good]).0, UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(alter(client, TOPIC, "a b", &[good]).0, INVALID_TOPIC_EXCEPTION);
    assert_eq!(alter(client, TOPIC, "", &[good]).0, INVALID_REQUEST);
    assert_eq!(alter(client, 8, "0", &[good]).0, INVALID_REQUEST);
    let twice = vec![resource(TOPIC, "t", &[good]), resource(TOPIC, "t", &[good])];
    assert!(alter_all(client, twice, false).iter().all(|answer| answer.0 == INVALID_REQUEST));
    assert_eq!(value(client, TOPIC, "t", good.0), ("CreateTime".to_owned(), DEFAULT), "nothing was changed");
}

#[test]
fn only_checking_changes_nothing_and_one_wrong_resource_does_not_hold_up_others() {
    let server = Server::start();
    let client = &mut server.client();
    client.create_topic("t", 1, &[]);
    let change = [("max.message.bytes", SET, Some("300"))];
    let both = || vec![resource(TOPIC, "t", &change), resource(TOPIC, "nowhere", &change)];
    let codes = |answers: Vec<Answer>| answers.into_iter().map(|answer| answer.0).collect::<Vec<_>>();
    assert_eq!(codes(alter_all(client, both(), true)), [NONE, UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(value(client, TOPIC, "t", "max.message.bytes").1, DEFAULT);
    assert_eq!(codes(alter_all(client, both(), false)), [NONE, UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(value(client, TOPIC, "t", "max.message.bytes").1, OF_TOPIC);
}

#[test]
fn words_are_added_to_lists_and_taken_out_of_them() {
    let server = Server::start();
    let client = &mut server.client();
    client.create_topic("t", 1, &[]);
    assert_eq!(alter(client, TOPIC, "t", &[("cleanup.policy", APPEND, Some("delete"))]).0, NONE);
    assert_eq!(value(client, TOPIC, "t", "cleanup.policy"), ("delete".to_owned(), OF_TOPIC));
    let compact = alter(client, TOPIC, "t", &[("cleanup.policy", APPEND, Some("compact"))]);
    assert!(compact.0 == INVALID_CONFIG && compact.1.contains("delete,compact"), "{compact:?}");
    let nothing = alter(client, TOPIC, "t", &[("cleanup.policy", SUBTRACT, Some("delete"))]);
    assert_eq!(nothing.0, INVALID_CONFIG);
    assert_eq!(value(client, TOPIC, "t", "cleanup.policy"), ("delete".to_owned(), OF_TOPIC));
}

#[test]
fn the_brokers_settings_change_while_it_runs_and_stay_changed() {
    let mut server = Server::start_with(&[("message.max.bytes", "5000")]);
    server.client().create_topic("t", 1, &[]);
    assert_eq!(alter(&mut server.client(), BROKER, "0", &[("message.max.bytes", SET, Some("300"))]).0, NONE);
    server = server.restart();
    let client = &mut server.client();
    let described = setting(client, BROKER, "0", "message.max.bytes");
    let sources: Vec<_> = described.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!((described.value.as_deref(), sources), (Some("300"), vec![OF_BROKER, GIVEN, DEFAULT]));
    assert_eq!(value(client, BROKER, "", "message.max.bytes"), ("300".to_owned(), OF_ALL_BROKERS));
    assert_eq!(describe(client, BROKER, "", None).configs.len(), 1, "only what was changed");
    let long = batch(&[&"x".repeat(500)]);
    let answer = produced(&client.call(PRODUCE, &produce("t", 0, ALL, long.clone())));
    assert_eq!(answer.error_code, MESSAGE_TOO_LARGE, "topics take the broker's value");
    assert_eq!(alter(client, BROKER, "", &[("message.max.bytes", DELETE, None)]).0, NONE);
    assert_eq!(value(client, BROKER, "0", "message.max.bytes"), ("5000".to_owned(), GIVEN));
    assert_eq!(produced(&client.call(PRODUCE, &produce("t", 0, ALL, long))).error_code, NONE);
    assert_eq!(replace(client, BROKER, "0", &[("topics.max", "7")]), NONE);
    assert_eq!(replace(client, BROKER, "0", &[("partitions.max", "8")]), NONE);
    assert_eq!(value(client, BROKER, "0", "topics.max").1, DEFAULT);
    assert_eq!(value(client, BROKER, "0", "partitions.max"), ("8".to_owned(), OF_BROKER));
}

#[test]
fn a_wrong_change_of_the_broker_is_refused() {
    let server = Server::start();
    let client = &mut server.client();
    let wrong = [
        ("0", "num.partitions", Some("3"), INVALID_REQUEST, "Cannot update these configs dynamically: num.partitions"),
        ("0", "message.max.bytes", Some("-1"), INVALID_REQUEST, "Invalid value -1"),
        ("0", "no.such.setting", Some("3"), INVALID_CONFIG, "unknown setting"),
        ("0", "log.retention.hours", Some("3"), INVALID_CONFIG, "later version"),
        ("1", "max.connections", Some("3"), INVALID_REQUEST, "Unexpected broker id, expected 0, but received 1"),
        ("me", "max.connections", Some("3"), INVALID_REQUEST, "must be an integer"),
    ];
    for (broker, name, given, code, words) in wrong {
        let answer = alter(client, BROKER, broker, &[(name, SET, given)]);
        assert!(answer.0 == code && answer.1.contains(words), "{name}: {answer:?}");
    }
    assert_eq!(describe(client, BROKER, "", None).configs.len(), 0);
}
