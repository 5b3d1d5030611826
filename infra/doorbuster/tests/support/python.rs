//! A Python with the tools that others wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::venv;

/// A Python with the packages of `openapi/requirements.txt`.
pub fn with_packages() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = here.join("../../target/openapi-venv");
    venv::with_packages(&venv, &here.join("tests/openapi/requirements.txt"))
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
