//! The command line: what can be asked for, and who answers.

pub mod agent;
mod config;
pub mod issuer;
pub mod pods;
pub mod up;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::up::{DidWeb, OnStop, Up};
use crate::backup::{self, Backup};
use crate::check::{self, Check};
use crate::connection::Connection;
use crate::contracts::{self, Contracts, Unpeer};
use crate::credential::{self, Credential};
use crate::exposure::{self, Exposure};
use crate::identity::{self, Identity};
use crate::image::{self, Image};
use crate::invite::{self, Invite};
use crate::invoice::{self, Invoices};
use crate::join::{self, Join};
use crate::log::{self, Log};
use crate::look::{self, Look};
use crate::node;
use crate::offers::{self, Offers};
use crate::peers::{self, Peers};
use crate::policy::{self, Policy};
use crate::receipts::{self, Receipts};
use crate::reset::{self, Reset};
use crate::restore::{self, Restore};
use crate::serve::{self, Serve};
use crate::trace::{self, Trace};
use crate::why::{self, Why};

/// Exit code for a command line that cannot be understood, as clap's.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "fluidos",
    version,
    about = "Machines and clusters of different owners run each other's Kubernetes workloads under a contract both have signed."
)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a node until it is told to stop.
    #[command(after_help = up::EXAMPLES)]
    Up(Box<Up>),
    /// Print a string by which another machine of yours joins this node.
    #[command(
        after_help = "Examples:\n  fluidos invite --agent\n  fluidos invite --agent --ttl 30m --api-server https://192.0.2.7:6443"
    )]
    Invite(Invite),
    /// Make this machine one more of a node, and run its pods until it is told to stop.
    #[command(
        after_help = "Examples:\n  fluidos join STRING --data-dir /var/lib/fluidos-agent --name shed\n  fluidos join --data-dir /var/lib/fluidos-agent    # again, after a restart"
    )]
    Join(Box<Join>),
    /// The images of this machine.
    #[command(
        subcommand,
        after_help = "Examples:\n  fluidos image load my-image.tar --data-dir /var/lib/fluidos\n  fluidos image pull docker.io/library/nginx:1 --data-dir /var/lib/fluidos\n  fluidos image ls --data-dir /var/lib/fluidos"
    )]
    Image(Image),
    /// Who this node is: its key, and the statements about it.
    #[command(
        subcommand,
        after_help = "Examples:\n  fluidos identity show --data-dir /var/lib/fluidos\n  fluidos identity tell gone.json --to 192.0.2.7:7300"
    )]
    Identity(Identity),
    /// What owners and certifiers say about nodes, signed. No node need run.
    #[command(subcommand)]
    Credential(Credential),
    /// Serve something that is no node.
    #[command(subcommand)]
    Serve(Serve),
    /// Take everything of a node off this machine; its key is kept.
    #[command(
        after_help = "Examples:\n  fluidos reset --data-dir /var/lib/fluidos\n  fluidos reset --data-dir /var/lib/fluidos --yes --identity    # the key, too"
    )]
    Reset(Reset),
    /// Nodes that could be peers, and how they are reached.
    #[command(
        visible_alias = "peer",
        after_help = "Examples:\n  fluidos peers -o wide\n  fluidos peers --rejected\n  kubectl get knownclusters -n fluidos -l feature.fluidos.eu/country=Italy"
    )]
    Peers(Peers),
    /// What is sold here.
    #[command(visible_alias = "flavor", after_help = "Examples:\n  fluidos flavors\n  fluidos flavors -o json")]
    Flavors(Look),
    /// Packages of fixed size that are sold: here, or by a peer; with --peers, all that known nodes say they sell.
    #[command(
        visible_alias = "offer",
        after_help = "Examples:\n  fluidos offers\n  fluidos offers grid\n  fluidos offers grid --data-dir /var/lib/fluidos -o wide\n  fluidos offers grid -o json\n  fluidos offers --peers -o wide"
    )]
    Offers(Offers),
    /// What was bought and sold.
    #[command(
        visible_alias = "contract",
        after_help = "Examples:\n  fluidos contracts --sold\n  fluidos contracts export NAME --out contract.json\n  fluidos contracts verify contract.json"
    )]
    Contracts(Contracts),
    /// What contracts used, hour by hour, signed by both parties.
    #[command(
        visible_alias = "receipt",
        after_help = "Examples:\n  fluidos receipts\n  fluidos receipts CONTRACT --disputed -o wide\n  fluidos receipts export NAME --out receipt.json\n  fluidos receipts verify receipt.json"
    )]
    Receipts(Receipts),
    /// What contracts cost in a month, and whether it is paid.
    #[command(
        visible_alias = "invoices",
        after_help = "Examples:\n  fluidos invoice\n  fluidos invoice CONTRACT --month 2026-11 -o csv\n  fluidos invoice paid NUMBER"
    )]
    Invoice(Invoices),
    /// What this node has signed, entry by entry, and whether witnesses were shown the same.
    #[command(
        after_help = "Examples:\n  fluidos log --data-dir /var/lib/fluidos\n  fluidos log verify --data-dir /var/lib/fluidos"
    )]
    Log(Log),
    /// Save all that makes a node this node, also while it runs: objects, key, authority, what it has signed.
    #[command(
        after_help = "Examples:\n  fluidos backup farm.tar --data-dir /var/lib/fluidos\n  fluidos restore farm.tar --data-dir /var/lib/fluidos    # elsewhere, or where it was moved away"
    )]
    Backup(Backup),
    /// Make a node of a backup; without a file: how it stands with records that this node has lost. What nobody gives back is given up.
    #[command(
        after_help = "Examples:\n  fluidos restore farm.tar --data-dir /var/lib/fluidos\n  fluidos restore\n  fluidos restore --accept-loss 'the disk of grid burnt, too'"
    )]
    Restore(Restore),
    /// End every contract with a peer.
    #[command(after_help = "Example:\n  fluidos unpeer grid --reason 'the rack moves'")]
    Unpeer(Unpeer),
    /// What the policies say.
    #[command(subcommand)]
    Policy(Policy),
    /// What a peer can see or do here now, each with what proves it.
    ///
    /// As root on the machine on which guests of the peer run, their networks are entered and addresses tried from there.
    #[command(after_help = "Examples:\n  fluidos exposure grid\n  fluidos exposure did:key:z6Mk... -o json")]
    Exposure(Exposure),
    /// Why a workload is where it is, or nowhere.
    #[command(after_help = "Examples:\n  fluidos why api-5d4f -n shop\n  fluidos why deployment/api -n shop")]
    Why(Why),
    /// What happened to a workload, and when.
    #[command(after_help = "Example:\n  fluidos trace deployment/api -n shop")]
    Trace(Trace),
    /// What works and what does not, with a remedy each.
    #[command(after_help = "Examples:\n  fluidos check --pre    # before the first `fluidos up`\n  fluidos check")]
    Check(Check),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  fluidos completion bash > /etc/bash_completion.d/fluidos")]
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// The verb, if it is about this machine rather than about an API; as far as can be told from what was given.
fn of_machine(command: clap::Command, arguments: &[std::ffi::OsString]) -> Option<&'static str> {
    // What such a verb still needs does not matter: it is refused.
    let matches = command.ignore_errors(true).try_get_matches_from(arguments).ok()?;
    match matches.subcommand()? {
        ("up", _) => Some("up"),
        ("image", _) => Some("image"),
        ("join", _) => Some("join"),
        ("identity", _) => Some("identity"),
        ("credential", _) => Some("credential"),
        ("serve", _) => Some("serve"),
        ("reset", _) => Some("reset"),
        ("log", _) => Some("log"),
        ("backup", _) => Some("backup"),
        ("restore", restore) if restore.contains_id("file") => Some("restore FILE"),
        ("check", check) if check.get_flag("pre") => Some("check --pre"),
        _ => None,
    }
}

