//! An instance with all services in one process.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::instance::{free_address, program};

/// Starts an instance.
pub fn serve(address: &str, data: &Path) -> Child {
    let mut command = program();
    command
        .args(["serve", "--listen", address])
        .args(["--operations-listen", &free_address(), "--data-dir"])
        .arg(data);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
