//! The text of a file of orders: where it comes from, its lines, and the fields of a line.
//!
//! A row is one line. A field that begins with a quotation mark ends at its closing one, on the
//! same line, so that no mark can swallow the rows after it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;

/// The longest line, in bytes.
pub const MAX_LINE_BYTES: u64 = 64 * 1024;
/// The most that a pipe may send, in bytes: it is kept in a temporary file.
const MAX_PIPED_BYTES: u64 = 4 << 30;

/// A file of orders that can be read more than once.
#[derive(Debug, Clone)]
pub struct OrderFile {
    path: PathBuf,
    file: Arc<File>,
}

impl OrderFile {
    /// Opens a file. What can be read only once, such as a pipe, is copied into a temporary file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(unreadable)?;
        if !file.metadata().with_context(unreadable)?.is_file() {
            let mut copy = tempfile::tempfile().context("cannot create a temporary file")?;
            let copied = io::copy(&mut file.take(MAX_PIPED_BYTES + 1), &mut copy);
            if copied.with_context(unreadable)? > MAX_PIPED_BYTES {
                bail!(
                    "{} sends more than 4 GiB; write it to a file and name that",
                    path.display()
                );
            }
            file = copy;
        }
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
        })
    }

    /// The path that was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text from its beginning, decompressed if the content is gzip.
    pub(super) fn text(&self) -> io::Result<Box<dyn BufRead + Send>> {
        let mut bytes = BufReader::new(Positioned {
            file: self.file.clone(),
            position: 0,
        });
        let gzip = bytes.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        Ok(match gzip {
            true => Box::new(BufReader::new(MultiGzDecoder::new(bytes))),
            false => Box::new(bytes),
        })
    }
}

/// A position of its own in a file that others read too.
struct Positioned {
    file: Arc<File>,
    position: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The lines of a text, one by one, without their ends.
pub(super) struct Lines {
    text: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// The number of the last line that was read, from 1.
    pub number: u64,
}

/// The next line, or that it is longer than [`MAX_LINE_BYTES`].
pub(super) enum Line<'a> {
    Text(&'a [u8]),
    TooLong,
}

impl Lines {
    pub fn of(text: Box<dyn BufRead + Send>) -> Self {
        Self {
            text,
            line: Vec::new(),
            number: 0,
        }
    }

    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if self.read_part()? == 0 {
            return Ok(None);
        }
        self.number += 1;
        // The end of a line may be the one byte more.
        let mut whole = true;
        while !self.line.ends_with(b"\n") && self.line.len() as u64 > MAX_LINE_BYTES {
            whole = false;
            self.read_part()?;
        }
        if !whole {
            return Ok(Some(Line::TooLong));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some(Line::Text(line.strip_suffix(b"\r").unwrap_or(line))))
    }

    /// Reads to the end of the line, but no more than the longest line and one byte.
    fn read_part(&mut self) -> io::Result<usize> {
        self.line.clear();
        let text = &mut self.text;
        text.take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut self.line)
    }
}

/// A quotation mark that begins a field is not closed on its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenQuote;

/// The fields of a line.
#[derive(Debug, Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    /// Splits a line at its commas. Within a field in quotation marks a comma is text, and two
    /// marks are one. Text behind the closing mark belongs to the field.
    pub fn split(&mut self, mut line: &[u8]) -> Result<(), OpenQuote> {
        self.bytes.clear();
        self.ends.clear();
        loop {
            if let Some(mut quoted) = line.strip_prefix(b"\"") {
                loop {
                    let mark = quoted.iter().position(|byte| *byte == b'"');
                    let mark = mark.ok_or(OpenQuote)?;
                    self.bytes.extend(&quoted[..mark]);
                    quoted = &quoted[mark + 1..];
                    let Some(rest) = quoted.strip_prefix(b"\"") else {
                        break;
                    };
                    self.bytes.push(b'"');
                    quoted = rest;
                }
                line = quoted;
            }
            let end = line.iter().position(|byte| *byte == b',');
            self.bytes.extend(&line[..end.unwrap_or(line.len())]);
            self.ends.push(self.bytes.len());
            match end {
                Some(end) => line = &line[end + 1..],
                None => return Ok(()),
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field of this index, which must exist.
    pub fn get(&self, index: usize) -> &[u8] {
        let begin = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        &self.bytes[begin..self.ends[index]]
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<String>> {
        let mut fields = Fields::default();
        fields.split(line.as_bytes()).ok()?;
        let fields = fields.iter();
        Some(
            fields
                .map(|field| String::from_utf8_lossy(field).into_owned())
                .collect(),
        )
    }

    #[test]
    fn a_line_is_split_at_its_commas_outside_of_quotation_marks() {
        let cases: [(&str, &[&str]); 9] = [
            ("a,b", &["a", "b"]),
            ("", &[""]),
            (",", &["", ""]),
            ("\"\",b", &["", "b"]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"7\"\" FRAME\",c", &["7\" FRAME", "c"]),
            ("7\" FRAME,c", &["7\" FRAME", "c"]),
            ("\"BIG\" TIN,c", &["BIG TIN", "c"]),
            ("a,\"\"\"\"", &["a", "\""]),
        ];
        for (line, fields) in cases {
            let fields = fields.iter().map(|field| (*field).to_owned()).collect();
            assert_eq!(split(line), Some(fields), "{line}");
        }
        for open in ["\"", "a,\"b", "\"a\"\",b", "a,\"b,c"] {
            assert_eq!(split(open), None, "{open}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_one_is_read() {
        let long = "x".repeat(MAX_LINE_BYTES as usize);
        let text = format!("a\r\n{long}\n{long}y\nb\n\n{long}{long}{long}z");
        let mut lines = Lines::of(Box::new(io::Cursor::new(text)));
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(match line {
                Line::Text(text) => Some(text.len()),
                Line::TooLong => None,
            });
        }
        let longest = Some(MAX_LINE_BYTES as usize);
        assert_eq!(found, [Some(1), longest, None, Some(1), Some(0), None]);
        assert_eq!(lines.number, 6);
    }
}
