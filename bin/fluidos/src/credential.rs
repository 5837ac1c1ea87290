//! `fluidos credential`: what owners and certifiers say about nodes. Files in, files out; no node need run, nothing is fetched.
#![allow(clippy::print_stdout)] // the answer of a verb

mod held;
mod register;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::{
    CREDENTIAL_LENGTH_MAX, CredentialDraft, CredentialKind, NodeId, NodeKey, read_file, replace_file,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::held::{Add, Ls, Rm};
use self::register::Register;
pub use self::verify::Verify;

const ISSUE_EXAMPLES: &str = "Examples:
  fluidos credential issue --key owner.key --subject did:key:z6Mk… --type NodeOwnership --claim domain=farm.example
  fluidos credential issue --key certifier.key --subject did:key:z6Mk… --type Feature --claim region=EU --claim 'certification=ISO 27001' \\
    --status revoked.jwt --out feature.jwt";

/// What is done with credentials.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Credential {
    /// Say something about a node, signed.
    #[command(after_help = ISSUE_EXAMPLES)]
    Issue(Issue),
    /// Check a credential offline: every question by itself. Exit 1 if one is answered with no.
    Verify(Verify),
    /// Take credentials back, or without any sign the status list anew for another time.
    Revoke(Revoke),
    /// Let a node show a credential, or a status list, to its peers.
    #[command(
        after_help = "Examples:\n  fluidos credential add owner.jwt --data-dir /var/lib/fluidos\n  fluidos credential add revoked.jwt --data-dir /var/lib/fluidos"
    )]
    Add(Add),
    /// What a node shows of itself.
    Ls(Ls),
    /// Let a node show something no more.
    #[command(after_help = "Example:\n  fluidos credential rm nodeownership-1a2b3c4d.jwt --data-dir /var/lib/fluidos")]
    Rm(Rm),
}

