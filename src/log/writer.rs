//! A writer of whole lines.

use std::io::{self, Write};

/// Writes lines. If a line fails in the middle, the next one begins on a new line.
pub(super) struct LineWriter {
    inner: Box<dyn Write + Send>,
    /// Whether the last line has no line break yet.
    is_torn: bool,
}

impl LineWriter {
    pub(super) fn new(inner: Box<dyn Write + Send>) -> Self {
        Self { inner, is_torn: false }
    }

    /// Writes a line that ends with a line break.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        if self.is_torn {
            self.write_bytes(b"\n")?;
        }
        self.write_bytes(line.as_bytes())?;
        self.inner.flush()
    }

    fn write_bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.inner.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.is_torn = bytes[count - 1] != b'\n';
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::{super::tests::Written, *};

    /// Fails the writes in its list. A number is the count of bytes that it writes before the failure.
    struct Failing {
        failures: VecDeque<Option<usize>>,
        fail_next: bool,
        written: Written,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::take(&mut self.fail_next) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match self.failures.pop_front().flatten() {
                None => self.written.write(bytes),
                Some(0) => Err(io::ErrorKind::BrokenPipe.into()),
                Some(count) => {
                    self.fail_next = true;
                    self.written.write(&bytes[..count])
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn line_after_a_failed_one_begins_on_a_new_line() {
        let written = Written::default();
        let failures = VecDeque::from([Some(0), Some(5), None]);
        let failing = Failing { failures, fail_next: false, written: written.clone() };
        let mut writer = LineWriter::new(Box::new(failing));
        assert!(writer.write("not begun\n").is_err());
        assert!(writer.write("begun, not ended\n").is_err());
        assert!(writer.write("whole\n").is_ok());
        assert_eq!(written.lines(), ["begun", "whole"]);
    }
}
