//! What Linux tells about a process: the CPU time it has used and the memory it has held.

use std::io;
use std::time::Duration;

/// `/proc/PID/stat` counts in hundredths of a second, whatever the kernel's own tick: `USER_HZ` of x86-64 and arm64.
const TICKS_PER_SECOND: u32 = 100;

/// A look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all its threads, ended ones included, children not.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes: now, and at most so far.
    pub(crate) rss: u64,
    pub(crate) peak_rss: u64,
}

/// Looks at a running process.
///
/// # Errors
/// When there is no such process, or this is not Linux.
pub(crate) fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let odd = |file| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{file} is not as documented"));
    Ok(Usage {
        cpu: cpu_time(&stat).ok_or_else(|| odd("stat"))?,
        rss: memory(&status, "VmRSS:").ok_or_else(|| odd("status"))?,
        peak_rss: memory(&status, "VmHWM:").ok_or_else(|| odd("status"))?,
    })
}

/// Reads fields 14 and 15 (utime, stime). The name in field 2 may contain blanks and parentheses.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs(user + system) / TICKS_PER_SECOND)
}

/// Reads a line such as `VmHWM:     12345 kB`, in bytes.
fn memory(status: &str, name: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_plus_system_whatever_the_name() {
        let stat = "4242 (image) (worker 1) S 1 4242 4242 0 -1 4194560 11 0 3 0 250 75 900 900 20 0 9 0 77 1 2";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(3250)));
        assert_eq!(cpu_time("4242 (image-worker) S 1 2"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\timage-worker\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nThreads:\t9\n";
        assert_eq!(memory(status, "VmHWM:"), Some(200 << 20));
        assert_eq!(memory(status, "VmRSS:"), Some(100 << 20));
        assert_eq!(memory(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss > 0 && usage.peak_rss >= usage.rss, "{usage:?}");
        assert_eq!(super::usage(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
