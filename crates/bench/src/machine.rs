//! What the kernel says about a measured window: CPU by whose it is, memory, bytes and flushes to the device.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::Fallible;

/// Kernel threads carry this bit in the flags field of `/proc/PID/stat` (`PF_KTHREAD`).
const KERNEL_THREAD_FLAG: u64 = 0x0020_0000;
/// `/proc/diskstats` counts in units of 512 bytes whatever the device's own sector is.
const SECTOR_BYTES: u64 = 512;

/// One process as `/proc/PID/stat` shows it.
struct Process {
    id: u32,
    parent: u32,
    kernel_thread: bool,
    cpu_ticks: u64,
}

/// Counters at one moment; two of them make a [`Window`].
pub struct Snapshot {
    at: Instant,
    server_ticks: u64,
    client_ticks: u64,
    kernel_ticks: u64,
    busy_ticks: u64,
    stolen_ticks: u64,
    server_written_bytes: u64,
    device: Option<Device>,
}

/// The counters of the block device under the data directory.
#[derive(Clone, Copy)]
pub struct Device {
    /// Bytes the device was asked to write.
    pub written_bytes: u64,
    /// Flush requests that reached the device: one per sync that had something to make durable.
    pub flushes: u64,
}

/// What happened between two snapshots.
pub struct Window {
    /// Wall clock seconds.
    pub seconds: f64,
    /// CPU seconds of the server's processes.
    pub server_cpu_seconds: f64,
    /// CPU seconds of this process and its children, the server left out.
    pub client_cpu_seconds: f64,
    /// Cores that anything else in user space took; above [`NOISE_CORES`] the figures are marked.
    pub other_cores: f64,
    /// Cores the host took away from this machine.
    pub stolen_cores: f64,
    /// Bytes the server caused to be written, by its `/proc/PID/io`.
    pub server_written_bytes: u64,
    /// Bytes and flushes at the device, by anyone.
    pub device: Option<Device>,
}

/// A window in which other processes took more of a core than this is marked as noisy.
pub const NOISE_CORES: f64 = 0.4;

/// What of the memory that can be had is filled.
const FILLED_PERCENT: u64 = 85;
const READ_BYTES: usize = 1 << 20;

/// Fills the page cache by reading a file without content, as it is full on any machine that has worked for a while: a page
/// that a server needs is then taken from this file. A virtual machine gives its free memory back to its host, and the first
/// touch of such a page costs a fault there, many times what the copy into it does; whoever runs first would pay for all.
/// To be called before each run, since each frees what it had. Says how many MiB it was.
pub fn fill_page_cache(scratch: &Path) -> Fallible<u64> {
    let path = scratch.join("page-cache");
    if !path.exists() {
        let available_bytes = labelled("/proc/meminfo", "MemAvailable:").unwrap_or(0) * 1024;
        fs::File::create(&path)?.set_len(available_bytes / 100 * FILLED_PERCENT)?;
    }
    let mut file = fs::File::open(&path)?;
    let mut bytes = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        match std::io::Read::read(&mut file, &mut bytes)? {
            0 => return Ok(filled >> 20),
            read => filled += read as u64,
        }
    }
}

impl Snapshot {
    /// Reads all counters now. `servers` are the server's process ids; their children count with them.
    /// `data` is the server's data directory, which names the device.
    pub fn take(servers: &[u32], data: &Path) -> Fallible<Self> {
        let processes = processes()?;
        let server = with_descendants(&processes, servers, &HashSet::new());
        let client = with_descendants(&processes, &[std::process::id()], &server);
        let ticks = |wanted: &dyn Fn(&Process) -> bool| -> u64 {
            processes.iter().filter(|process| wanted(process)).map(|process| process.cpu_ticks).sum()
        };
        let (busy_ticks, stolen_ticks) = machine_ticks()?;
        Ok(Self {
            at: Instant::now(),
            server_ticks: ticks(&|process| server.contains(&process.id)),
            client_ticks: ticks(&|process| client.contains(&process.id)),
            kernel_ticks: ticks(&|process| process.kernel_thread),
            busy_ticks,
            stolen_ticks,
            server_written_bytes: server.iter().filter_map(|id| written_bytes(*id)).sum(),
            device: device(data),
        })
    }

