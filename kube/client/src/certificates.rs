//! A **request for a certificate** (PKCS 10): who admits one and who signs it must read it alike, or a request could be one thing
//! to the one and another to the other.
//!
//! ```text
//! PEM ─▶ subject (CN, every O) ─ key ─ other names ─ a signature by that key
//! ```
//!
//! What cannot be read for certain is refused: texts that are not UTF-8, names of kinds that no client here looks at.

use std::sync::Arc;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, ParsedCriAttribute};
use x509_parser::x509::AttributeTypeAndValue;

/// What somebody wants to be certified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The last common name, as servers read it.
    pub common_name: String,
    /// In their order.
    pub organizations: Vec<String>,
    /// Kinds of the other names, as `DNS`.
    pub names: Vec<&'static str>,
    /// The subject in DER.
    pub subject: Vec<u8>,
    /// The public key in DER (SubjectPublicKeyInfo).
    pub key: Vec<u8>,
    /// The other names in DER (the value of the extension SubjectAltName).
    pub names_der: Option<Vec<u8>>,
}

/// Signs with the key of an authority: a request, usages in words of Kubernetes, and from when until when in seconds of Unix. Answers PEM.
pub type Signer = Arc<dyn Fn(&Request, &[String], (i64, i64)) -> Result<String, String> + Send + Sync>;

impl Request {
    /// Reads PEM.
    ///
    /// # Errors
    /// Why it is none, or is not signed by its own key.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let block = x509_parser::pem::parse_x509_pem(pem).ok().map(|(_, block)| block);
        let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
        let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
        let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| format!("asn1: {e}"))?;
        if !rest.is_empty() {
            return Err("asn1: syntax error: trailing data".into());
        }
        request.verify_signature().map_err(|e| format!("x509: {e}"))?;
        let info = &request.certification_request_info;
        let text = |value: &AttributeTypeAndValue<'_>| {
            value.as_str().map(str::to_owned).map_err(|_| "x509: the subject is not of texts".to_owned())
        };
        let mut found = Self {
            common_name: info.subject.iter_common_name().last().map(text).transpose()?.unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        let asked = info.attributes().iter().filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) => Some(&asked.extensions),
            _ => None,
        });
        for extension in asked.flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            for name in &names.general_names {
                found.names.push(match name {
                    GeneralName::DNSName(_) => "DNS",
                    GeneralName::RFC822Name(_) => "Email",
                    GeneralName::IPAddress(_) => "IP",
                    GeneralName::URI(_) => "URI",
                    _ => return Err("x509: subjectAltNames of this kind are not known".into()),
                });
            }
            if found.names_der.replace(extension.value.to_vec()).is_some() {
                return Err("x509: there are two lists of subjectAltNames".into());
            }
        }
        Ok(found)
    }
}
