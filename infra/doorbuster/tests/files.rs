//! Whatever the umask, only the owner may read what the program creates.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Serving, in_shell};

/// The program with a umask that lets others read.
fn with_a_usual_umask() -> Command {
    in_shell("umask 022")
}

fn run(arguments: &[&str]) {
    let status = with_a_usual_umask()
        .args(arguments)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

/// Every file and directory below one, and whether others have any permission on it.
fn open_to_others(dir: &Path, found: &mut Vec<PathBuf>) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.permissions().mode() & 0o077 != 0 {
            found.push(path.clone());
        }
        count += 1;
        if kind.is_dir() {
            count += open_to_others(&path, found);
        }
    }
    count
}

fn assert_private(dir: &Path, at_least: usize) {
    let mut found = Vec::new();
    let count = open_to_others(dir, &mut found);
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(count >= at_least, "only {count} files in {}", dir.display());
}

#[test]
fn only_the_owner_may_read_what_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, kept) = (path("new/data"), path("new/kept"));
    let serve = || {
        let mut command = with_a_usual_umask();
        command.arg("serve");
        let serving = Serving::start(command, Path::new(&data), Stdio::null());
        serving.until_ready();
        assert!(serving.order().starts_with("HTTP/1.1 202"));
        assert_private(dir.path(), 8);
        assert_eq!(serving.terminate(), Some(0));
    };
    serve();
    // An older version left these behind.
    let log = Path::new(&data).join("log");
    for entry in fs::read_dir(&log).unwrap() {
        let file = entry.unwrap().path();
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&log, Permissions::from_mode(0o755)).unwrap();
    serve();

    run(&["audit", "--data-dir", &data, "--json", &path("audit.json")]);
    let small = ["rehearse", "--buyers", "20", "--stock", "2"];
    let report = path("report.json");
    run(&[&small[..], &["--keep", &kept, "--json", &report]].concat());
    assert_private(dir.path(), 18);
}