    /// The difference from `self` to `end`.
    pub fn until(&self, end: &Self) -> Window {
        let second = rustix::param::clock_ticks_per_second() as f64;
        let since = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / second;
        let seconds = end.at.duration_since(self.at).as_secs_f64();
        let server_cpu_seconds = since(end.server_ticks, self.server_ticks);
        let client_cpu_seconds = since(end.client_ticks, self.client_ticks);
        let accounted = server_cpu_seconds + client_cpu_seconds + since(end.kernel_ticks, self.kernel_ticks);
        Window {
            seconds,
            server_cpu_seconds,
            client_cpu_seconds,
            other_cores: (since(end.busy_ticks, self.busy_ticks) - accounted).max(0.0) / seconds,
            stolen_cores: since(end.stolen_ticks, self.stolen_ticks) / seconds,
            server_written_bytes: end.server_written_bytes.saturating_sub(self.server_written_bytes),
            device: self.device.zip(end.device).map(|(earlier, later)| Device {
                written_bytes: later.written_bytes.saturating_sub(earlier.written_bytes),
                flushes: later.flushes.saturating_sub(earlier.flushes),
            }),
        }
    }
}

fn processes() -> Fallible<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|text| text.parse::<u32>().ok()) else { continue };
        // A process that ended since the listing is simply not counted.
        let Ok(text) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        if let Some(process) = parse_process(id, &text) {
            found.push(process);
        }
    }
    Ok(found)
}

/// Field numbers are those of proc(5), less the two before the closing parenthesis of the command's name.
fn parse_process(id: u32, text: &str) -> Option<Process> {
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        id,
        parent: u32::try_from(number(1)?).ok()?,
        kernel_thread: number(6)? & KERNEL_THREAD_FLAG != 0,
        cpu_ticks: number(11)? + number(12)?,
    })
}

fn with_descendants(processes: &[Process], roots: &[u32], except: &HashSet<u32>) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process.id);
    }
    let mut found = HashSet::new();
    let mut open: Vec<u32> = roots.to_vec();
    while let Some(id) = open.pop() {
        if !except.contains(&id) && found.insert(id) {
            open.extend(children.get(&id).into_iter().flatten());
        }
    }
    found
}

/// Ticks in user, nice and system of all processors, and ticks stolen by the host.
fn machine_ticks() -> Fallible<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().ok_or("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0);
    Ok((field(0) + field(1) + field(2), field(7)))
}

fn written_bytes(id: u32) -> Option<u64> {
    labelled(&format!("/proc/{id}/io"), "write_bytes:")
}

fn labelled(path: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Counters of the whole device that holds `path`; none when it lies on no block device (tmpfs, overlay).
pub fn device(path: &Path) -> Option<Device> {
    let id = fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))?;
    let (major, minor) = (rustix::fs::major(id), rustix::fs::minor(id));
    let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // Flushes are counted for whole devices only.
    let whole = if folder.join("partition").exists() { folder.parent()? } else { folder.as_path() };
    let text = fs::read_to_string(whole.join("stat")).ok()?;
    let fields: Vec<u64> = text.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(Device { written_bytes: fields.get(6)? * SECTOR_BYTES, flushes: *fields.get(15)? })
}

/// Resident memory of `servers` in MiB: now, and the most since [`reset_peak`].
pub fn resident_mib(servers: &[u32]) -> (f64, f64) {
    let sum = |label: &str| {
        let kib: u64 = servers.iter().filter_map(|id| labelled(&format!("/proc/{id}/status"), label)).sum();
        kib as f64 / 1024.0
    };
    (sum("VmRSS:"), sum("VmHWM:"))
}

/// Starts the peak of resident memory anew. Without permission the peak since start stays, so this never fails.
pub fn reset_peak(servers: &[u32]) {
    for id in servers {
        let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
    }
}

/// Load average over one minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(f64::NAN)
}

/// One line each: processor, kernel, memory, file system of `data`.
pub fn describe(data: &Path) -> Vec<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib = labelled("/proc/meminfo", "MemTotal:").unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|point| data.starts_with(point)))
        .max_by_key(|line| line.split(' ').nth(1).map_or(0, str::len))
        .unwrap_or("?");
    vec![
        format!("processor   {} x {}", cores, model.trim_start_matches([' ', '\t', ':'])),
        format!("memory      {} MiB, kernel {}", memory_kib / 1024, kernel.trim()),
        format!("data under  {} ({mount})", data.display()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_do_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 2097216 1 2 3 4 150 50 9 9 20 0 1 0 5 6 7";
        let process = parse_process(42, text).unwrap();
        assert_eq!((process.parent, process.cpu_ticks, process.kernel_thread), (7, 200, true));
    }

    #[test]
    fn the_servers_children_count_with_it_and_not_with_the_client() {
        let process = |id, parent| Process { id, parent, kernel_thread: false, cpu_ticks: 1 };
        let all = [process(1, 0), process(10, 1), process(11, 10), process(12, 11), process(13, 10)];
        let server = with_descendants(&all, &[11], &HashSet::new());
        assert_eq!(server, HashSet::from([11, 12]));
        assert_eq!(with_descendants(&all, &[10], &server), HashSet::from([10, 13]));
    }
}
