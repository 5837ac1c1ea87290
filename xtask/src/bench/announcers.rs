//! What a crowd on the LAN costs a node that listens: processor time while nothing else happens, by the size of the crowd.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::{Value, json};

use super::main_job::{pss_kib, round, ticks};

/// How long the node is watched with few: two rounds of looking again.
const WATCH: Duration = Duration::from_secs(60);
/// With many: all that comes round is in it, also that the LAN is asked (every 5 min); that all are written as heard, once in half an hour, is
/// not.
const WATCH_MANY: Duration = Duration::from_secs(300);
/// Until what was found is called, and called again less and less.
const SETTLE: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(120);

/// Measures a node with crowds of 0, 100 and 1,000.
pub fn measure(binary: &Path, crowd: &Path) -> Result<Value> {
    let mut rows = Vec::new();
    for count in [0u32, 100, 1000] {
        let mut stage = Stage::new("bnan")?;
        stage.play(binary);
        // A second machine of the same LAN, on which no node runs.
        let other = stage.setup("crowd", &[])?;
        let _crowd = if count == 0 {
            None
        } else {
            Some(Crowd::start(crowd, &other.machine.as_ref().context("no machine")?.enter(), count)?)
        };
        let node = stage.setup("farm", &["--no-agent"])?.start()?;
        let found = until("all are found", LIMIT, || {
            let known = node.get(&["knownclusters", "-n", "fluidos"]).map_err(|error| format!("{error:#}"))?;
            let found = known["items"].as_array().map_or(0, Vec::len);
            if found >= count as usize { Ok(found) } else { Err(format!("{found} of {count}")) }
        })?;
        std::thread::sleep(if count == 0 { WATCH } else { SETTLE });
        let watch = if count >= 1000 { WATCH_MANY } else { WATCH };
        let before = ticks(node.pid())?;
        std::thread::sleep(watch);
        let spent = (ticks(node.pid())? - before) as f64 / 100.0; // USER_HZ
        let percent = round(spent / watch.as_secs_f64() * 10_000.0) / 100.0;
        let row = json!({
            "announcers": count, "found": found, "watched_seconds": watch.as_secs(), "cpu_percent_of_a_core": percent, "pss_mib": round(pss_kib(node.pid())? as f64 / 1024.0),
        });
        println!("  {row}");
        rows.push(row);
        node.terminate()?;
    }
    Ok(json!({ "by_announcers": rows }))
}

/// The crowd; it ends with this.
struct Crowd(Child);

impl Crowd {
    fn start(program: &Path, enter: &[String], count: u32) -> Result<Self> {
        let (first, rest) = enter.split_first().context("no way into a machine")?;
        let mut child = Command::new(first)
            .args(rest)
            .arg(program)
            .args(["announce", "--count", &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("the crowd")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        anyhow::ensure!(line.starts_with("announced"), "the crowd says {line:?}");
        Ok(Self(child))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It has nothing that could be lost.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
