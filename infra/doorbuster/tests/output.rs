//! Nobody reads what the program prints, or it cannot be written: services work and drain as
//! always, and tools end with the status of what they found.

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Serving, closed_pipe, doorbuster, end_of, full_disk, stuck_pipe, wait_until};

/// A service whose log is shown at level debug.
fn verbose() -> Command {
    let mut command = doorbuster();
    command.args(["serve", "--log-level", "debug"]);
    command
}

/// Every order is answered, and SIGTERM drains.
fn works_and_drains(serving: Serving) {
    serving.until_ready();
    for _ in 0..50 {
        let answer = serving.order();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    assert_eq!(serving.terminate(), Some(0));
}

#[test]
fn a_service_works_and_drains_when_the_reader_of_its_output_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, stderr) = std::io::pipe().unwrap();
    let mut serving = Serving::start(verbose(), dir.path(), stderr.into());
    // The reader was there for a while, as in `serve 2>&1 | tee log`, and both outputs close.
    log.read_exact(&mut [0; 16]).unwrap();
    drop((log, serving.stdout.take()));
    works_and_drains(serving);
}

#[test]
fn a_service_works_and_drains_without_a_reader_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    works_and_drains(Serving::start(verbose(), dir.path(), closed_pipe()));
}

#[test]
fn a_service_works_and_drains_when_its_log_is_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(verbose(), dir.path(), full_disk());
    serving.until_ready();
    wait_until("lost lines are counted", || {
        let metrics = serving.metrics();
        let mut lost = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("doorbuster_log_lines_lost_total "));
        lost.any(|count| count != "0").then_some(())
    });
    works_and_drains(serving);
}

#[test]
fn a_service_works_and_drains_when_its_log_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (stderr, reader) = stuck_pipe();
    works_and_drains(Serving::start(verbose(), dir.path(), stderr));
    drop(reader);
}

#[test]
fn a_service_that_cannot_start_ends_with_its_own_status() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for stderr in [full_disk, closed_pipe, || stuck_pipe().0] {
        let mut command = doorbuster();
        command.args(["--operations-listen", "127.0.0.1:0"]);
        command.args(["--listen", &taken, "--data-dir"]);
        let child = command.arg(dir.path()).stderr(stderr()).spawn();
        assert_eq!(end_of(&mut child.unwrap()), Some(1));
    }
    for stderr in [full_disk, closed_pipe] {
        let child = doorbuster()
            .args(["--listen", "here"])
            .stderr(stderr())
            .spawn();
        assert_eq!(end_of(&mut child.unwrap()), Some(2));
    }
}

#[test]
fn variables_of_others_do_not_end_a_command_and_misspelt_ones_are_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = doorbuster();
    command
        .env("DOORBUSTER_SERVICE_HOST", "10.0.0.1")
        .env("DOORBUSTER_PORT", "tcp://10.0.0.1:80")
        .env("DOORBUSTER_MAX_WAITER", "5");
    let (mut log, stderr) = std::io::pipe().unwrap();
    let serving = Serving::start(command, dir.path(), stderr.into());
    serving.until_ready();
    assert_eq!(serving.terminate(), Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(
        text.contains("did you mean DOORBUSTER_MAX_WAITERS?"),
        "{text}"
    );
    assert!(
        !text.contains("SERVICE_HOST") && !text.contains("PORT is"),
        "{text}"
    );
    assert!(
        text.contains("drained"),
        "the last message is written: {text}"
    );
}

/// Runs a tool; returns its exit status and what it wrote to standard error.
fn run(arguments: &[&str], stdout: Stdio) -> (Option<i32>, String) {
    let mut command = doorbuster();
    let child = command
        .args(arguments)
        .stdout(stdout)
        .stderr(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

/// The sources of what people run, without their tests.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
            found.push((path, text));
        }
    }
}

