//! A Python with the tools that others wrote, installed once under `target/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const GET_PYTHON: &str = "tools of others need Python 3.11 or newer and its venv module; on Debian: \
                          apt-get install python3 python3-venv";

/// A Python with the packages of `openapi/requirements.txt`.
pub fn with_packages() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = here.join("../../target/openapi-venv");
    let requirements = here.join("tests/openapi/requirements.txt");
    let (python, installed) = (venv.join("bin/python"), venv.join("installed.txt"));
    // Tests run in processes of their own, at the same time.
    fs::create_dir_all(venv.parent().unwrap()).unwrap();
    let lock = File::create(venv.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let wanted = fs::read(&requirements).unwrap();
    if fs::read(&installed).is_ok_and(|there| there == wanted) {
        return python;
    }
    let _ = fs::remove_dir_all(&venv);
    let mut make = Command::new("python3");
    let made = make.args(["-m", "venv"]).arg(&venv).output();
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
        .arg(&requirements)
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

/// A file of YAML, with its anchors resolved.
pub fn yaml(path: &Path) -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let output = Command::new(with_packages())
        .args(["-c", script])
        .arg(path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}
