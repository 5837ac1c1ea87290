//! How a verb reaches the API: kubectl's flags, with kubectl's meaning. Nothing here gives more rights than the caller has.
//!
//! ```text
//! --kubeconfig, else $KUBECONFIG, else ~/.kube/config ──▶ file ── --context, --cluster, --user ──▶ one cluster, one user
//!                                                                 --server, --token, … ─────────▶ instead of what these say
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};

/// What cluster, user and context are called that only flags describe.
const OF_FLAGS: &str = "flags";

/// kubectl's connection flags; they stand before or after the verb.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The kubeconfig; else $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The namespace. Default: `fluidos` for our kinds, `default` for workloads.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The cluster in the kubeconfig, instead of the context's.
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The user in the kubeconfig, instead of the context's.
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    user: Option<String>,
    /// The API server's address.
    #[arg(short, long, global = true, hide_short_help = true, value_name = "URL")]
    server: Option<String>,
    /// The certificate that the server's must be signed by.
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    certificate_authority: Option<String>,
    /// The name that the server's certificate must have.
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Do not check the server's certificate: whoever answers gets what is sent.
    #[arg(long, global = true, hide_short_help = true)]
    insecure_skip_tls_verify: bool,
    /// A bearer token.
    #[arg(long, global = true, hide_short_help = true)]
    token: Option<String>,
    /// The caller's certificate.
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    client_certificate: Option<String>,
    /// The key of the caller's certificate.
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    client_key: Option<String>,
    /// How long one answer may take, as 10s, 2m; 0 is as long as it takes.
    #[arg(long, global = true, hide_short_help = true, value_parser = timeout, value_name = "TIME")]
    request_timeout: Option<Duration>,
}

/// As kubectl reads it: a number is seconds.
pub fn timeout(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| anyhow!("needed a time, as 10s, 2m, 1h"))?;
    match &text[digits.len()..] {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        unit => Err(anyhow!("{unit:?}: needed ms, s, m or h")),
    }
}

impl Connection {
    /// A client with the caller's rights.
    ///
    /// # Errors
    /// When there is no kubeconfig or it cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        let (config, shown) = self.config().await?;
        kube::Client::try_from(config).context(shown)
    }

    /// A client of the same API that has no rights: what a stranger would have.
    ///
    /// # Errors
    /// When there is no kubeconfig or it cannot be used.
    pub async fn stranger(&self) -> Result<kube::Client> {
        let (mut config, shown) = self.config().await?;
        config.auth_info = AuthInfo::default();
        kube::Client::try_from(config).context(shown)
    }

    /// The port of the API; `None` when there is no kubeconfig or it cannot be used.
    pub async fn port(&self) -> Option<u16> {
        let (config, _) = self.config().await.ok()?;
        let default = if config.cluster_url.scheme_str() == Some("http") { 80 } else { 443 };
        Some(config.cluster_url.port_u16().unwrap_or(default))
    }

    async fn config(&self) -> Result<(kube::Config, String)> {
        let (mut file, shown) = self.read()?;
        self.override_in(&mut file);
        let options = KubeConfigOptions {
            context: self.context.clone().or_else(|| file.current_context.clone()),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.with_context(|| shown.clone())?;
        if let Some(limit) = self.request_timeout {
            config.read_timeout = Some(limit).filter(|limit| !limit.is_zero());
        }
        Ok((config, shown))
    }

    /// The kubeconfig and what it is called. With `--server` none is needed.
    fn read(&self) -> Result<(Kubeconfig, String)> {
        if let Some(path) = &self.kubeconfig {
            let file = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
            return Ok((file, path.display().to_string()));
        }
        if let Some(file) = Kubeconfig::from_env().context("KUBECONFIG")? {
            return Ok((file, "KUBECONFIG".into()));
        }
        let path = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        match (path.filter(|path| path.exists()), &self.server) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(&path).with_context(|| path.display().to_string())?;
                Ok((file, path.display().to_string()))
            }
            (None, Some(server)) => Ok((Kubeconfig::default(), server.clone())),
            (None, None) => {
                Err(anyhow!("no kubeconfig: give --kubeconfig or KUBECONFIG (the node wrote DIR/kubeconfig)"))
            }
        }
    }

    /// Puts what flags say in the place of what the file says.
    fn override_in(&self, file: &mut Kubeconfig) {
        let wanted = self.context.as_ref().or(file.current_context.as_ref());
        let context = file.contexts.iter().find(|c| Some(&c.name) == wanted).and_then(|c| c.context.clone());
        if context.is_none() && self.server.is_some() && wanted.is_none() {
            // As kubectl does with no file: the flags alone are a cluster and a user.
            let context = kube::config::Context {
                cluster: self.cluster.clone().unwrap_or_else(|| OF_FLAGS.into()),
                user: Some(self.user.clone().unwrap_or_else(|| OF_FLAGS.into())),
                ..Default::default()
            };
            file.contexts.push(NamedContext { name: OF_FLAGS.into(), context: Some(context), ..Default::default() });
            file.current_context = Some(OF_FLAGS.into());
            let name = self.cluster.as_deref().unwrap_or(OF_FLAGS);
            if !file.clusters.iter().any(|c| c.name == name) {
                let cluster = Some(Cluster::default());
                file.clusters.push(NamedCluster { name: name.into(), cluster, other: Default::default() });
            }
            let name = self.user.as_deref().unwrap_or(OF_FLAGS);
            if !file.auth_infos.iter().any(|u| u.name == name) {
                let auth_info = Some(AuthInfo::default());
                file.auth_infos.push(NamedAuthInfo { name: name.into(), auth_info, other: Default::default() });
            }
            return self.override_in(file);
        }
        let cluster = self.cluster.clone().or_else(|| context.as_ref().map(|c| c.cluster.clone()));
        let user = self.user.clone().or_else(|| context.and_then(|c| c.user));
        for named in file.clusters.iter_mut().filter(|c| Some(&c.name) == cluster.as_ref()) {
            self.override_cluster(named.cluster.get_or_insert_default());
        }
        for named in file.auth_infos.iter_mut().filter(|u| Some(&u.name) == user.as_ref()) {
            self.override_user(named.auth_info.get_or_insert_default());
        }
    }

    fn override_cluster(&self, cluster: &mut Cluster) {
        if let Some(server) = &self.server {
            cluster.server = Some(server.clone());
        }
        if let Some(path) = &self.certificate_authority {
            (cluster.certificate_authority, cluster.certificate_authority_data) = (Some(path.clone()), None);
        }
        if let Some(name) = &self.tls_server_name {
            cluster.tls_server_name = Some(name.clone());
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            (cluster.certificate_authority, cluster.certificate_authority_data) = (None, None);
        }
    }

    fn override_user(&self, user: &mut AuthInfo) {
        if let Some(token) = &self.token {
            // Who says a token is not to be taken for who the file's certificate names.
            *user = AuthInfo { token: Some(token.clone().into()), ..Default::default() };
        }
        if let Some(path) = &self.client_certificate {
            (user.client_certificate, user.client_certificate_data) = (Some(path.clone()), None);
        }
        if let Some(path) = &self.client_key {
            (user.client_key, user.client_key_data) = (Some(path.clone()), None);
        }
    }

    /// The namespace that is meant.
    pub fn namespace_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(default)
    }
}

