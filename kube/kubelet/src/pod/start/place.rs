//! What a pod gets from around it: its network, the objects and tokens that it refers to, its files in `/etc`.

use super::*;
use crate::static_pods::is_static;

/// The API server may be asked for no shorter life of a token.
const TOKEN_SECONDS: i64 = 3600;

impl Starter<'_> {
    pub(super) async fn network(&self) -> Result<(Option<PathBuf>, Vec<String>), Failure> {
        if self.host_network() {
            return Ok((None, self.shared.host_ips.clone()));
        }
        let Some(network) = &self.shared.network else {
            let message = "this node has no pod network; only pods with hostNetwork run here".to_owned();
            return Err(Failure { reason: "NetworkNotReady", message, retry: Retry::Never });
        };
        let guest = self.shared.guests.as_ref().is_some_and(|guests| guests.is_guest(self.pod));
        let uid = uid(self.pod);
        let (namespace, name) = (&self.pod.metadata.namespace, &self.pod.metadata.name);
        let (namespace, name) = (namespace.as_deref().unwrap_or("default"), name.as_deref().unwrap_or_default());
        let attached = match guest {
            true => network.attach_confined(uid).await,
            false => network.attach_as(uid, namespace, name).await,
        };
        let attached = attached.map_err(|e| self.no_sandbox(chain(&e)))?;
        network.publish(uid, host_ports::wanted(self.pod)).await.map_err(|e| self.no_sandbox(chain(&e)))?;
        let addresses = [attached.address.to_string()].into_iter().chain(attached.address_v6.map(|v6| v6.to_string()));
        Ok((Some(attached.netns), addresses.collect()))
    }

    /// Fetches what the pod refers to. What is not there is simply absent: whether that matters is decided later.
    pub(super) async fn sources(&self) -> Result<Sources, Failure> {
        if is_static(self.pod) {
            return Ok(Sources::default()); // it runs without an API, and uses nothing of it
        }
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let needed = environment::needed(self.pod);
        let client = &self.shared.client;
        let mut sources = Sources::default();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for name in needed.config_maps {
            let found = maps.get_opt(&name).await.map_err(|e| unreachable_api("configmap", &name, &e))?;
            sources.config_maps.extend(found.map(|m| (name, m)));
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        for name in needed.secrets {
            let found = secrets.get_opt(&name).await.map_err(|e| unreachable_api("secret", &name, &e))?;
            sources.secrets.extend(found.map(|s| (name, s)));
        }
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let listed =
            services.list(&ListParams::default()).await.map_err(|e| unreachable_api("services of", namespace, &e))?;
        sources.services = listed.items;
        if namespace != "default" {
            let services: Api<Service> = Api::namespaced(client.clone(), "default");
            let api = services.get_opt("kubernetes").await.map_err(|e| unreachable_api("service", "kubernetes", &e))?;
            sources.services.extend(api);
        }
        Ok(sources)
    }

    /// Asks for the tokens that projected volumes want. An API server that gives none (404, 501) is told about loudly,
    /// and the file is left out.
    pub(super) async fn tokens(&self, sources: &mut Sources) -> Result<(), Failure> {
        let spec = self.pod.spec.as_ref();
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let account = spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.shared.client.clone(), namespace);
        for volume in spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            for wanted in token_sources(volume) {
                let place = (uid(self.pod).to_owned(), volume.name.clone(), wanted.path.clone());
                if let Some(token) = self.shared.tokens.get(&place) {
                    sources.tokens.insert((volume.name.clone(), wanted.path.clone()), token);
                    continue;
                }
                let audiences = wanted.audience.iter().cloned().collect();
                let expiration_seconds = Some(wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS));
                let bound_object_ref = Some(k8s_openapi::api::authentication::v1::BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                });
                let spec = TokenRequestSpec { audiences, expiration_seconds, bound_object_ref };
                let request = TokenRequest { spec, ..TokenRequest::default() };
                match accounts.create_token_request(account, &PostParams::default(), &request).await {
                    Ok(answer) => {
                        let Some(status) = answer.status else { continue };
                        let token = status.token;
                        self.shared.tokens.insert(place, &token, status.expiration_timestamp.0);
                        sources.tokens.insert((volume.name.clone(), wanted.path.clone()), token);
                    }
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405 | 501) => {
                        let message = format!(
                            "volume {:?}: the API server gives no token for service account {account} ({}); {} is left out",
                            volume.name, status.code, wanted.path
                        );
                        tracing::warn!(pod = self.pod.metadata.name, message);
                        self.shared.events.warning(self.pod, None, "TokenNotAvailable", message);
                    }
                    Err(e) => return Err(unreachable_api("token for service account", account, &e)),
                }
            }
        }
        Ok(())
    }

    pub(super) fn sysctls(&self) -> BTreeMap<String, String> {
        let context = self.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let asked = context.iter().flat_map(|c| c.sysctls.iter().flatten());
        asked.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
    }

    pub(super) fn etc(&self, pod_ips: &[String]) -> std::io::Result<()> {
        let dir = self.dir.etc("");
        std::fs::create_dir_all(&dir)?;
        let machine = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let resolv = names::resolv_conf(self.pod, &self.shared.dns, &machine("/etc/resolv.conf"));
        std::fs::write(self.dir.etc("resolv.conf"), resolv)?;
        let (hosts, hostname) = match self.host_network() {
            true => (machine("/etc/hosts") + &names::host_aliases(self.pod), machine("/etc/hostname")),
            false => (
                names::hosts(self.pod, pod_ips, &self.shared.dns.domain),
                names::kernel_name(self.pod, &self.shared.dns.domain).map_err(std::io::Error::other)? + "\n",
            ),
        };
        std::fs::write(self.dir.etc("hosts"), hosts)?;
        std::fs::write(self.dir.etc("hostname"), hostname)
    }
}

fn token_sources(volume: &Volume) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ServiceAccountTokenProjection> {
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.service_account_token.as_ref())
}

fn unreachable_api(what: &str, name: &str, e: &kube::Error) -> Failure {
    Failure { reason: "CreateContainerConfigError", message: format!("get {what} \"{name}\": {e}"), retry: Retry::Soon }
}
