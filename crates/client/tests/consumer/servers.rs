//! A real Apache Kafka.

use baton_testkit::servers::Server;
use tokio::sync::{Mutex, MutexGuard};

/// What it is started with: a small heap and a compiler in a hurry, since it lives for one test; and time to start on a machine that is
/// busy with other tests.
const SETTINGS: &[(&str, &str)] = &[("HEAP", "256m"), ("JVM_OPTS", "-XX:TieredStopAtLevel=1"), ("WAIT", "240")];

/// One at a time: several that start side by side take each other's time.
static TURN: Mutex<()> = Mutex::const_new(());

/// One node with its own data; killed with this value.
pub struct Kafka {
    pub address: String,
    // Before the turn, so that it is gone when the next one starts.
    _server: Server,
    _turn: MutexGuard<'static, ()>,
}

impl Kafka {
    pub async fn start() -> Self {
        let turn = TURN.lock().await;
        let server = tokio::task::spawn_blocking(|| Server::start_with("kafka", SETTINGS)).await.unwrap();
        Self { address: server.address(), _server: server, _turn: turn }
    }
}
