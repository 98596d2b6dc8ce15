//! What a job carries, as it is said on the command line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    thread,
};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc;

/// Lines that are read ahead.
const READ_AHEAD: usize = 64;

/// Where the data come from.
pub(in crate::commands) enum Source {
    Text(String),
    File(String),
    Input,
}

/// A line and its number.
pub(super) type Line = (u64, anyhow::Result<Bytes>);

impl Source {
    pub(in crate::commands) fn of(data: Option<&str>) -> Self {
        match data {
            None => Self::Text("null".to_owned()),
            Some("-") => Self::Input,
            // No JSON begins so.
            Some(text) => match text.strip_prefix('@') {
                Some(name) => Self::File(name.to_owned()),
                None => Self::Text(text.to_owned()),
            },
        }
    }

    /// All of it, as one value.
    pub(in crate::commands) fn all(self) -> anyhow::Result<Bytes> {
        let mut bytes = Vec::new();
        let mut reader = self.reader()?;
        reader.read_to_end(&mut bytes).context("reading the data")?;
        Ok(bytes.into())
    }

    /// Line by line; empty ones count and are passed over. They are read by a thread that nobody
    /// waits for: whoever writes them may never end.
    pub(super) fn lines(self) -> anyhow::Result<mpsc::Receiver<Line>> {
        let reader = self.reader()?;
        let (sender, lines) = mpsc::channel(READ_AHEAD);
        thread::spawn(move || {
            for (number, line) in (1..).zip(reader.split(b'\n')) {
                let line = line.context("reading the data").map(Bytes::from);
                let is_empty = |line: &Bytes| line.iter().all(u8::is_ascii_whitespace);
                if !line.as_ref().is_ok_and(is_empty)
                    && sender.blocking_send((number, line)).is_err()
                {
                    return;
                }
            }
        });
        Ok(lines)
    }

    fn reader(self) -> anyhow::Result<Box<dyn BufRead + Send>> {
        Ok(match self {
            Self::Text(text) => Box::new(Cursor::new(text)),
            Self::File(name) => {
                let file = File::open(&name).with_context(|| {
                    format!("the file {name} cannot be read (@ before a name means a file)")
                })?;
                Box::new(BufReader::new(file))
            }
            Self::Input => Box::new(BufReader::new(io::stdin())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_itself_is_the_data_and_none_is_null() {
        assert_eq!(Source::of(None).all().unwrap(), "null");
        assert_eq!(Source::of(Some("{}")).all().unwrap(), "{}");
    }

    #[tokio::test]
    async fn empty_lines_count_and_are_passed_over() {
        let text = Source::Text("1\n\n \n2\r\n".to_owned());
        let mut lines = text.lines().unwrap();
        let mut read = Vec::new();
        while let Some((number, line)) = lines.recv().await {
            read.push((number, line.unwrap()));
        }
        assert_eq!(read, [(1, Bytes::from("1")), (4, Bytes::from("2\r"))]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Source::of(Some("@nowhere.json")).all().unwrap_err();
        assert!(error.to_string().contains("nowhere.json"), "{error}");
    }
}
