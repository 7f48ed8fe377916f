//! Requests about topics, the cluster and its settings.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, BrokerId, CreatePartitionsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeLogDirsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    incremental_alter_configs_request,
};

use crate::support::client::Client;
use crate::support::requests::{self, creatable, create_topics, text, topic_name};

const TOPIC: i8 = 2;
const SETTING: &str = "max.message.bytes";

/// Makes a request in a version; false if it is not one of these.
pub fn work(client: &mut Client, key: ApiKey, version: i16) -> bool {
    match key {
        ApiKey::Metadata => metadata(client, version),
        ApiKey::CreateTopics => create(client, version),
        ApiKey::DeleteTopics => delete(client, version),
        ApiKey::CreatePartitions => create_partitions(client, version),
        ApiKey::DescribeConfigs => assert_eq!(setting(client, "t", version), "1048588", "{version}"),
        ApiKey::AlterConfigs => alter(client, version),
        ApiKey::IncrementalAlterConfigs => incremental_alter(client, version),
        ApiKey::DescribeCluster => describe_cluster(client, version),
        ApiKey::DescribeLogDirs => describe_log_dirs(client, version),
        _ => return false,
    }
    true
}

fn metadata(client: &mut Client, version: i16) {
    let response = client.call(version, &requests::metadata("t", true));
    assert_eq!((response.topics[0].error_code, response.topics[0].partitions.len()), (0, 1), "{version}");
    assert_eq!(response.brokers.len(), 1);
    let all = MetadataRequest::default().with_topics((version == 0).then(Vec::new));
    let response = client.call(version, &all);
    assert!(response.topics.iter().any(|topic| topic.name == Some(topic_name("t"))), "{version}");
    if version >= 1 {
        assert_eq!(response.controller_id, BrokerId(0));
        let none = client.call(version, &MetadataRequest::default().with_topics(Some(Vec::new())));
        assert_eq!(none.topics.len(), 0, "an empty list means none: {version}");
    }
}

fn create(client: &mut Client, version: i16) {
    let name = format!("create.{version}");
    let response = client.call(version, &create_topics(vec![creatable(&name, 2, &[(SETTING, "5000")])]));
    assert_eq!(response.topics[0].error_code, 0, "{version}");
    if version >= 5 {
        assert_eq!((response.topics[0].num_partitions, response.topics[0].replication_factor), (2, 1));
    }
    assert_eq!(client.describe(&name).partitions.len(), 2);
}

fn delete(client: &mut Client, version: i16) {
    let name = format!("delete.{version}");
    client.create_topic(&name, 1, &[]);
    let request = DeleteTopicsRequest::default().with_timeout_ms(30_000);
    let request = match version {
        6.. => request.with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(&name)))]),
        _ => request.with_topic_names(vec![topic_name(&name)]),
    };
    let response = client.call(version, &request);
    assert_eq!(response.responses[0].error_code, 0, "{version}");
    assert_eq!(response.responses[0].name, Some(topic_name(&name)));
    assert_eq!(client.describe(&name).error_code, 3);
}

fn create_partitions(client: &mut Client, version: i16) {
    let name = format!("grow.{version}");
    client.create_topic(&name, 1, &[]);
    let topic = CreatePartitionsTopic::default().with_name(topic_name(&name)).with_count(3).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    assert_eq!(client.call(version, &request).results[0].error_code, 0, "{version}");
    assert_eq!(client.describe(&name).partitions.len(), 3);
}

/// A topic's setting, as `DescribeConfigs` tells it.
fn setting(client: &mut Client, topic: &str, version: i16) -> String {
    let asked = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text(SETTING)]));
    let response = client.call(version, &DescribeConfigsRequest::default().with_resources(vec![asked]));
    assert_eq!((response.results[0].error_code, response.results[0].configs.len()), (0, 1), "{version}");
    response.results[0].configs[0].value.as_deref().expect("a value").to_owned()
}

fn alter(client: &mut Client, version: i16) {
    let name = format!("alter.{version}");
    client.create_topic(&name, 1, &[]);
    let config = AlterableConfig::default().with_name(text(SETTING)).with_value(Some(text("4000")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(&name))
        .with_configs(vec![config]);
    let response = client.call(version, &AlterConfigsRequest::default().with_resources(vec![resource]));
    assert_eq!(response.responses[0].error_code, 0, "{version}");
    assert_eq!(setting(client, &name, 4), "4000");
}

fn incremental_alter(client: &mut Client, version: i16) {
    let name = format!("incremental.{version}");
    client.create_topic(&name, 1, &[]);
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text(SETTING))
        .with_config_operation(0)
        .with_value(Some(text("3000")));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(&name))
        .with_configs(vec![config]);
    let response = client.call(version, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
    assert_eq!(response.responses[0].error_code, 0, "{version}");
    assert_eq!(setting(client, &name, 4), "3000");
}

fn describe_cluster(client: &mut Client, version: i16) {
    let response = client.call(version, &DescribeClusterRequest::default());
    assert_eq!((response.error_code, response.brokers.len()), (0, 1), "{version}");
    assert!(!response.cluster_id.is_empty());
}

fn describe_log_dirs(client: &mut Client, version: i16) {
    let response = client.call(version, &DescribeLogDirsRequest::default().with_topics(None));
    assert_eq!((response.results.len(), response.results[0].error_code), (1, 0), "{version}");
    assert!(response.results[0].topics.iter().any(|topic| topic.name == topic_name("t")));
}
