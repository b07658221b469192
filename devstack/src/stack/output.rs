//! What the processes print: with their name in front on the terminal, and in one log file each.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

/// Room for the longest usual name, `worker-10`.
const NAME_WIDTH: usize = 9;
/// Colours that can be read on light and on dark ground.
const COLOURS: [&str; 6] = ["\u{1b}[36m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[35m", "\u{1b}[34m", "\u{1b}[31m"];
const PLAIN: &str = "\u{1b}[0m";
/// A line without an end is cut here.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Where one process's lines go.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    prefix: Option<String>,
    lines: mpsc::Sender<Vec<u8>>,
    log: PathBuf,
}

impl Output {
    /// Starts the log file of `name` in `dir`; prints to the terminal as well if `print`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub(crate) async fn start(dir: &Path, name: &str, index: usize, print: bool) -> io::Result<Self> {
        tokio::fs::create_dir_all(dir).await?;
        let log = dir.join(format!("{name}.log"));
        let mut file = File::create(&log).await?;
        let (lines, mut received) = mpsc::channel::<Vec<u8>>(1024);
        #[expect(clippy::disallowed_methods, reason = "ends when the last clone of this output is dropped")]
        tokio::spawn(async move {
            while let Some(line) = received.recv().await {
                let written = async {
                    file.write_all(&line).await?;
                    file.write_all(b"\n").await?;
                    file.flush().await
                };
                if let Err(error) = written.await {
                    tracing::warn!(%error, "a log file cannot be written");
                    break;
                }
            }
        });
        let colour = io::stdout().is_terminal().then(|| COLOURS[index % COLOURS.len()]);
        Ok(Self { prefix: print.then(|| prefix(name, colour)), lines, log })
    }

    /// Returns the log file.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Passes on every line of `source` until its end.
    pub(crate) async fn pass_on(self, source: impl AsyncRead + Unpin) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut source, &mut line).await {
                Ok(true) => self.line(&line).await,
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "a process's output cannot be read any more");
                    return;
                }
            }
        }
    }

    async fn line(&self, line: &[u8]) {
        if let Some(prefix) = &self.prefix {
            let text = format!("{prefix}{}\n", String::from_utf8_lossy(line));
            // A closed terminal is no reason to stop the stack.
            if let Err(error) = io::stdout().lock().write_all(text.as_bytes()) {
                tracing::debug!(%error, "standard output cannot be written");
            }
        }
        if self.lines.send(line.to_vec()).await.is_err() {
            tracing::debug!("a log file is no longer written");
        }
    }
}

/// Reads up to a line feed, which is taken off, or up to the limit. False at the end.
async fn read_line(source: &mut (impl tokio::io::AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let available = source.fill_buf().await?;
        if available.is_empty() {
            return Ok(!line.is_empty());
        }
        let room = MAX_LINE_BYTES - line.len();
        let end = available.iter().take(room).position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len().min(room), |end| end + 1);
        line.extend_from_slice(&available[..end.unwrap_or(taken)]);
        source.consume(taken);
        if end.is_some() || line.len() == MAX_LINE_BYTES {
            return Ok(true);
        }
    }
}

fn prefix(name: &str, colour: Option<&str>) -> String {
    match colour {
        Some(colour) => format!("{colour}{name:<NAME_WIDTH$}|{PLAIN} "),
        None => format!("{name:<NAME_WIDTH$}| "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        let mut source = BufReader::with_capacity(7, text);
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        while read_line(&mut source, &mut line).await.unwrap() {
            lines.push(std::mem::take(&mut line));
        }
        lines
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_needs_no_end() {
        assert_eq!(lines(b"first line\n\nthird").await, [&b"first line"[..], b"", b"third"]);
        let endless = lines(&vec![b'x'; MAX_LINE_BYTES + 1]).await;
        assert_eq!(endless.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, 1]);
    }

    #[tokio::test]
    async fn lines_are_kept_in_the_log_file() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::start(dir.path(), "worker-1", 0, false).await.unwrap();
        let log = output.log().to_owned();
        let (done, lines) = (output.lines.clone(), b"one\nb\xffd\n".as_slice());
        output.pass_on(lines).await;
        drop(done);
        // The writer is a task of its own: the file is complete soon, not at once.
        let complete = async {
            while std::fs::read(&log).unwrap() != b"one\nb\xffd\n" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), complete).await.unwrap();
    }

    #[test]
    fn the_prefix_is_aligned() {
        assert_eq!(prefix("api", None), "api      | ");
        assert_eq!(prefix("worker-1", None), "worker-1 | ");
        assert!(prefix("api", Some(COLOURS[0])).ends_with(&format!("{PLAIN} ")));
    }
}
