//! What an agent holds that has a machine for itself: without pods, with ten, and with fifty which do nothing.
//!
//! ```text
//!  fluidos up --no-agent          fluidos-agent join ─┬─ the agent's process
//!  (another file, not measured)                       └─ a supervisor for each pod
//! ```
//! A page of a file that two processes have mapped counts half for each. The server runs another file, as on another machine: what is
//! measured is what a device would have. Disk is the program and what the agent has written, without images.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fluidos_e2e::images::Image;
use serde_json::{Value, json};

use crate::machine::output;

use super::main_job::{Watch, pss_kib, round, stage};

/// How many pods there are at each look.
const PODS: [usize; 3] = [0, 10, 50];
/// What has happened is over, and what ran for it alone has been given back, which is looked at once a minute.
const QUIET: Duration = Duration::from_secs(135);

/// Measures `program`, joined to a node that is `binary`.
pub fn measure(binary: &Path, program: &Path) -> Result<Value> {
    let mut stage = stage(binary)?;
    let server = stage.setup("farm", &["--no-mdns", "--no-agent", "--api", "0.0.0.0:6443"])?.start()?;
    let invitation = server.setup.fluidos(&["invite", "--agent"])?;
    ensure!(invitation.status.success(), "{}", String::from_utf8_lossy(&invitation.stderr));
    stage.play(program);
    let agent = stage.setup("shed", &[])?.join(Some(String::from_utf8(invitation.stdout)?.trim()))?;
    agent.setup.load(&Image::Busybox.layout()?)?;
    let mib = |kib: u64| round(kib as f64 / 1024.0);
    let (mut figures, mut before) = (serde_json::Map::new(), 0);
    for pods in PODS {
        println!("an agent with {pods} pods");
        if pods > before {
            let (watch, name) = (Watch::open(&server)?, format!("quiet{pods}"));
            super::pods::deploy(&server, &name, "shed", pods - before)?;
            watch.ready(&format!("{name}-"), pods - before)?;
        }
        before = pods;
        std::thread::sleep(QUIET);
        let supervisors = super::pods::named(&format!("pod-supervisor {}", agent.setup.directory.display()))?;
        ensure!(supervisors.len() == pods, "{} supervisors of {pods} pods", supervisors.len());
        let of_pods = supervisors.iter().map(|pid| pss_kib(*pid)).sum::<Result<u64>>()?;
        let figure = json!({ "agent_pss_mib": mib(pss_kib(agent.pid())?), "supervisors_pss_mib": mib(of_pods) });
        println!("  {figure}");
        figures.insert(format!("{pods}_pods"), figure);
    }
    let (binary, written) = (std::fs::metadata(program)?.len(), written_kib(&agent.setup.directory)?);
    figures.insert("binary_mib".into(), mib(binary / 1024).into());
    figures.insert("written_mib".into(), mib(written).into());
    agent.terminate()?;
    server.terminate()?;
    Ok(figures.into())
}

/// What an agent has on its disk but for images and what is mounted, in KiB.
fn written_kib(directory: &Path) -> Result<u64> {
    let shown = directory.display().to_string();
    let said = output("du", &["-skx", "--exclude=images", "--exclude=rootfs", "--exclude=merged", &shown])?;
    said.split_whitespace().next().context("du says nothing")?.parse().context("du says no number")
}
