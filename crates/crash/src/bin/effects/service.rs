//! A service that embeds the broker: it sends and handles what others handle too, and when it dies, the broker dies with it.

use std::path::PathBuf;
use std::time::Duration;

use baton::Baton;
use baton_crash::CrashError;
use clap::Args;

use crate::{Common, consumer, failed, prepare, producer, told_to_end};

/// How often is looked for the marker of the driver.
const MARKER_POLL: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct ServiceArguments {
    #[command(flatten)]
    common: Common,
    /// Where the broker keeps everything.
    #[arg(long)]
    data: PathBuf,
    /// Where it listens.
    #[arg(long)]
    listen: String,
}

pub(crate) async fn serve(arguments: &ServiceArguments) -> Result<(), CrashError> {
    let ServiceArguments { common, data, listen } = arguments;
    let address = format!("embedded://{}?listen={listen}&broker.group.min.session.timeout.ms=1000", data.display());
    let baton = Baton::connect(address).await.map_err(failed("the broker in this process"))?;
    prepare::prepare(&baton, common).await?;
    let stop_sending = async {
        let marker = common.history.join("stop-sending");
        while !marker.exists() {
            tokio::time::sleep(MARKER_POLL).await;
        }
    };
    let (sent, handled) = tokio::join!(
        producer::produce(&baton, common, stop_sending),
        consumer::consume(&baton, common, told_to_end()?)
    );
    sent.and(handled)
}
