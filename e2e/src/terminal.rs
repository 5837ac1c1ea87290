//! A person at a terminal: a program on a real pseudo-terminal, what it shows, and what is typed.
//!
//! `script` (util-linux, on every Debian) opens the pseudo-terminal and copies between it and its own pipes:
//!
//! ```text
//! test ── pipe ──▶ script ── pty ──▶ kubectl exec -it ── API ──▶ pty in the container ──▶ sh
//!      ◀── pipe ──        ◀──     ◀──                 ◀──                           ◀──
//! ```

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::command::run;
use crate::wait::until;

/// A line of a shell is answered within this time, also across a link.
const LIMIT: Duration = Duration::from_secs(30);

/// A program that runs on a terminal. Dropping it hangs up.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Runs a command on a terminal of this size.
    ///
    /// # Errors
    /// When `script` cannot be started.
    pub fn open(command: &Command, rows: u16, columns: u16) -> Result<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
        let line = format!("stty rows {rows} cols {columns} && exec {}", line.join(" "));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().context("script")?;
        let keys = child.stdin.take().ok_or_else(|| anyhow!("no standard input"))?;
        let mut shown = child.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
        let screen = Arc::new(Mutex::new(String::new()));
        let writing = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = shown.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                writing.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Self { child, keys, screen })
    }

    /// Types a line and presses Enter.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn types(&mut self, line: &str) -> Result<()> {
        self.press(&format!("{line}\n"))
    }

    /// Presses keys, for instance `\u{3}` for Ctrl-C.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).context("the terminal is closed")
    }

    /// Changes the size of the terminal, as when a window is pulled larger: who runs on it is told.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let program = run("pgrep", &["-P", &self.child.id().to_string()])?;
        let terminal = std::fs::read_link(format!("/proc/{program}/fd/0")).context("the terminal of the program")?;
        let (rows, columns) = (rows.to_string(), columns.to_string());
        run("stty", &["-F", &terminal.display().to_string(), "rows", &rows, "cols", &columns]).map(|_| ())
    }

    /// Waits until the screen shows `text`; all that it has shown so far.
    ///
    /// # Errors
    /// With what it shows instead.
    pub fn shows(&self, text: &str) -> Result<String> {
        until(&format!("the terminal shows {text:?}"), LIMIT, || {
            let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if screen.contains(text) { Ok(screen) } else { Err(format!("{screen:?}")) }
        })
    }

    /// Waits until the program has ended; its exit code.
    ///
    /// # Errors
    /// When it does not end, with what the screen shows.
    pub fn ends(mut self) -> Result<Option<i32>> {
        until("the program on the terminal ends", LIMIT, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            Ok(None) => Err(format!("{:?}", self.screen.lock().unwrap_or_else(PoisonError::into_inner))),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill(); // its pseudo-terminal goes with it, and what ran there hears a hang-up
        let _ = self.child.wait();
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_on_a_terminal_sees_one() {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"tty; stty size; read -r line; echo "read $line '$WORD'"; stty size; exit 7"#])
            .env("WORD", "it's");
        let mut terminal = Terminal::open(&command, 33, 101).unwrap();
        let screen = terminal.shows("33 101").unwrap();
        assert!(screen.starts_with("/dev/pts/"), "{screen:?}");
        terminal.resize(20, 70).unwrap();
        terminal.types("a line").unwrap();
        terminal.shows("read a line 'it's'").unwrap();
        terminal.shows("20 70").unwrap();
        assert_eq!(terminal.ends().unwrap(), Some(7));
    }
}
