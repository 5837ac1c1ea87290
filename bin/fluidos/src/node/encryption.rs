//! `--encryption-config`: which kinds are encrypted on the disk, and by which keys, in the form that kube-apiserver reads
//! (`apiserver.config.k8s.io/v1`, kind EncryptionConfiguration).
//!
//! ```yaml
//! resources:
//! - resources: [secrets]
//!   providers:                              # the first one writes, all of them read
//!   - aesgcm: {keys: [{name: one, secret: BASE64 of 32 bytes}]}
//!   - identity: {}                          # not encrypted
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use substrate_store::{Key, Sealing};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

/// Others of upstream's (aescbc, secretbox, kms) are not known here, and refused by their name.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Provider {
    Aesgcm { keys: Vec<NamedKey> },
    Identity {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

/// What the file says; without one nothing is encrypted.
pub fn sealing(path: Option<&Path>) -> Result<Sealing> {
    let Some(path) = path else { return Ok(Sealing::default()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--encryption-config {shown}"))?;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("--encryption-config {shown} has mode {mode:03o}, so others could read the keys; run: chmod 600 {shown}");
    }
    parse(&text).with_context(|| format!("--encryption-config {shown}"))
}

fn parse(text: &str) -> Result<Sealing> {
    // The fault of a key is told without it.
    let file: Configuration = serde_saphyr::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.without_snippet()))?;
    if (file.api_version.as_str(), file.kind.as_str()) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") {
        bail!(
            "needed is EncryptionConfiguration of apiserver.config.k8s.io/v1, not {} of {}",
            file.kind,
            file.api_version
        );
    }
    let [Resources { resources, providers }] = &file.resources[..] else {
        bail!("resources has {} entries; one is known here, for all that is encrypted", file.resources.len());
    };
    let mut keys = Vec::new();
    for provider in providers {
        let Provider::Aesgcm { keys: named } = provider else { continue };
        for key in named {
            let bytes = BASE64_STANDARD.decode(&key.secret).ok();
            let bytes = bytes.with_context(|| format!("the secret of key {} is not in base64", key.name))?;
            keys.push(Key::new(&key.name, &bytes)?);
        }
    }
    let prefixes = resources.iter().map(|name| prefix(name)).collect::<Result<_>>()?;
    Ok(Sealing { prefixes, keys, open: matches!(providers.first(), None | Some(Provider::Identity {})) })
}

/// Where objects of a resource are kept: `secrets`, `deployments.apps`.
fn prefix(name: &str) -> Result<String> {
    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
    let word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c));
    if plural.is_empty() || !word(plural) || !word(group) {
        bail!(
            "resources: {name:?}: needed is a resource, as secrets or deployments.apps; patterns with * are not known here"
        );
    }
    Ok(substrate_apiserver::stored_under(group, plural))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parse;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";

    fn said(resources: &str) -> String {
        match parse(&format!("{HEAD}resources:\n{resources}")) {
            Ok(sealing) => format!("{sealing:?}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn the_file_of_kube_apiserver_is_read_and_what_is_not_known_is_named() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let aes = format!("aesgcm: {{keys: [{{name: one, secret: {key}}}]}}");
        let one = said(&format!(
            "- resources: [secrets, leases.coordination.k8s.io]\n  providers: [{{{aes}}}, {{identity: {{}}}}]"
        ));
        assert!(one.contains("prefixes: [\"/core/secrets/\", \"/coordination.k8s.io/leases/\"]"), "{one}");
        assert!(one.contains("open: false") && one.contains("name: \"one\"") && !one.contains(key), "{one}");
        let open = said(&format!("- resources: [secrets]\n  providers: [{{identity: {{}}}}, {{{aes}}}]"));
        assert!(open.contains("open: true"), "{open}");
        for (providers, words) in [
            ("[{secretbox: {keys: []}}]", "secretbox"),
            ("[{aesgcm: {keys: [{name: one, secret: AAAA}]}}]", "key one has 3 bytes; needed are 32"),
            ("[{aesgcm: {keys: [{name: one, secret: hunter2!}]}}]", "the secret of key one is not in base64"),
        ] {
            let told = said(&format!("- resources: [secrets]\n  providers: {providers}"));
            assert!(told.contains(words) && !told.contains("hunter2"), "{told}");
        }
        assert!(said("- resources: ['*.*']\n  providers: []").contains("patterns with *"));
    }
}
