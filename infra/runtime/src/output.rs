//! What a program prints outside of its log. A reader that went away, or a full disk, never ends
//! the program by a panic, as `print!` and `eprintln!` would.

use std::fmt::Display;
use std::io::{self, ErrorKind, Stdout, Write};

/// What a command-line tool prints on standard output. The first failure ends the printing, and
/// [`Output::finish`] returns it.
pub struct Output<W = Stdout> {
    to: W,
    written: io::Result<()>,
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::to(io::stdout())
    }
}

impl<W: Write> Output<W> {
    /// Output to this writer.
    pub fn to(to: W) -> Self {
        Self {
            to,
            written: Ok(()),
        }
    }

    /// Prints a text as it is.
    pub fn text(&mut self, text: impl Display) {
        if self.written.is_ok() {
            self.written = write!(self.to, "{text}");
        }
    }

    /// Prints a text and ends the line.
    pub fn line(&mut self, text: impl Display) {
        self.text(format_args!("{text}\n"));
    }

    /// Whether all of it was printed. A reader that closed its end early, as `head` does, has what
    /// it wants: that is no error.
    pub fn finish(mut self) -> io::Result<()> {
        match self.written.and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

/// Prints a line on standard error. A line that cannot be printed is dropped: there is nowhere else to report it.
pub fn error_line(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes some bytes, then fails.
    struct Failing(usize, ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.0.min(bytes.len());
            self.0 -= taken;
            match taken {
                0 => Err(self.1.into()),
                taken => Ok(taken),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn print_to(to: impl Write) -> io::Result<()> {
        let mut output = Output::to(to);
        output.text("first");
        output.line("second");
        output.finish()
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        let mut whole = Vec::new();
        print_to(&mut whole).unwrap();
        assert_eq!(whole, b"firstsecond\n");
        print_to(Failing(7, ErrorKind::BrokenPipe)).unwrap();
        let full = print_to(Failing(7, ErrorKind::StorageFull)).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}