/// Runs what needs the API.
///
/// # Errors
/// What `work` says.
pub fn with<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file() -> Kubeconfig {
        let text = "current-context: farm\n\
            clusters: [{name: c1, cluster: {server: https://c1, certificate-authority-data: x}}, {name: c2, cluster: {server: https://c2}}]\n\
            users: [{name: u1, user: {client-certificate-data: x, client-key-data: y}}, {name: u2, user: {token: t2}}]\n\
            contexts: [{name: farm, context: {cluster: c1, user: u1}}, {name: grid, context: {cluster: c2, user: u2}}]\n";
        Kubeconfig::from_yaml(text).unwrap()
    }

    fn cluster(file: &Kubeconfig, number: usize) -> Cluster {
        file.clusters[number].cluster.clone().unwrap()
    }

    #[test]
    fn flags_count_more_than_the_file_and_only_for_who_is_meant() {
        let server = Some("https://other".to_owned());
        let mut changed = file();
        Connection { server: server.clone(), ..Default::default() }.override_in(&mut changed);
        assert_eq!(cluster(&changed, 0).server, server, "the current context's cluster");
        assert_eq!(cluster(&changed, 1).server.as_deref(), Some("https://c2"), "not another's");

        let mut changed = file();
        Connection { server: server.clone(), context: Some("grid".into()), ..Default::default() }
            .override_in(&mut changed);
        assert_eq!(cluster(&changed, 0).server.as_deref(), Some("https://c1"));
        assert_eq!(cluster(&changed, 1).server, server, "--context chooses");

        let mut changed = file();
        let connection = Connection { server: server.clone(), cluster: Some("c2".into()), ..Default::default() };
        connection.override_in(&mut changed);
        assert_eq!(cluster(&changed, 1).server, server, "--cluster chooses");

        let mut changed = file();
        Connection { insecure_skip_tls_verify: true, ..Default::default() }.override_in(&mut changed);
        assert_eq!(
            cluster(&changed, 0).certificate_authority_data,
            None,
            "nothing is checked, so nothing is to check by"
        );

        let mut changed = file();
        Connection { token: Some("secret".into()), ..Default::default() }.override_in(&mut changed);
        let user = changed.auth_infos[0].auth_info.clone().unwrap();
        assert!(
            user.token.is_some() && user.client_certificate_data.is_none(),
            "a token, and no certificate beside it"
        );
    }

    #[test]
    fn flags_alone_are_enough() {
        let mut made = Kubeconfig::default();
        let connection = Connection { server: Some("https://x".into()), token: Some("t".into()), ..Default::default() };
        connection.override_in(&mut made);
        assert_eq!(cluster(&made, 0).server.as_deref(), Some("https://x"));
        assert!(made.auth_infos[0].auth_info.clone().unwrap().token.is_some());
        assert_eq!(made.current_context.as_deref(), Some(OF_FLAGS));
    }

    #[test]
    fn times_are_read_as_kubectl_reads_them() {
        for (text, expected) in
            [("0", 0), ("5", 5_000), ("10s", 10_000), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(timeout(text).unwrap(), Duration::from_millis(expected), "{text}");
        }
        for text in ["", "s", "1d", "-1s", "1.5s"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
