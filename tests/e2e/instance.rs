//! The real program, built and started.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

/// The admin token of every instance that a test starts.
pub const TOKEN: &str = "rehearsal-token";

/// A child process that is killed with its test.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address on loopback that was free a moment ago.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The program, with the admin token in its environment.
pub fn program() -> Command {
    let mut command = Command::new(doorbuster());
    command.env("DOORBUSTER_ADMIN_TOKEN", TOKEN);
    command
}

/// The program itself: the one that `PROGRAM_UNDER_TEST` names, as `tests/run` does, which has built
/// it; else the one beside the tests, built first in the release profile and with the features that
/// `tests/run` builds it with.
fn doorbuster() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = match std::env::var_os("PROGRAM_UNDER_TEST") {
            Some(program) => PathBuf::from(program),
            None => build(),
        };
        assert!(program.is_file(), "no program at {}", program.display());
        program
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--workspace", "--all-targets"])
        .current_dir(root())
        .status();
    assert!(built.unwrap().success(), "the program does not build");
    // This test is in target/<profile>/deps.
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("release/doorbuster")
}

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