#[test]
fn nothing_prints_by_a_macro_that_panics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for dir in ["command-api", "projector", "query-api", "schemas"] {
        sources(&root.join(dir).join("src"), &mut found);
    }
    sources(&root.join("command-api/domain/src"), &mut found);
    sources(&root.join("projector/views/src"), &mut found);
    sources(&root.join("tests/simulation/src"), &mut found);
    for entry in fs::read_dir(root.join("infra")).unwrap() {
        let dir = entry.unwrap().path().join("src");
        if dir.is_dir() {
            sources(&dir, &mut found);
        }
    }
    assert!(found.len() > 100, "only {} files", found.len());
    for (path, text) in found {
        for printing in ["println!(", "print!(", "dbg!("] {
            assert!(
                !text.contains(printing),
                "{} has {printing}",
                path.display()
            );
        }
    }
}

const NOT_WRITTEN: &str = "cannot write to standard output: No space left on device";

fn sold_in(dir: &Path) -> String {
    let serving = Serving::start(doorbuster(), dir, Stdio::null());
    serving.until_ready();
    assert!(serving.order().starts_with("HTTP/1.1 202"));
    assert_eq!(serving.terminate(), Some(0));
    dir.to_str().unwrap().to_owned()
}

#[test]
fn an_audit_ends_quietly_when_its_reader_goes_away_and_fails_when_it_cannot_print() {
    let dir = tempfile::tempdir().unwrap();
    let data = sold_in(dir.path());
    let audit = ["audit", "--heads", "--data-dir", &data];
    assert_eq!(run(&audit, closed_pipe()), (Some(0), String::new()));
    let full = format!("audit: {NOT_WRITTEN} (os error 28)\n");
    assert_eq!(run(&audit, full_disk()), (Some(2), full.clone()));
    let to_file = [&audit[..], &["--json", "/dev/full"]].concat();
    assert_eq!(run(&to_file, Stdio::null()).0, Some(2));

    // A receipt that this instance did not sign is a violation, printed or not.
    let receipt = [&["audit", "--receipt", "a.b.c"], &audit[2..]].concat();
    assert_eq!(run(&receipt, closed_pipe()), (Some(1), String::new()));
    assert_eq!(run(&receipt, full_disk()), (Some(1), full));

    let mut command = doorbuster();
    command.args(["audit", "--data-dir", "/nowhere"]);
    let child = command.stderr(full_disk()).spawn();
    assert_eq!(end_of(&mut child.unwrap()), Some(2));
}

#[test]
fn a_rehearsal_ends_quietly_when_its_reader_goes_away_and_fails_when_it_cannot_print() {
    let rehearse = ["rehearse", "--buyers", "20", "--stock", "2"];
    assert_eq!(run(&rehearse, closed_pipe()), (Some(0), String::new()));
    let full = format!("rehearse: {NOT_WRITTEN} (os error 28)\n");
    assert_eq!(run(&rehearse, full_disk()), (Some(2), full));
    let unusable = ["rehearse", "--file", "/nowhere"];
    let child = doorbuster().args(unusable).stderr(full_disk()).spawn();
    assert_eq!(end_of(&mut child.unwrap()), Some(2));
}

/// Whatever ends a service, also before it has a log.
#[test]
fn fatal_errors_are_json_when_the_log_is() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    fs::write(&file, "log_format = 'json'\n").unwrap();
    let data = dir.path().join("data");
    for (arguments, status, named) in [
        (["--partitions", "0"], 2, "partitions must be"),
        (["--listen", &listen], 1, "cannot listen on"),
    ] {
        let mut command = doorbuster();
        command.arg("serve").args(arguments);
        command
            .arg("--config")
            .arg(&file)
            .arg("--data-dir")
            .arg(&data);
        let output = command.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{log}");
        let lines = log.lines().map(serde_json::from_str::<serde_json::Value>);
        let lines: Vec<_> = lines.map(|line| line.expect(&log)).collect();
        let is_error = |line: &serde_json::Value| {
            let message = line["message"].as_str().unwrap_or_default();
            line["level"] == "ERROR" && message.contains(named)
        };
        assert!(lines.iter().any(is_error), "{log}");
    }
}
