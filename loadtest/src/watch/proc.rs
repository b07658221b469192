//! `CpuMeter`: the CPU time of processes and of the machine, from Linux's `/proc`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{MachineLook, ProcessLook};

/// `/proc` counts in hundredths of a second, whatever the kernel's own tick: `USER_HZ` of x86-64 and arm64.
const TICKS_PER_SECOND: u32 = 100;
/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// CPU used between two looks.
#[derive(Debug, Default)]
pub struct CpuMeter {
    /// By name: process id and CPU time at the last look.
    last: HashMap<String, (u32, Duration)>,
    machine: Option<(u64, u64)>,
    looked: Option<Instant>,
}

impl CpuMeter {
    /// Looks at processes, each with a name, and returns the CPU each has used since the last look. One that was not there
    /// then is not in the answer.
    pub fn look(&mut self, processes: &[(String, u32)]) -> Vec<ProcessLook> {
        let now = Instant::now();
        let passed = self.looked.replace(now).map(|before| now - before).unwrap_or_default();
        let mut last = HashMap::new();
        let mut looks = Vec::new();
        for (name, pid) in processes {
            let Some(cpu) = cpu_time(*pid) else { continue };
            if let Some((_, before)) = self.last.get(name).filter(|(before, _)| before == pid)
                && !passed.is_zero()
            {
                let used = cpu.saturating_sub(*before).as_secs_f64();
                looks.push(ProcessLook { name: name.clone(), cpu_percent: 100.0 * used / passed.as_secs_f64() });
            }
            last.insert(name.clone(), (*pid, cpu));
        }
        self.last = last;
        looks
    }

    /// Returns how busy the machine has been since the last look.
    pub fn machine(&mut self) -> Option<MachineLook> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let (busy, all) = machine_ticks(&stat)?;
        let (busy_before, all_before) = self.machine.replace((busy, all))?;
        let passed = all.saturating_sub(all_before);
        let cores = u32::try_from(std::thread::available_parallelism().ok()?.get()).ok()?;
        #[expect(clippy::cast_precision_loss, reason = "ticks of a while")]
        let busy_percent = 100.0 * busy.saturating_sub(busy_before) as f64 / passed as f64;
        (passed > 0).then_some(MachineLook { cores, busy_percent })
    }
}

/// Returns the CPU time of this process; None outside Linux.
#[must_use]
pub fn own_cpu() -> Option<Duration> {
    cpu_time(std::process::id())
}

/// Returns user and system time of all threads of a process.
fn cpu_time(pid: u32) -> Option<Duration> {
    // Fields 14 and 15. The name in field 2 may contain blanks and parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs(user + system) / TICKS_PER_SECOND)
}

/// Returns busy and all ticks of all cores: everything but idle and waiting for a disk is busy, stolen time too.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
    let all = ticks.iter().sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

/// Returns whether there is such a process.
pub(super) fn is_alive(pid: u32) -> bool {
    cpu_time(pid).is_some()
}

/// Returns the process that listens on a port of 127.0.0.1.
pub(super) fn pid_of_port(port: u16) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = format!("socket:[{}]", listening_inode(&table, port)?);
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let folder = PathBuf::from(format!("/proc/{pid}/fd"));
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link.to_str() == Some(socket.as_str())))
    })
}

fn listening_inode(table: &str, port: u16) -> Option<&str> {
    let address = format!("0100007F:{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (*fields.get(1)? == address && *fields.get(3)? == LISTENING).then(|| fields.get(9).copied())?
    })
}

/// Returns a variable of a process of ours.
pub(super) fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment);
    text.split('\0').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(pid_of_port(port), Some(std::process::id()));
        drop(listener);
        assert_eq!(pid_of_port(port), None);
    }

    #[test]
    fn cpu_is_the_difference_of_two_looks_at_the_same_process() {
        let mut meter = CpuMeter::default();
        let this = [("this".to_owned(), std::process::id())];
        assert_eq!(meter.look(&this), []);
        let mut spun = 0_u64;
        while cpu_time(std::process::id()).unwrap() <= meter.last["this"].1 {
            spun = std::hint::black_box(spun + 1);
        }
        let looks = meter.look(&this);
        assert!(looks.len() == 1 && looks[0].cpu_percent > 0.0, "{looks:?}");
        // Another process of that name has no past.
        assert_eq!(meter.look(&[("this".to_owned(), 1)]), []);
    }

    #[test]
    fn a_machine_is_busy_unless_it_idles_or_waits_for_a_disk() {
        let stat = "cpu  100 5 50 800 40 1 2 2 7 0\ncpu0 1 2 3\n";
        assert_eq!(machine_ticks(stat), Some((160, 1000)));
        assert_eq!(machine_ticks("intr 1"), None);
    }

    #[test]
    fn a_variable_is_read_by_its_whole_name() {
        let child = std::process::Command::new("sleep").arg("60").env("SLOTS_ALL", "1").env("SLOTS", "7").spawn();
        let mut child = child.unwrap();
        // Until it has become `sleep`, it is a copy of this process.
        let found = std::iter::repeat_with(|| variable(child.id(), "SLOTS")).find(Option::is_some).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.as_deref(), Some("7"));
    }
}
