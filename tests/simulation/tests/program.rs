//! The program when nobody reads what it prints, or it cannot be written.

use std::fs::File;
use std::process::{Command, Stdio};

#[test]
fn it_ends_quietly_when_its_reader_goes_away_and_fails_when_it_cannot_print() {
    let run = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
        let output = command.args(["seed", "1", "--steps", "0"]).stdout(stdout);
        let output = output.stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (_, closed) = std::io::pipe().unwrap();
    assert_eq!(run(closed.into()), (Some(0), String::new()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let message = "error: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!(run(full.into()), (Some(2), message.into()));
}
