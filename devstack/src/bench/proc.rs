//! What Linux tells about a process: the CPU time it has used and the memory it has held.

use std::io;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

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
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let odd = |file| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{file} is not as documented"));
    Ok(Usage {
        cpu: cpu_time(pid)?,
        rss: memory(&status, "VmRSS:").ok_or_else(|| odd("status"))?,
        peak_rss: memory(&status, "VmHWM:").ok_or_else(|| odd("status"))?,
    })
}

/// Reads the clock of the process, in nanoseconds: `/proc/PID/stat` counts in hundredths of a second.
fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    Ok(ClockId::pid_cpu_clock_id(pid)?.now()?.into())
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
    fn memory_is_in_bytes() {
        let status = "Name:\timage-worker\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nThreads:\t9\n";
        assert_eq!(memory(status, "VmHWM:"), Some(200 << 20));
        assert_eq!(memory(status, "VmRSS:"), Some(100 << 20));
        assert_eq!(memory(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss > 0 && usage.peak_rss >= usage.rss && usage.cpu > Duration::ZERO, "{usage:?}");
        assert!(super::usage(std::process::id()).unwrap().cpu > usage.cpu, "looking takes time, and is seen");
        assert_eq!(super::usage(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
