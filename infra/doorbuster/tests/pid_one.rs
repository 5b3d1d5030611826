//! The program as PID 1, as in a container: it gets no default action of a signal, and becomes the
//! parent of every process whose own has ended.

mod support;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{Process, Serving, children, in_namespaces, status_of, wait_until};

/// Linux's flag of `open` not to wait.
const O_NONBLOCK: i32 = 0o4000;

/// The program as PID 1 of this command's namespace.
fn pid_one(command: &Process) -> Pid {
    let pid = Pid::from_child(&command.0);
    wait_until("the program runs as PID 1", || {
        let program = children(pid).pop()?;
        let status = status_of(program.as_raw_pid())?;
        let is_program = status.starts_with("Name:\tdoorbuster\n");
        let is_first = status.contains(&format!("\nNSpid:\t{program}\t1\n"));
        (is_program && is_first).then_some(program)
    })
}

#[test]
fn it_drains_on_sigterm_and_processes_left_to_it_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    // Their parent ends at once, so these become children of PID 1.
    let command = in_namespaces(&["--pid"], "(sleep 2 & sleep 2 & sleep 2 &)");
    let mut serving = Serving::start(command, dir.path(), Stdio::null());
    let program = pid_one(&serving.process);
    wait_until("three processes have ended as its children", || {
        let zombies = children(program)
            .into_iter()
            .filter_map(|child| status_of(child.as_raw_pid()));
        (zombies
            .filter(|status| status.contains("\nState:\tZ"))
            .count()
            == 3)
            .then_some(())
    });
    serving.until_ready();
    kill_process(program, Signal::TERM).unwrap();
    assert_eq!(serving.process.end(), Some(0));
}

#[test]
fn a_sigterm_during_the_start_ends_it() {
    // The start waits for ever, since the pipe in place of the key does not end.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.key");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let child = in_namespaces(&["--pid"], "true")
        .args(["--listen", "127.0.0.1:0"])
        .args(["--operations-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let program = pid_one(&process);
    // It can be opened once the program reads it.
    let _pipe = wait_until("the start reads the key", || {
        let mut options = File::options();
        let options = options.write(true).custom_flags(O_NONBLOCK);
        options.open(&path).ok()
    });
    kill_process(program, Signal::TERM).unwrap();
    assert_eq!(process.end(), Some(0));
}