/// What is said.
#[derive(clap::Args, Clone, Debug)]
pub struct Issue {
    /// The key of who says it (made with `fluidos identity new`).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The node that it is about.
    #[arg(long, value_name = "DID")]
    subject: NodeId,
    /// NodeOwnership (needs the claim domain) or Feature.
    #[arg(long = "type", value_name = "TYPE")]
    kind: CredentialKind,
    /// What is said, as domain=farm.example; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, String)>,
    /// How long it counts.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    valid_days: u16,
    /// The issuer's status list, made if there is none; without it the credential cannot be taken back.
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    /// Where a new status list will be published. Default: DID#status of the issuer.
    #[arg(long, value_name = "URL", requires = "status")]
    status_url: Option<String>,
    /// Where to put the credential. Default: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to print: text (the credential) or json (with what it says).
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// What is taken back.
#[derive(clap::Args, Clone, Debug)]
pub struct Revoke {
    /// The credentials; none: the list is only signed anew.
    #[arg(value_name = "CREDENTIAL")]
    credentials: Vec<PathBuf>,
    /// The key that issued them.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The issuer's status list.
    #[arg(long, value_name = "FILE")]
    status: PathBuf,
    /// How long the list counts. The old list does until its own end: that is how long a revocation may go unseen.
    #[arg(long, default_value_t = register::LIST_VALID_DAYS, value_parser = clap::value_parser!(u16).range(1..=365))]
    valid_days: u16,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Does what the verb says.
pub fn run(credential: &Credential) -> Result<()> {
    match credential {
        Credential::Issue(issue) => issue.run(),
        Credential::Verify(verify) => verify.run(),
        Credential::Revoke(revoke) => revoke.run(),
        Credential::Add(add) => add.run(),
        Credential::Ls(ls) => ls.run(),
        Credential::Rm(rm) => rm.run(),
    }
}

impl Issue {
    fn run(&self) -> Result<()> {
        let key = NodeKey::open(&self.key)?;
        let mut claims = BTreeMap::new();
        for (name, value) in &self.claim {
            if claims.insert(name.clone(), value.clone()).is_some() {
                bail!("--claim {name} is given twice");
            }
        }
        let now = Timestamp::now();
        let mut draft = CredentialDraft {
            kind: self.kind,
            subject: self.subject,
            claims,
            valid_from: now,
            valid_until: after_days(now, self.valid_days)?,
            status: None,
        };
        // Once without its bit: a bit is given away only to what will be issued.
        draft.sign(&key).context("not issued")?;
        if let Some(path) = &self.status {
            let url = self.status_url.clone();
            draft.status = Some(Register::open(path, &key, url, now)?.give(&draft)?);
        }
        let credential = draft.sign(&key).context("not issued")?;
        if let Some(path) = &self.out {
            replace_file(path, format!("{}\n", credential.text()).as_bytes())?;
        }
        match (self.output.as_str(), &self.out) {
            ("json", _) => println!("{}", serde_json::to_string_pretty(&described(&credential))?),
            (_, Some(path)) => println!("{} of {} in {}", self.kind, self.subject, path.display()),
            (_, None) => println!("{}", credential.text()),
        }
        Ok(())
    }
}

impl Revoke {
    fn run(&self) -> Result<()> {
        let key = NodeKey::open(&self.key)?;
        let now = Timestamp::now();
        let register = Register::existing(&self.status, &key)?;
        let mut list = register.list()?;
        let before = list.revoked_count();
        for path in &self.credentials {
            let credential = read(path)?;
            if credential.issuer() != key.id() {
                bail!("{}: issued by {}, and --key is {}", path.display(), credential.issuer(), key.id());
            }
            let Some(entry) = credential.status() else {
                bail!("{}: it names no status list, so it counts until {}", path.display(), credential.valid_until());
            };
            if entry.list != list.id() || !list.revoke(entry.index) {
                bail!("{}: its status list is {}, and --status is {}", path.display(), entry.list, list.id());
            }
        }
        list.set_time(now, after_days(now, self.valid_days)?);
        register.publish(&list, &key)?;
        let (revoked, until) = (list.revoked_count(), list.valid_until());
        if self.output == "json" {
            let told = json!({"list": list.id(), "revoked": revoked, "newly": revoked - before, "validUntil": until});
            println!("{}", serde_json::to_string_pretty(&told)?);
        } else {
            println!(
                "{}: {revoked} revoked, {} of them now; it counts until {until}. Publish it where {} is.",
                self.status.display(),
                revoked - before,
                list.id()
            );
        }
        Ok(())
    }
}

/// Returns the credential in a file; its signature holds.
pub fn read(path: &Path) -> Result<fluidos_identity::Credential> {
    let text = text(path, CREDENTIAL_LENGTH_MAX)?;
    fluidos_identity::Credential::parse(&text).with_context(|| format!("{}: no credential", path.display()))
}

/// Returns the text of a file, with room for the end of its line.
pub fn text(path: &Path, length_max: usize) -> Result<String> {
    String::from_utf8(read_file(path, length_max + 2)?).map_err(|_| anyhow!("{}: it is no text", path.display()))
}

/// Returns what a credential says, for a program.
pub fn described(credential: &fluidos_identity::Credential) -> Value {
    let status = credential.status().map(|status| json!({"list": status.list, "index": status.index}));
    json!({
        "type": credential.kind().name(),
        "issuer": credential.issuer(),
        "subject": credential.subject(),
        "claims": credential.claims(),
        "validFrom": credential.valid_from(),
        "validUntil": credential.valid_until(),
        "status": status,
        "credential": credential.text(),
    })
}

/// Returns the time so many days later.
pub fn after_days(now: Timestamp, days: u16) -> Result<Timestamp> {
    now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).context("the clock is beyond every calendar")
}

fn claim(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').ok_or_else(|| anyhow!("needed NAME=VALUE, as region=EU"))?;
    Ok((name.to_owned(), value.to_owned()))
}
