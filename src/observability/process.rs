//! What the system says of this process, under the names that all programs give it to Prometheus.

use std::fs;

use ::metrics::Gauge;

/// Parts of a second in which Linux tells times of processes (`USER_HZ`, the same on all its architectures).
const TICKS_A_SECOND: f64 = 100.0;

/// The numbers of the process. Where the system has no `/proc` they are zero.
pub(super) struct Process {
    resident: Gauge,
    open_files: Gauge,
    files_max: Gauge,
}

impl Process {
    /// `gauge` makes a gauge of a name and a meaning.
    pub(super) fn new(gauge: impl Fn(&'static str, &'static str) -> Gauge) -> Self {
        let started = gauge("process_start_time_seconds", "When the process started, seconds since 1970.");
        if let Some(at) = start_time() {
            started.set(at);
        }
        Self {
            resident: gauge("process_resident_memory_bytes", "Memory of the process that is in RAM."),
            open_files: gauge("process_open_fds", "File descriptors that are open: files, connections."),
            files_max: gauge("process_max_fds", "File descriptors that may be open."),
        }
    }

    /// Asks the system.
    pub(super) fn look(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kibibytes) = number_behind(&status, "VmRSS:") {
            self.resident.set(kibibytes * 1024.0);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = number_behind(&limits, "Max open files") {
            self.files_max.set(most);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One is what the folder is read by.
            self.open_files.set(open.count().saturating_sub(1) as f64);
        }
    }

    /// The processor's time that the process has had, as text: it counts up in parts of a second.
    pub(super) fn cpu(&self) -> String {
        let Some(stat) = Stat::read() else { return String::new() };
        format!(
            "# HELP process_cpu_seconds_total Time of processors that the process has had.\n\
             # TYPE process_cpu_seconds_total counter\n\
             process_cpu_seconds_total {}\n",
            stat.cpu_ticks / TICKS_A_SECOND
        )
    }
}

/// The first number behind `name` at the begin of a line.
fn number_behind(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What is used of `/proc/self/stat`.
struct Stat {
    /// In user and kernel mode together.
    cpu_ticks: f64,
    /// From the start of the machine to that of the process.
    started_ticks: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in brackets and may hold anything; the third field is the first one behind it.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, started_ticks: field(22)? })
    }
}

/// When the process started, seconds since 1970.
fn start_time() -> Option<f64> {
    let machine = number_behind(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(machine + Stat::read()?.started_ticks / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_anything() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 12345 1 2";
        let stat = Stat::parse(text).expect("the fields");
        assert_eq!((stat.cpu_ticks, stat.started_ticks), (300.0, 12_345.0));
    }

    #[test]
    fn a_number_is_found_by_its_name() {
        let text = "VmHWM:\t   99 kB\nVmRSS:\t  1234 kB\nMax open files            1024                 4096 files\n";
        assert_eq!(number_behind(text, "VmRSS:"), Some(1_234.0));
        assert_eq!(number_behind(text, "Max open files"), Some(1_024.0));
        assert_eq!(number_behind(text, "VmSwap:"), None);
    }
}
