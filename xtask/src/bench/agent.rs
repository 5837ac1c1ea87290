//! What an agent holds that has a machine for itself: without pods, with ten, and with fifty which do nothing.
//!
//! ```text
//!  fluidos up --no-agent          fluidos join, a file of its own ─┬─ the agent's process
//!  (another file, not measured)                                    └─ a supervisor for each pod
//! ```
//! A page of a file that two processes have mapped counts half for each. The server runs another file, as on another machine: what is
//! measured is what a device would have.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use fluidos_e2e::images::Image;
use serde_json::{Value, json};

use super::main_job::{Watch, pss_kib, round, stage};

/// How many pods there are at each look.
const PODS: [usize; 3] = [0, 10, 50];
/// What has happened is over, and what ran for it alone has been given back, which is looked at once a minute.
const QUIET: Duration = Duration::from_secs(135);

/// Measures this program.
pub fn measure(binary: &Path) -> Result<Value> {
    let mut stage = stage(binary)?;
    let copy = stage.directory().join("server/fluidos");
    std::fs::create_dir_all(copy.parent().unwrap_or(Path::new("/")))?;
    std::fs::copy(binary, &copy)?;
    stage.play(&copy);
    let server = stage.setup("farm", &["--no-mdns", "--no-agent", "--api", "0.0.0.0:6443"])?.start()?;
    let invitation = server.setup.fluidos(&["invite", "--agent"])?;
    ensure!(invitation.status.success(), "{}", String::from_utf8_lossy(&invitation.stderr));
    stage.play(binary);
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
    figures.insert("binary_mib".into(), mib(std::fs::metadata(binary)?.len() / 1024).into());
    agent.terminate()?;
    server.terminate()?;
    Ok(figures.into())
}
