//! `dev watchdog` ends the processes of a devstack that is gone.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

const SIGTERM: i32 = 15;

#[test]
fn when_the_devstack_is_gone_its_processes_are_ended() {
    let mut watchdog = Command::new(env!("CARGO_BIN_EXE_dev")).arg("watchdog").stdin(Stdio::piped()).spawn().unwrap();
    let mut worker = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let mut tie = watchdog.stdin.take().unwrap();
    writeln!(tie, "+{}", worker.id()).unwrap();
    tie.flush().unwrap();
    assert!(worker.try_wait().unwrap().is_none());
    // What a SIGKILL of the devstack does: the system closes its end of the pipe.
    drop(tie);
    assert_eq!(worker.wait().unwrap().signal(), Some(SIGTERM));
    assert!(watchdog.wait().unwrap().success());
}
