//! `cargo xtask demo --undo`: takes away what a demo left, by the process numbers that it wrote down.

use std::fs;

use anyhow::Result;
use fluidos_e2e::command;
use fluidos_e2e::lan::Lan;
use fluidos_e2e::node::Setup;

use super::directory;

fn pids() -> Vec<String> {
    fs::read_to_string(directory().join("pids")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Does it.
pub fn run() -> Result<()> {
    let directory = directory();
    if !directory.exists() {
        println!("there is nothing to take away");
        return Ok(());
    }
    for pid in pids() {
        // A number may have been given to somebody else meanwhile.
        let ours = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| c.contains(&directory.display().to_string()));
        if ours {
            command::run("kill", &["-TERM", &pid])?;
            for _ in 0..200 {
                if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
    let lan = Lan::found("demo");
    for name in ["farm", "grid", "cloud"] {
        let mut setup = Setup::new(name, &directory);
        setup.machine = Some(lan.found_machine(name));
        if setup.directory.join("identity").exists() {
            print!("{name}: {}", setup.reset()?);
        }
    }
    drop(lan);
    let _ = command::output("ip", &["link", "del", "flt-demo"]);
    fs::remove_dir_all(&directory)?;
    println!("nothing is left");
    Ok(())
}
