//! The program: its messages when something is missing, parts that start again, and that a set never outlives
//! its owner.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use engines::Engines;

/// The program in an environment without Java, Maven and cache.
fn program(path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
    command
        .env_remove("JAVA_HOME")
        .env("PATH", path)
        .env("XDG_CACHE_HOME", path.join("cache"));
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The path of a program on the `PATH`.
fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|at| at.exists());
    found.unwrap_or_else(|| panic!("no {program} on the PATH"))
}

#[test]
fn without_java_the_error_says_what_to_install() {
    let empty = tempfile::tempdir().unwrap();
    let output = program(empty.path())
        .args(["run", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(
        stderr.contains("the engines need Java 17, and there is no `java`"),
        "{stderr}"
    );
    assert!(
        stderr.contains("apt-get install openjdk-17-jdk-headless"),
        "{stderr}"
    );
}

#[test]
fn an_old_java_is_refused_with_its_version() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let java = dir.path().join("java");
    fs::write(
        &java,
        "#!/bin/sh\necho 'openjdk version \"11.0.28\" 2025-07-15' >&2\n",
    )
    .unwrap();
    fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).unwrap();
    let output = program(dir.path())
        .args(["run", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(
        stderr.contains("need Java 17") && stderr.contains("\"11.0.28\""),
        "{stderr}"
    );
}

#[test]
fn without_maven_the_error_says_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    symlink(which("java"), dir.path().join("java")).unwrap();
    let output = program(dir.path())
        .args(["run", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(
        stderr.contains("fetching Apache Kafka 4.2.1 needs Maven"),
        "{stderr}"
    );
    assert!(stderr.contains("apt-get install maven"), "{stderr}");
}

#[test]
fn status_and_down_report_that_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let run = |command_name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
        command
            .arg(command_name)
            .arg("--dir")
            .arg(dir.path())
            .output()
            .unwrap()
    };
    let status = run("status");
    assert_eq!(status.status.code(), Some(1));
    let expected = format!(
        "start them with `engines up --dir {}`",
        dir.path().display()
    );
    assert!(stderr(&status).contains(&expected), "{}", stderr(&status));
    let down = run("down");
    assert_eq!(down.status.code(), Some(0));
    assert!(
        stderr(&down).contains("No engines run in"),
        "{}",
        stderr(&down)
    );
}

#[test]
fn messages_that_cannot_be_printed_do_not_change_the_status() {
    let dir = tempfile::tempdir().unwrap();
    for (command_name, expected) in [("status", 1), ("down", 0)] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let (_, closed) = std::io::pipe().unwrap();
        for stderr in [Stdio::from(full), Stdio::from(closed)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
            let command = command.arg(command_name).arg("--dir").arg(dir.path());
            let status = command.stderr(stderr).status().unwrap();
            assert_eq!(status.code(), Some(expected), "{command_name}");
        }
    }
}

#[test]
fn two_brokers_are_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
    let output = command.args(["up", "--brokers", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("a set has 1 or 3 brokers"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_part_that_cannot_start_shows_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cassandra")).unwrap();
    fs::write(dir.path().join("cassandra").join("data"), "no directory").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
    let output = command
        .arg("up")
        .arg("--dir")
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = dir.path().join("cassandra").join("log");
    let expected = format!(
        "cassandra ended before it answered; the end of {}:",
        log.display()
    );
    let stderr = stderr(&output);
    let (_, tail) = stderr
        .split_once(&expected)
        .unwrap_or_else(|| panic!("{stderr}"));
    let text = fs::read_to_string(&log).unwrap();
    assert!(tail.contains(text.lines().last().unwrap()), "{tail}");
    assert_eq!(
        processes_of(dir.path()),
        Vec::<PathBuf>::new(),
        "the other parts have ended"
    );
}

#[test]
fn parts_that_died_start_again_with_their_ports_and_data() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
        command.args(arguments).arg("--dir").arg(dir.path());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        (output.status.code(), text, stderr(&output))
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_engines"));
    command.arg("up").arg("--dir").arg(dir.path());
    let _owner = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    // All parts answer when their settings are printed.
    wait_until("the set runs", || dir.path().join("env").exists());
    let engines = Engines::attach(dir.path()).unwrap();
    let topics = |arguments: &[&str]| {
        let brokers = engines.kafka_brokers();
        let arguments = [&["--bootstrap-server", &brokers], arguments].concat();
        let class = "org.apache.kafka.tools.TopicCommand";
        let output = engines.kafka().tool(class, &arguments).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    topics(&["--create", "--topic", "kept"]);
    let addresses = |engines: &Engines| {
        let parts = engines.status().into_iter();
        parts.map(|part| part.address).collect::<Vec<_>>()
    };
    let before = addresses(&engines);

    engines.kafka().kill(1).unwrap();
    engines.registry().stop().unwrap();
    assert_eq!(run(&["status"]).0, Some(1));
    let (status, _, error) = run(&["start", "kafka"]);
    assert_eq!(status, Some(1));
    let expected = "no part `kafka`: it has kafka-1, cassandra, registry";
    assert!(error.contains(expected), "{error}");
    let (status, text, error) = run(&["start", "kafka-1", "cassandra"]);
    assert_eq!(
        (status, &*text),
        (Some(0), "kafka-1 answers again\n"),
        "{error}"
    );
    let (status, text, error) = run(&["start"]);
    assert_eq!(
        (status, &*text),
        (Some(0), "registry answers again\n"),
        "{error}"
    );
    assert_eq!(run(&["start"]).1, "nothing had ended\n");
    let (status, text, _) = run(&["status"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(addresses(&engines), before);
    assert_eq!(topics(&["--list"]).trim(), "kept");
    assert_eq!(run(&["down"]).0, Some(0));
}

#[test]
fn a_set_does_not_outlive_its_owner() {
    // The command prints the set's directory, and ends with this test, whose pipe it reads.
    let mut owner = Command::new(env!("CARGO_BIN_EXE_engines"))
        .args([
            "run",
            "--brokers",
            "1",
            "--",
            "sh",
            "-c",
            "echo $ENGINES_DIR; exec cat",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut dir = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut dir)
        .unwrap();
    let dir = PathBuf::from(dir.trim());
    assert_eq!(processes_of(&dir).len(), 3);
    owner.kill().unwrap();
    // The engines end soon after the kernel has removed the owner.
    wait_until("the engines and their directory are gone", || {
        processes_of(&dir).is_empty() && !dir.exists()
    });
    owner.wait().unwrap();
}

/// A process, killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for what must happen, for longer than a busy machine takes.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// The Java processes that name the directory in their command line.
fn processes_of(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.to_str().unwrap();
    assert!(!dir.is_empty());
    let entries = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|entry| {
            let command_line = fs::read(entry.join("cmdline")).unwrap_or_default();
            let command_line = String::from_utf8_lossy(&command_line);
            let program = command_line.split('\0').next().unwrap_or_default();
            program.ends_with("java") && command_line.contains(dir)
        })
        .collect()
}
