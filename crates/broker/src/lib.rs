//! The embeddable broker that any Kafka client can use.
//!
//! [`Broker::start`] opens the log in a directory and serves the Kafka protocol from it, on the caller's runtime. It prints
//! nothing, catches no signals and has no globals: several brokers can run in one process, each on its own directory.
//!
//! ```
//! use std::time::Duration;
//! use baton_broker::{Broker, BrokerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let data = directory.path();
//! tokio::runtime::Runtime::new()?.block_on(async {
//!     let mut options = BrokerOptions::local(data);
//!     options.settings.set("num.partitions", "6")?;
//!     let broker = Broker::start(options).await?;
//!     println!("any Kafka client can connect to {}", broker.address());
//!     broker.stop(Duration::from_secs(10)).await;
//!     Ok(())
//! })
//! # }
//! ```

mod accept;
mod broker;
mod connection;
mod fetch_waiters;
pub mod groups;
mod handlers;
mod metrics;
mod producer_ids;
mod request;
mod router;
pub mod settings;
mod state;
mod topics;

pub use broker::{Broker, BrokerOptions, StartError};
pub use settings::Settings;
