//! A virtual environment of Python with the packages of others that tests run, made once under
//! `target/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const GET_PYTHON: &str = "tools of others need Python 3.11 or newer and its venv module; on Debian: \
                          apt-get install python3 python3-venv";

/// The Python of the environment `venv`, which has these requirements.
pub fn with_packages(venv: &Path, requirements: &Path) -> PathBuf {
    let (python, installed) = (venv.join("bin/python"), venv.join("installed.txt"));
    // Tests run in processes of their own, at the same time.
    fs::create_dir_all(venv.parent().unwrap()).unwrap();
    let lock = File::create(venv.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let wanted = fs::read(requirements).unwrap();
    if fs::read(&installed).is_ok_and(|there| there == wanted) {
        return python;
    }
    let _ = fs::remove_dir_all(venv);
    let mut make = Command::new("python3");
    let made = make.args(["-m", "venv"]).arg(venv).output();
    let made = made.unwrap_or_else(|error| panic!("python3 is needed ({error}): {GET_PYTHON}"));
    let text = String::from_utf8_lossy(&made.stderr);
    assert!(
        made.status.success(),
        "python3 -m venv failed: {GET_PYTHON}\n{text}"
    );
    let fetched = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(requirements)
        .output()
        .unwrap();
    assert!(
        fetched.status.success(),
        "the packages of {} could not be fetched; that takes a network with the Python package \
         index, or one of its mirrors, named by PIP_INDEX_URL:\n{}",
        requirements.display(),
        String::from_utf8_lossy(&fetched.stderr)
    );
    fs::write(installed, wanted).unwrap();
    python
}
