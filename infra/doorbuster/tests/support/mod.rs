//! The binary itself, started by a test; and all services in the process of the test.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod instance;
pub mod python;
mod venv;

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

/// The longest that a test waits for what must happen. It is long, since the machine may be slow; no test
/// passes or fails by how much of it is used.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
pub fn doorbuster() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbuster"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DOORBUSTER_")) {
        command.env_remove(name);
    }
    command
}

/// A device that is always full.
pub fn full_disk() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe whose reader is gone.
pub fn closed_pipe() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// A pipe that is full and not read while the reader is kept.
pub fn stuck_pipe() -> (Stdio, PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    loop {
        match writer.write(&[b'.'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(&writer, flags).unwrap();
    (writer.into(), reader)
}

/// The program, run by a shell after this script.
pub fn in_shell(script: &str) -> Command {
    let program = doorbuster();
    let mut command = Command::new("sh");
    command.args(["-c", &format!(r#"{script}; exec "$0" "$@""#)]);
    command.arg(program.get_program());
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command
}

/// The program, run by a shell after this script, in namespaces of its own: what `unshare` names. The
/// child of the command's process is the program. Ends with that process.
pub fn in_namespaces(namespaces: &[&str], script: &str) -> Command {
    let mut unshare = vec!["--fork", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        unshare.extend(["--user", "--map-root-user"]);
    }
    unshare.extend(namespaces);
    let tried = Command::new("unshare").args(&unshare).arg("true").output();
    let tried = tried.expect("unshare of util-linux is needed");
    let error = String::from_utf8_lossy(&tried.stderr);
    assert!(
        tried.status.success(),
        "this machine does not let this user make namespaces; run the test as root, or allow them \
         (sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a container with CAP_SYS_ADMIN): \
         {error}"
    );
    let shell = in_shell(script);
    let mut command = Command::new("unshare");
    command.args(unshare).arg(shell.get_program());
    command.args(shell.get_args());
    for (name, _) in shell.get_envs() {
        command.env_remove(name);
    }
    command
}

/// The processes whose parent is this one.
pub fn children(parent: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let parent = format!("\nPPid:\t{parent}\n");
    pids.filter(|pid| status_of(*pid).is_some_and(|status| status.contains(&parent)))
        .filter_map(Pid::from_raw)
        .collect()
}

/// `/proc/PID/status`; none if the process is gone.
pub fn status_of(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

/// A process, killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Sends it a signal.
    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended by itself, and returns the exit status.
    pub fn end(&mut self) -> Option<i32> {
        end_of(&mut self.0)
    }
}

/// A running `doorbuster serve`, killed when dropped.
pub struct Serving {
    /// Its process.
    pub process: Process,
    /// Its address.
    pub address: SocketAddr,
    /// Its address for operations.
    pub operations: SocketAddr,
    /// Its standard output.
    pub stdout: Option<BufReader<ChildStdout>>,
}

impl Serving {
    /// Starts it by a command that runs it, on a free port.
    pub fn start(mut command: Command, data_dir: &Path, stderr: Stdio) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .args(["--operations-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let address = address_after(&mut stdout, "Watch");
        let operations = address_after(&mut stdout, "Health");
        Self {
            process: Process(child),
            address,
            operations,
            stdout: Some(stdout),
        }
    }

    /// The whole answer to a request on its own connection.
    pub fn call(&self, method: &str, path: &str, body: &str) -> String {
        call(self.address, method, path, body)
    }

    /// The whole answer to a request for operations.
    pub fn ask(&self, path: &str) -> String {
        call(self.operations, "GET", path, "")
    }

    /// The status of the answer to a GET.
    pub fn status(&self, path: &str) -> u16 {
        let answer = self.call("GET", path, "");
        let status = answer
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        status
            .unwrap_or_else(|| panic!("{answer}"))
            .parse()
            .unwrap()
    }

    /// All metrics, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        self.ask("/metrics")
    }

    /// Waits until it takes orders for the demo sale.
    pub fn until_ready(&self) {
        wait_until("it takes orders", || {
            let answer = self.order();
            answer.starts_with("HTTP/1.1 202").then_some(())
        });
    }

    /// Orders one unit of the demo sale, and returns the answer.
    pub fn order(&self) -> String {
        let path = "/api/flash-sales/demo-sneaker/order";
        self.call("POST", path, r#"{"quantity":1}"#)
    }

    /// Ends it by SIGTERM; returns the exit status.
    pub fn terminate(mut self) -> Option<i32> {
        self.process.send(Signal::TERM);
        self.process.end()
    }
}

/// The whole answer to a request on its own connection.
pub fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-buyer-id: me\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The address in the next line of the welcome that begins with this word.
fn address_after(stdout: &mut impl BufRead, word: &str) -> SocketAddr {
    loop {
        let mut line = String::new();
        let read = stdout.read_line(&mut line).unwrap();
        assert!(read > 0, "it ended before it printed its addresses");
        if let Some(url) = line.trim().strip_prefix(word) {
            let address = url.trim().trim_start_matches("http://");
            let address = address.split('/').next().unwrap();
            return address.parse().unwrap();
        }
    }
}

/// The exit status of a process that ends by itself; none if a signal ended it.
pub fn end_of(child: &mut Child) -> Option<i32> {
    let status = wait_until("the process has ended", || child.try_wait().unwrap());
    assert_eq!(status.signal(), None);
    status.code()
}

/// Waits until a condition has a value.
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let pause = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if let Some(value) = condition() {
            return value;
        }
        std::thread::sleep(pause);
    }
    panic!("{PATIENCE:?} passed before {what}");
}