/// Runs what the command line says. `as_plugin` tells that kubectl called.
pub fn main(arguments: &[std::ffi::OsString], as_plugin: bool) -> ExitCode {
    let mut command = Cli::command();
    if as_plugin {
        command = command.bin_name("kubectl fluidos");
    }
    let command = match config::with_file(command, arguments) {
        Ok(command) => command,
        Err(error) => return failed("fluidos", &error),
    };
    if let Some(name) = of_machine(command.clone(), arguments).filter(|_| as_plugin) {
        return failed(
            "fluidos",
            &anyhow::anyhow!("{name} is about this machine, not about a cluster; run: fluidos {name}"),
        );
    }
    let Cli { connection, verb } =
        match command.try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(cli) => cli,
            Err(error) => {
                let _ = error.print(); // with nowhere to write there is nobody to tell
                return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            }
        };
    let result = match verb {
        Verb::Up(up) => node::up(&up),
        Verb::Invite(invite) => invite::run(&connection, &invite),
        Verb::Join(join) => join::run(&join),
        Verb::Image(image) => image::run(&image),
        Verb::Identity(identity) => identity::run(&identity),
        Verb::Credential(credential) => credential::run(&credential),
        Verb::Serve(what) => serve::run(&what),
        Verb::Reset(reset) => reset::run(&reset),
        Verb::Peers(peers) => peers::run(&connection, &peers),
        Verb::Flavors(look) => look::flavors(&connection, &look),
        Verb::Offers(offers) => offers::run(&connection, &offers),
        Verb::Contracts(contracts) => contracts::run(&connection, &contracts),
        Verb::Receipts(receipts) => receipts::run(&connection, &receipts),
        Verb::Invoice(invoices) => invoice::run(&connection, &invoices),
        Verb::Log(what) => log::run(&what),
        Verb::Backup(what) => backup::run(&what),
        Verb::Restore(what) => restore::run(&connection, &what),
        Verb::Unpeer(unpeer) => contracts::unpeer(&connection, &unpeer),
        Verb::Policy(policy) => return policy::run(&connection, &policy),
        Verb::Exposure(exposure) => exposure::run(&connection, &exposure),
        Verb::Why(why) => why::run(&connection, &why),
        Verb::Trace(trace) => trace::run(&connection, &trace),
        Verb::Check(check) => check::run(&connection, &check),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fluidos", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("fluidos", &error),
    }
}

fn failed(program: &str, error: &anyhow::Error) -> ExitCode {
    eprintln!("{program}: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn verbs_of_the_machine_are_known_before_they_are_complete() {
        let verb = |line: &str| {
            let words: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
            super::of_machine(super::Cli::command(), &words)
        };
        assert_eq!(verb("fluidos up"), Some("up"));
        assert_eq!(verb("fluidos -n shop up --name x"), Some("up"));
        assert_eq!(verb("fluidos --kubeconfig up image load"), Some("image"));
        assert_eq!(verb("fluidos reset --nonsense"), Some("reset"));
        assert_eq!(verb("fluidos log verify"), Some("log"));
        assert_eq!(verb("fluidos check --pre"), Some("check --pre"));
        for line in ["fluidos", "fluidos check", "fluidos peers -n up", "fluidos why up", "fluidos nonsense"] {
            assert_eq!(verb(line), None, "{line}");
        }
    }
}
