//! Certificates that somebody else has asked for: subject, key and names go in as they stand in the request (rcgen keeps one organisation
//! of a subject only, and each is a group here).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::SigningKey;
use substrate_client::certificates::Request;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag, construct_der};

use super::{Authority, Error, certificate};

const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALT_NAMES: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
/// Usages in words of Kubernetes, and their numbers below id-kp; those of a key are bits.
const EXTENDED: &[(&str, u64)] = &[("server auth", 1), ("client auth", 2)];
const BITS: &[(&str, u8)] = &[("digital signature", 0x80), ("key encipherment", 0x20)];
/// A sequence of nothing: a subject without a name.
const EMPTY: [u8; 2] = [0x30, 0];

impl Authority {
    /// A certificate of what `request` asks, for `usages` and from when until when (seconds of Unix), as PEM; with it nothing can be signed.
    /// What may be asked is judged by who calls.
    ///
    /// # Errors
    /// When a usage is none of those that are signed here, or it cannot be signed.
    pub fn issue(&self, request: &Request, usages: &[String], life: (i64, i64)) -> Result<String, Error> {
        let known = |usage: &str| EXTENDED.iter().any(|(w, _)| *w == usage) || BITS.iter().any(|(w, _)| *w == usage);
        if let Some(usage) = usages.iter().find(|usage| !known(usage)) {
            return Err(certificate(format!("usage {usage:?} is not signed here")));
        }
        let (_, own) = parse_x509_pem(self.certificate_pem.as_bytes()).map_err(certificate)?;
        let own = own.parse_x509().map_err(certificate)?;
        let own_key = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let life = [time(life.0)?, time(life.1)?];
        let extensions = extensions(request, usages, own_key);
        let body = construct_der(|writer| {
            writer.write_sequence(|fields| {
                fields.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
                fields.next().write_bigint_bytes(uuid::Uuid::new_v4().as_bytes(), true);
                fields.next().write_sequence(|algorithm| oid(algorithm.next(), ECDSA_WITH_SHA256));
                fields.next().write_der(own.subject().as_raw());
                fields.next().write_sequence(|times| life.iter().for_each(|time| times.next().write_der(time)));
                fields.next().write_der(&request.subject);
                fields.next().write_der(&request.key);
                fields.next().write_tagged(Tag::context(3), |writer| writer.write_der(&extensions));
            });
        });
        let signature = self.issuer.key().sign(&body).map_err(certificate)?;
        let der = construct_der(|writer| {
            writer.write_sequence(|fields| {
                fields.next().write_der(&body);
                fields.next().write_sequence(|algorithm| oid(algorithm.next(), ECDSA_WITH_SHA256));
                fields.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Ok(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
    }
}

/// What a certificate says beside its subject.
fn extensions(request: &Request, usages: &[String], own_key: Option<&[u8]>) -> Vec<u8> {
    let has = |word: &str| usages.iter().any(|usage| usage == word);
    let bits = BITS.iter().filter(|(word, _)| has(word)).fold(0, |bits, (_, bit)| bits | bit);
    let extended: Vec<u64> = EXTENDED.iter().filter(|(word, _)| has(word)).map(|(_, number)| *number).collect();
    let mut list = vec![(BASIC_CONSTRAINTS, true, EMPTY.to_vec())];
    if bits != 0 {
        let used = 8 - bits.trailing_zeros() as usize;
        list.push((KEY_USAGE, true, construct_der(|writer| writer.write_bitvec_bytes(&[bits], used))));
    }
    if !extended.is_empty() {
        let purposes = construct_der(|writer| {
            writer.write_sequence(|all| extended.iter().for_each(|n| oid(all.next(), &[1, 3, 6, 1, 5, 5, 7, 3, *n])));
        });
        list.push((EXTENDED_KEY_USAGE, false, purposes));
    }
    if let Some(id) = own_key {
        let id = |writer: DERWriter<'_>| writer.write_bytes(id);
        let key = construct_der(|w| w.write_sequence(|w| w.next().write_tagged_implicit(Tag::context(0), id)));
        list.push((AUTHORITY_KEY, false, key));
    }
    if let Some(names) = &request.names_der {
        list.push((ALT_NAMES, request.subject == EMPTY, names.clone()));
    }
    construct_der(|writer| {
        writer.write_sequence(|extensions| {
            for (id, critical, value) in &list {
                extensions.next().write_sequence(|fields| {
                    oid(fields.next(), id);
                    if *critical {
                        fields.next().write_bool(true);
                    }
                    fields.next().write_bytes(value);
                });
            }
        });
    })
}

fn oid(writer: DERWriter<'_>, numbers: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(numbers));
}

/// A time as certificates write it (RFC 5280, 4.1.2.5): with four digits of the year from 2050 on.
fn time(seconds: i64) -> Result<Vec<u8>, Error> {
    let time = jiff::Timestamp::from_second(seconds).map_err(certificate)?;
    let text = time.strftime("%Y%m%d%H%M%SZ").to_string();
    let (tag, text) = if text.as_str() < "2050" { (0x17, &text[2..]) } else { (0x18, text.as_str()) };
    Ok([&[tag, text.len() as u8], text.as_bytes()].concat())
}
