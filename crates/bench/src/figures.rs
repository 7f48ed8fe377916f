//! One measured run, and how it is taken.

use std::path::Path;

use serde::Serialize;

use crate::Fallible;
use crate::machine::{self, NOISE_CORES, Snapshot};

/// The raw figures of one run, one JSON line each. Units are in the names; a missing value was not measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// From 1.
    pub round: u32,
    /// Name of the work.
    pub work: String,
    /// Who was measured.
    pub side: String,
    /// Records acknowledged or read.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Wall clock.
    pub seconds: f64,
    /// Records over seconds.
    pub records_per_second: f64,
    /// Request to acknowledgement, median.
    pub p50_us: Option<f64>,
    /// Request to acknowledgement, 99 of 100.
    pub p99_us: Option<f64>,
    /// CPU of the server's processes.
    pub server_cpu_us_per_record: f64,
    /// CPU of the client.
    pub client_cpu_us_per_record: f64,
    /// Cores the server took.
    pub server_cores: f64,
    /// Cores the client took.
    pub client_cores: f64,
    /// Cores other programs took.
    pub other_cores: f64,
    /// Cores the host took away.
    pub stolen_cores: f64,
    /// Other programs took more than 0.4 cores.
    pub noisy: bool,
    /// Load average of one minute at the end.
    pub load_average: f64,
    /// Most memory the server had resident during the run.
    pub resident_peak_mib: f64,
    /// Memory the server had resident after it.
    pub resident_after_mib: f64,
    /// Bytes the server's processes caused to be written, over bytes acknowledged.
    pub process_written_per_byte: f64,
    /// Bytes written to the device until everything was synced, over bytes acknowledged.
    pub device_written_per_byte: Option<f64>,
    /// Flush requests that reached the device, over records.
    pub flushes_per_record: Option<f64>,
    /// Syncs by the server's own count, over records.
    pub syncs_per_record: Option<f64>,
}

/// What the client of one run reports.
pub struct Outcome {
    /// Records acknowledged or read.
    pub records: u64,
    /// Wall clock by the client.
    pub seconds: f64,
    /// Latency percentiles in microseconds, where single acknowledgements were awaited.
    pub p50_p99_us: Option<(f64, f64)>,
}

/// What is being measured.
pub struct Subject<'a> {
    /// Name of the side.
    pub side: &'a str,
    /// The server's process ids.
    pub pids: &'a [u32],
    /// The server's data directory.
    pub data: &'a Path,
    /// Reads the server's own count of syncs.
    pub syncs: &'a dyn Fn() -> Option<f64>,
}

/// Runs `client` between two snapshots.
pub fn measure(
    subject: &Subject<'_>,
    work: &str,
    round: u32,
    record_bytes: usize,
    client: impl FnOnce() -> Fallible<Outcome>,
) -> Fallible<Figures> {
    // What earlier runs left in the page cache is not this run's.
    rustix::fs::sync();
    machine::reset_peak(subject.pids);
    let syncs_before = (subject.syncs)();
    let device_before = machine::device(subject.data);
    let before = Snapshot::take(subject.pids, subject.data)?;
    let outcome = client()?;
    let window = before.until(&Snapshot::take(subject.pids, subject.data)?);
    let syncs = syncs_before.zip((subject.syncs)()).map(|(earlier, later)| later - earlier);
    let (resident_after_mib, resident_peak_mib) = machine::resident_mib(subject.pids);
    // Flushes are those of the window; bytes also count what was acknowledged but not yet written.
    rustix::fs::sync();
    let device_bytes = device_before
        .zip(machine::device(subject.data))
        .map(|(earlier, later)| later.written_bytes.saturating_sub(earlier.written_bytes));
    let records = outcome.records.max(1) as f64;
    let bytes = outcome.records * record_bytes as u64;
    Ok(Figures {
        round,
        work: work.to_owned(),
        side: subject.side.to_owned(),
        records: outcome.records,
        bytes,
        seconds: outcome.seconds,
        records_per_second: outcome.records as f64 / outcome.seconds,
        p50_us: outcome.p50_p99_us.map(|(p50, _)| p50),
        p99_us: outcome.p50_p99_us.map(|(_, p99)| p99),
        server_cpu_us_per_record: window.server_cpu_seconds * 1e6 / records,
        client_cpu_us_per_record: window.client_cpu_seconds * 1e6 / records,
        server_cores: window.server_cpu_seconds / window.seconds,
        client_cores: window.client_cpu_seconds / window.seconds,
        other_cores: window.other_cores,
        stolen_cores: window.stolen_cores,
        noisy: window.other_cores > NOISE_CORES,
        load_average: machine::load_average(),
        resident_peak_mib,
        resident_after_mib,
        process_written_per_byte: window.server_written_bytes as f64 / bytes.max(1) as f64,
        device_written_per_byte: device_bytes.map(|written| written as f64 / bytes.max(1) as f64),
        flushes_per_record: window.device.map(|device| device.flushes as f64 / records),
        syncs_per_record: syncs.map(|syncs| syncs / records),
    })
}

/// What one sync costs here without any server: medians in microseconds, measured beside `data`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceProbe {
    /// 4 KiB appended and synced.
    pub append_4_kib_us: f64,
    /// 64 KiB appended and synced.
    pub append_64_kib_us: f64,
    /// 1 MiB appended and synced.
    pub append_1_mib_us: f64,
}

/// Appends and syncs a scratch file in `folder`.
pub fn probe_device(folder: &Path) -> Fallible<DeviceProbe> {
    let path = folder.join("device-probe");
    let mut probe = DeviceProbe::default();
    for (bytes, rounds, figure) in [
        (4 << 10, 400, &mut probe.append_4_kib_us),
        (64 << 10, 200, &mut probe.append_64_kib_us),
        (1 << 20, 50, &mut probe.append_1_mib_us),
    ] {
        let mut file = std::fs::File::create(&path)?;
        let block = crate::frames::noise(bytes);
        let mut micros = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = std::time::Instant::now();
            std::io::Write::write_all(&mut file, &block)?;
            file.sync_data()?;
            micros.push(start.elapsed().as_secs_f64() * 1e6);
        }
        *figure = crate::report::median(&micros).unwrap_or(f64::NAN);
    }
    std::fs::remove_file(&path)?;
    Ok(probe)
}
