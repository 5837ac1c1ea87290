//! A new certificate before the old one is over: at four fifths of its life, with a new key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::enroll;
use super::member::{Current, Membership, keep_pem};

/// The clock may be set meanwhile: it is looked at this often.
const LOOK: Duration = Duration::from_secs(600);
/// What failed is tried again after this; a fifth of a life is long.
const RETRY: Duration = Duration::from_secs(60);

/// Renews for ever.
pub async fn keep(directory: PathBuf, current: Current, member: Membership) {
    loop {
        let pause = match life(&current.pem()) {
            Ok((from, until)) => {
                let left = due(from, until).duration_since(Timestamp::now());
                Duration::try_from(left).ok().filter(|left| !left.is_zero())
            }
            Err(error) => {
                tracing::warn!("the certificate cannot be read: {error:#}");
                None
            }
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause.min(LOOK)).await;
            continue;
        }
        match renew(&directory, &current, &member.name).await {
            Ok(()) => tracing::info!("the certificate of this machine was renewed"),
            Err(error) => {
                tracing::warn!("the certificate was not renewed, and will be tried again: {error:#}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(directory: &std::path::Path, current: &Current, name: &str) -> Result<()> {
    let pem = enroll::certificate(&current.now(), name).await?;
    keep_pem(directory, None, &pem)?;
    current.renew(pem)
}

/// When a certificate is to be renewed.
fn due(from: Timestamp, until: Timestamp) -> Timestamp {
    let life = until.duration_since(from).max(SignedDuration::ZERO);
    from.checked_add(life / 5 * 4).unwrap_or(until)
}

/// From when until when a certificate is good.
fn life(pem: &str) -> Result<(Timestamp, Timestamp)> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).context("no certificate")?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).context("no time");
    Ok((at(certificate.validity().not_before)?, at(certificate.validity().not_after)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn four_fifths_of_a_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(due(at(1000), at(2000)), at(1800));
        assert_eq!(due(at(1000), at(500)), at(1000), "one that is none is renewed at once");
    }

    #[test]
    fn the_life_of_a_certificate_is_read_beside_its_key() {
        let home = tempfile::tempdir().unwrap();
        let authority = substrate_apiserver::tls::Authority::open(home.path()).unwrap();
        let made = authority.client("system:node:b", &["system:nodes"]).unwrap();
        let (from, until) = life(&format!("{}\n{}", made.certificate_pem, made.key_pem)).unwrap();
        assert!(from < until);
        assert!(life(&made.key_pem).is_err());
    }
}
