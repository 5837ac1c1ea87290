//! `cargo xtask`: everything beyond cargo.
#![allow(clippy::print_stdout)] // talking to people is what it is for

mod bench;
mod clients;
mod demo;
mod dist;
mod machine;
mod release;
mod schemas;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Everything beyond cargo.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what the documentation says: bench main-job.
    Bench(bench::Bench),
    /// Bring the clients of others that stories play with into target/tools (`test` does so, too).
    Clients,
    /// The main job: three owners, one continuum, one command.
    Demo(demo::Demo),
    /// Pack the binary, a systemd unit, completions and an example into a tar.
    Dist(dist::Dist),
    /// Make the order of functions anew, in which `dist` links them: an idle node is looked at under callgrind (some 6 minutes).
    Order,
    /// Write docs/reference/kubernetes.md from the kinds that are served.
    Reference,
    /// Make the table of types of the built-in kinds anew, from upstream's declarations.
    Schemas(schemas::Schemas),
    /// Run every test, and first everything that a test needs: what it installs, it says.
    Test(test::Test),
    /// Check what code cannot show: which room uses which, and what is absent where.
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    if let Some(report) = std::env::var_os(release::LINKS) {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        return ended(release::order::link_in_order(&arguments, report.as_ref()));
    }
    let result = match Cli::parse().task {
        Task::Bench(bench) => bench.run(),
        Task::Clients => clients::install(),
        Task::Demo(demo) => demo.run(),
        Task::Dist(dist) => dist.run(),
        Task::Order => release::order::make(),
        Task::Reference => test::reference(),
        Task::Schemas(schemas) => schemas.run(),
        Task::Test(test) => test.run(),
        Task::Tidy(tidy) => tidy.run(),
    };
    ended(result)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
