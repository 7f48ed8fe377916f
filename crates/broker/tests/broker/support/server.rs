//! A broker in this process, on free ports.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use baton_broker::{Broker, BrokerOptions};
use baton_log::{Disk, SystemClock};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::LONG;
use super::client::Client;

pub struct Server {
    pub address: SocketAddr,
    pub metrics_address: SocketAddr,
    broker: Option<Broker>,
    runtime: Runtime,
    directory: Arc<TempDir>,
    settings: Vec<(String, String)>,
}

fn options(directory: &Path, settings: &[(String, String)]) -> BrokerOptions {
    let mut options = BrokerOptions::local(directory);
    options.metrics = Some("127.0.0.1:0".to_owned());
    for (name, value) in settings {
        options.settings.set(name, value).expect("a setting");
    }
    options
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::start_in(directory, settings)
    }

    fn start_in(directory: Arc<TempDir>, settings: Vec<(String, String)>) -> Self {
        let runtime = runtime();
        let broker = runtime.block_on(Broker::start(options(directory.path(), &settings))).expect("the broker starts");
        Self::running(broker, runtime, directory, settings)
    }

    /// A broker on a disk of the test's own making.
    pub fn start_on(disk: Arc<dyn Disk>, directory: Arc<TempDir>) -> Self {
        let runtime = runtime();
        let options = options(directory.path(), &[]);
        let starting = Broker::start_on(disk, Arc::new(SystemClock), options);
        let broker = runtime.block_on(starting).expect("the broker starts");
        Self::running(broker, runtime, directory, Vec::new())
    }

    fn running(broker: Broker, runtime: Runtime, directory: Arc<TempDir>, settings: Vec<(String, String)>) -> Self {
        let metrics_address = broker.metrics_address().expect("metrics are served");
        Self { address: broker.address(), metrics_address, broker: Some(broker), runtime, directory, settings }
    }

    /// Stops the broker in order and starts another one on the same data.
    pub fn restart(mut self) -> Self {
        self.stop();
        Self::start_in(self.directory.clone(), std::mem::take(&mut self.settings))
    }

    fn stop(&mut self) {
        if let Some(broker) = self.broker.take() {
            let was_cut = self.runtime.block_on(broker.stop(LONG));
            assert!(!was_cut, "all connections end in time");
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The answer of the metrics' server: status line and headers, and body.
    pub fn http(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.metrics_address).expect("metrics are served");
        stream.set_read_timeout(Some(LONG)).expect("a socket option");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_owned(), body.to_owned())
    }

    /// All metrics: names with their labels, as they are written.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (head, body) = self.http("/metrics");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let samples = body.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        samples.collect()
    }

    /// How many connections were closed for a reason.
    pub fn closed_for(&self, reason: &str) -> u64 {
        let name = format!("baton_connections_closed_total{{reason=\"{reason}\"}}");
        *self.metrics().get(&name).unwrap_or_else(|| panic!("{name} is counted")) as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let broker = self.broker.take();
        let _inside = self.runtime.enter();
        drop(broker);
    }
}
