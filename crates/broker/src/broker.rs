//! Starting and stopping a broker.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_log::{Clock, Disk, FileDisk, Log, LogOptions, OpenError, RecoveryReport, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::accept::{Acceptor, accept};
use crate::connection::{Budgets, InputBudget, OutputBudget};
use crate::fetch_waiters::FetchWaiters;
use crate::groups::core::CoreOptions;
use crate::groups::service::{GroupOptions, GroupService, GroupsError};
use crate::metrics::{self, BrokerCollector, Metrics, MetricsServer};
use crate::producer_ids::ProducerIds;
use crate::settings::{BrokerValues, LiveSettings, Settings};
use crate::state::{BrokerState, tables};

const MS_PER_MINUTE: i64 = 60_000;

/// What a broker needs to start.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where everything is kept. Created if it is missing; one process at a time.
    pub data: PathBuf,
    /// Where clients connect, as `host:port`; port 0 is any that is free.
    pub listen: String,
    /// Where clients are told to connect, as `host:port`; the address of `listen` if none.
    pub advertised: Option<String>,
    /// Where metrics and health are served over HTTP, as `host:port`; nowhere if none.
    pub metrics: Option<String>,
    /// Everything else.
    pub settings: Settings,
}

impl BrokerOptions {
    /// A broker on a free port of the loopback interface, with its data in this directory.
    pub fn local(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: "127.0.0.1:0".to_owned(),
            advertised: None,
            metrics: None,
            settings: Settings::default(),
        }
    }
}

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The log cannot be opened.
    #[error("the data cannot be opened: {0}")]
    Log(#[from] OpenError),
    /// The groups cannot be read.
    #[error("the consumer groups cannot be opened: {0}")]
    Groups(#[from] GroupsError),
    /// Nobody could connect.
    #[error("cannot listen on {address}: {source}; stop what listens there, or choose another address")]
    Listen {
        /// The address.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The advertised address makes no sense, or is missing where there is no sensible default.
    #[error(
        "{0:?} is nothing that clients could connect to; give them an address with --advertised-listener host:port"
    )]
    Advertised(String),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}

/// A running broker. Dropping it stops it without waiting for anything but the disk.
pub struct Broker {
    state: Arc<BrokerState>,
    address: SocketAddr,
    report: RecoveryReport,
    shutdown: watch::Sender<bool>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    metrics: Option<MetricsServer>,
}

impl Broker {
    /// Opens the log and starts to serve, on the runtime of the caller.
    ///
    /// # Errors
    /// When the address is taken, or the data directory cannot be used or read.
    pub async fn start(options: BrokerOptions) -> Result<Self, StartError> {
        let listener = listen(&options.listen).await?;
        let path = options.data.clone();
        // Opening may read a lot.
        let opening = tokio::task::spawn_blocking(move || FileDisk::open(&path));
        let opened = opening.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let disk = opened.map_err(|source| StartError::Directory { path: options.data.clone(), source })?;
        Self::start_with(listener, Arc::new(disk), Arc::new(SystemClock), options).await
    }

    /// The same on any disk and clock; `options.data` is then only a name.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_on(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: BrokerOptions,
    ) -> Result<Self, StartError> {
        let listener = listen(&options.listen).await?;
        Self::start_with(listener, disk, clock, options).await
    }

    async fn start_with(
        listener: TcpListener,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: BrokerOptions,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(|source| listen_error(&options.listen, source))?;
        let advertised = advertised(options.advertised.as_deref(), address)?;
        let values = options.settings.values();
        let fetch_waiters = Arc::new(FetchWaiters::default());
        let (log_options, log_clock, observer) = (log_options(&values), clock.clone(), fetch_waiters.clone());
        let opening = tokio::task::spawn_blocking(move || Log::open(disk, log_clock, log_options, observer));
        let (log, report) = opening.await.unwrap_or_else(|error| Err(OpenError::Io(io::Error::other(error))))?;
        log.start().map_err(StartError::Thread)?;
        let runtime = tokio::runtime::Handle::current();
        let groups = GroupService::open(log.clone(), clock.clone(), group_options(&values), runtime)?;
        let (shutdown, receiver) = watch::channel(false);
        let state = Arc::new(BrokerState {
            settings: LiveSettings::new(options.settings, stored_changes(&log)),
            fetch_waiters,
            metrics: Arc::new(Metrics::default()),
            groups,
            data: options.data.display().to_string(),
            disk_reads: Arc::new(Semaphore::new(values.disk_reads_max)),
            fetched_bytes: Arc::new(Semaphore::new(values.fetched_bytes_max.min(Semaphore::MAX_PERMITS))),
            unread: Arc::new(OutputBudget::new(values.queued_response_bytes_max)),
            catalog_changes: Arc::default(),
            producer_ids: ProducerIds::default(),
            clock,
            log,
            advertised,
            shutdown: receiver,
        });
        let input = Arc::new(InputBudget::new(values.queued_request_bytes_max));
        let budgets = Budgets { input, output: state.unread.clone() };
        let metrics = match &options.metrics {
            None => None,
            Some(address) => {
                let collector = BrokerCollector { state: state.clone(), budget: budgets.input.clone() };
                let serving = metrics::serve(address, collector).await;
                Some(serving.map_err(|source| listen_error(address, source))?)
            }
        };
        let acceptor = Acceptor::new(state.clone(), &values, budgets);
        let accepting = Some(tokio::spawn(accept(listener, acceptor)));
        Ok(Self { state, address, report, shutdown, accepting, metrics })
    }

    /// Where clients can connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|metrics| metrics.address)
    }

    /// What opening the log found.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// Topics, and partitions of all of them.
    pub fn catalog_size(&self) -> (usize, usize) {
        let catalog = self.state.log.catalog();
        (catalog.topic_count(), catalog.partition_count())
    }

    /// Resolves when the log was stopped by a failed write, with the reason: only a restart helps.
    pub async fn poisoned(&self) -> String {
        self.state.fetch_waiters.poisoned_reason().await
    }

    /// Accepts no more, answers what was asked, puts everything on the disk, and closes the log. Connections that are not
    /// done at the deadline are cut; returns whether there were any.
    pub async fn stop(mut self, deadline: Duration) -> bool {
        // Nobody listening is fine.
        let _ = self.shutdown.send(true);
        self.state.groups.close();
        let mut was_cut = false;
        if let Some(mut accepting) = self.accepting.take()
            && tokio::time::timeout(deadline, &mut accepting).await.is_err()
        {
            accepting.abort();
            // Ends in any case; connections end with the task that holds them.
            let _ = accepting.await;
            was_cut = true;
        }
        let log = self.state.log.clone();
        // Waits for the disk. A panic there leaves nothing to wait for.
        let _ = tokio::task::spawn_blocking(move || log.close()).await;
        was_cut
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            // Stopped without `stop`: connections are cut; what was acknowledged is on the disk.
            let _ = self.shutdown.send(true);
            accepting.abort();
            self.state.groups.close();
            self.state.log.close();
        }
    }
}

