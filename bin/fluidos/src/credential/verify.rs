//! `fluidos credential verify`: every question by itself.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fluidos_identity::{
    CREDENTIAL_LENGTH_MAX, Credential, CredentialError, CredentialKind, DID_DOCUMENT_BYTES_MAX, Demands, DidWeb,
    NodeId, STATUS_TEXT_LENGTH_MAX, StatusList, read_file,
};
use jiff::Timestamp;
use serde_json::json;

use super::{described, text};

/// What is checked.
#[derive(clap::Args, Clone, Debug)]
pub struct Verify {
    /// The credential.
    file: PathBuf,
    /// Who must have issued it. Without it anybody may have.
    #[arg(long, value_name = "DID")]
    issuer: Option<NodeId>,
    /// The node that it must be about.
    #[arg(long, value_name = "DID")]
    subject: Option<NodeId>,
    /// The issuer's status list.
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    /// The document that the claimed domain publishes at /.well-known/did.json; it must name the issuer.
    #[arg(long, value_name = "FILE")]
    did_document: Option<PathBuf>,
    /// The time at which it must count. Default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How to print: text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// A question and its answer.
struct Answer {
    question: String,
    wrong: bool,
    detail: String,
}

impl Answer {
    fn new(question: impl ToString, result: Result<String, impl ToString>) -> Self {
        let question = question.to_string();
        match result {
            Ok(detail) => Self { question, wrong: false, detail },
            Err(error) => Self { question, wrong: true, detail: error.to_string() },
        }
    }
}

impl Verify {
    /// Does what the verb says.
    pub fn run(&self) -> Result<()> {
        let text = text(&self.file, CREDENTIAL_LENGTH_MAX)?;
        let (credential, answers) = match Credential::parse(&text) {
            Ok(credential) => {
                let answers = self.answers(&credential)?;
                (Some(credential), answers)
            }
            Err(error @ CredentialError::Forged { .. }) => {
                (None, vec![Answer::new("signature", Err::<String, _>(error))])
            }
            Err(error) => (None, vec![Answer::new("form", Err::<String, _>(error))]),
        };
        self.print(credential.as_ref(), &answers)?;
        let wrong: Vec<&str> = answers.iter().filter(|a| a.wrong).map(|a| a.question.as_str()).collect();
        if !wrong.is_empty() {
            bail!("{}: it does not count: {}", self.file.display(), wrong.join(", "));
        }
        Ok(())
    }

    fn answers(&self, credential: &Credential) -> Result<Vec<Answer>> {
        let status = self.status.as_ref().map(|path| -> Result<StatusList> {
            StatusList::parse(&super::text(path, STATUS_TEXT_LENGTH_MAX)?)
                .with_context(|| format!("--status {}", path.display()))
        });
        let status = status.transpose()?;
        let now = self.at.unwrap_or_else(Timestamp::now);
        let demands = Demands { now, issuer: self.issuer, subject: self.subject, status: status.as_ref() };
        let form = format!("{} as vc+jwt, EdDSA", credential.kind());
        let mut answers = vec![
            Answer::new("form", Ok::<_, String>(form)),
            Answer::new("signature", Ok::<_, String>(format!("of {}", credential.issuer()))),
        ];
        answers.extend(credential.check(&demands).into_iter().map(|finding| Answer::new(finding.step, finding.result)));
        if let Some(path) = &self.did_document {
            let bytes = read_file(path, DID_DOCUMENT_BYTES_MAX)?;
            answers.push(Answer::new("domain", domain(credential, &bytes)));
        }
        Ok(answers)
    }

    fn print(&self, credential: Option<&Credential>, answers: &[Answer]) -> Result<()> {
        if self.output == "json" {
            let checks: Vec<_> =
                answers.iter().map(|a| json!({"check": a.question, "ok": !a.wrong, "detail": a.detail})).collect();
            let told = json!({
                "valid": answers.iter().all(|a| !a.wrong),
                "checks": checks,
                "credential": credential.map(described),
            });
            println!("{}", serde_json::to_string_pretty(&told)?);
            return Ok(());
        }
        for answer in answers {
            println!("{} {:<10} {}", if answer.wrong { "✗" } else { "✓" }, answer.question, answer.detail);
        }
        for (name, value) in credential.iter().flat_map(|credential| credential.claims()) {
            println!("  {name}={value}");
        }
        if self.issuer.is_none() && credential.is_some() {
            eprintln!("Anybody may issue a credential; name whom you trust with --issuer DID.");
        }
        Ok(())
    }
}

/// Whether the domain that is claimed says itself that its owner has the issuer's key.
fn domain(credential: &Credential, document: &[u8]) -> Result<String, String> {
    let domain = credential.claims().get("domain").filter(|_| credential.kind() == CredentialKind::NodeOwnership);
    let domain = domain.ok_or("it claims no domain")?;
    let web: DidWeb = format!("did:web:{domain}").parse().map_err(|error| format!("{error}"))?;
    web.check_document(document, &credential.issuer()).map_err(|error| error.to_string())?;
    Ok(format!("{web} names the issuer, if the document was fetched from {}", web.document_url()))
}
