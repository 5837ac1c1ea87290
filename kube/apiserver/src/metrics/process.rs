//! What the process takes, read from `/proc` when somebody asks, under the names that every client of Prometheus gives it.

use std::fs::read_to_string;
use std::io;

use prometheus::{Counter, IntGauge, Registry};

use super::counted;

/// Parts of a second in which the kernel tells times (`USER_HZ`, the same on every architecture).
const HZ: f64 = 100.0;

/// The values as they were seen last.
pub struct Process {
    cpu_seconds: Counter,
    /// Name in `/proc/self/status`, and of how many bytes (or pieces) it is.
    sizes: [(&'static str, i64, IntGauge); 3],
    files: IntGauge,
    files_max: IntGauge,
    begun: IntGauge,
}

impl Process {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| counted(registry, IntGauge::new(name, help));
        let cpu_seconds = Counter::new("process_cpu_seconds_total", "Seconds of a processor that the process used.");
        Ok(Self {
            cpu_seconds: counted(registry, cpu_seconds)?,
            sizes: [
                ("VmRSS:", 1024, gauge("process_resident_memory_bytes", "Memory that is in RAM.")?),
                ("VmSize:", 1024, gauge("process_virtual_memory_bytes", "Memory that has an address.")?),
                ("Threads:", 1, gauge("process_threads", "Threads of the process.")?),
            ],
            files: gauge("process_open_fds", "Files that are open.")?,
            files_max: gauge("process_max_fds", "Files that may be open.")?,
            begun: gauge("process_start_time_seconds", "When the process began, in seconds since 1970.")?,
        })
    }

    /// Looks anew.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn look(&self) -> io::Result<()> {
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
        let status = read_to_string("/proc/self/status")?;
        for (name, unit, gauge) in &self.sizes {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            gauge.set(number(line.and_then(|line| line.split_whitespace().next())) * unit);
        }
        let stat = read_to_string("/proc/self/stat")?;
        // The name before it may have spaces. Behind it stand, from the third field on: state, …
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let seconds = |nth: usize| number(fields.get(nth - 3).copied()) as f64 / HZ;
        self.cpu_seconds.inc_by((seconds(14) + seconds(15) - self.cpu_seconds.get()).max(0.0));
        let boot = read_to_string("/proc/stat")?;
        let boot = number(boot.lines().find_map(|line| line.strip_prefix("btime ")));
        self.begun.set(boot + seconds(22) as i64);
        self.files.set(std::fs::read_dir("/proc/self/fd")?.count().try_into().unwrap_or(i64::MAX));
        let limits = read_to_string("/proc/self/limits")?;
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        self.files_max.set(number(files.and_then(|files| files.split_whitespace().next())));
        Ok(())
    }
}
