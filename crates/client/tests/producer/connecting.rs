use baton::{Baton, ConnectError, Message};
use baton_engine::{Copies, Durability, Medium, TopicSpec};

async fn connect_error(address: &str) -> ConnectError {
    Baton::connect(address).await.map(drop).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_all_that_the_embedded_broker_needs() {
    let data = tempfile::tempdir().unwrap();
    let address = format!("embedded://{}?broker.num.partitions=3", data.path().display());
    let baton = Baton::connect(&address).await.unwrap();
    assert_eq!(format!("{baton:?}"), "Baton { engine: \"embedded\" }");
    let spec = TopicSpec { name: "orders".into(), partitions: 1, copies: None, settings: Vec::new() };
    baton.engine().create_topic(&spec).await.unwrap();
    let producer = baton.producer("orders-svc").await.unwrap();
    let receipt = producer.send(Message::to("orders").payload("100 beans")).await.unwrap();
    assert_eq!(receipt.durability, Durability { medium: Medium::Disk, copies: Copies::One });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_property_is_refused_and_named() {
    let error = connect_error("kafka://127.0.0.1:1?librdkafka.no.such.property=1").await;
    assert!(error.to_string().contains("no.such.property"), "{error}");
    let data = tempfile::tempdir().unwrap();
    let builder =
        Baton::builder(format!("embedded://{}", data.path().display())).property("broker.num.partitions", "many");
    let error = builder.await.map(drop).unwrap_err();
    assert!(error.to_string().contains("num.partitions"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_error_and_no_debug_output() {
    let builder = Baton::builder("kafka://127.0.0.1:1?librdkafka.sasl.password=hidden-a")
        .property("sasl.password", "hidden-b")
        .property("ssl.key.password", "hidden-c")
        .property("oauthbearer.token", "hidden-d");
    assert!(!format!("{builder:?}").contains("hidden"), "{builder:?}");
    let error = builder.await.map(drop).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hidden"), "{error}");
    // Refused where this engine is not built in, and connected only when it is used where it is.
    match Baton::connect("amqp://user:hidden@127.0.0.1:1/vhost").await {
        Ok(baton) => assert!(!format!("{baton:?}").contains("hidden"), "{baton:?}"),
        Err(error) => assert!(!format!("{error} {error:?}").contains("hidden"), "{error}"),
    }
}