async fn listen(address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| listen_error(address, source))
}

fn listen_error(address: &str, source: io::Error) -> StartError {
    StartError::Listen { address: address.to_owned(), source }
}

/// What clients are told to connect to.
fn advertised(given: Option<&str>, bound: SocketAddr) -> Result<(String, u16), StartError> {
    match given {
        Some(text) => parse_address(text).ok_or_else(|| StartError::Advertised(text.to_owned())),
        // "All addresses" is none that a client could use.
        None if bound.ip().is_unspecified() => Err(StartError::Advertised(bound.to_string())),
        None => Ok((bound.ip().to_string(), bound.port())),
    }
}

fn parse_address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host.to_owned(), port))
}

// The log has one option more in builds for its own tests.
#[allow(clippy::needless_update)]
fn log_options(values: &BrokerValues) -> LogOptions {
    LogOptions {
        segment_bytes: values.segment_bytes,
        reserve_step_bytes: values.reserve_step_bytes,
        free_bytes_min: values.disk_free_bytes_min,
        pending_bytes_max: values.pending_bytes_max,
        index_cache_bytes: values.index_cache_bytes,
        producers_max: values.producers_max,
        producer_id_expiration_ms: values.producer_expiration_ms,
        ..LogOptions::default()
    }
}

fn group_options(values: &BrokerValues) -> GroupOptions {
    GroupOptions {
        core: CoreOptions {
            session_timeout_min_ms: values.session_timeout_min_ms,
            session_timeout_max_ms: values.session_timeout_max_ms,
            initial_rebalance_delay_ms: values.rebalance_delay_ms,
            members_max: values.group_members_max,
            groups_max: values.groups_max,
            group_bytes_max: values.group_bytes_max,
            bytes_max: values.groups_bytes_max,
        },
        offset_metadata_max: values.offset_metadata_max,
        offsets_retention_ms: values.offsets_retention_minutes.saturating_mul(MS_PER_MINUTE),
        offsets_retention_check_interval: Duration::from_millis(values.offsets_check_interval_ms),
        offset_commit_timeout: Duration::from_millis(values.offset_commit_timeout_ms),
        offsets_max: values.offsets_max,
        offsets_bytes_max: values.offsets_bytes_max,
    }
}

fn stored_changes(log: &Log) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    log.table_scan(tables::BROKER_SETTINGS, &[]).iter().map(|(name, value)| (text(name), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_that_they_can_use() {
        let bound = "127.0.0.1:9092".parse().expect("an address");
        assert_eq!(advertised(None, bound).expect("as bound"), ("127.0.0.1".to_owned(), 9092));
        assert_eq!(advertised(Some("[::1]:7"), bound).expect("as given"), ("::1".to_owned(), 7));
        for wrong in ["host", "host:", ":5", "host:0", "host:70000"] {
            assert!(advertised(Some(wrong), bound).is_err(), "{wrong}");
        }
        let everywhere = "0.0.0.0:9092".parse().expect("an address");
        assert!(advertised(None, everywhere).is_err(), "0.0.0.0 is nowhere to connect to");
    }
}
