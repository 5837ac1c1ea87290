//! How names are looked up inside a pod: host name, `/etc/hosts`, `/etc/resolv.conf`. Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

/// Kubernetes cuts a pod's name at 63.
const HOSTNAME_MAX: usize = 63;
/// `__NEW_UTS_LEN` of Linux.
const KERNEL_NAME_MAX: usize = 64;
/// The C library reads three name servers (`resolv.conf(5)`); search domains are bounded by the API to 32.
const NAMESERVERS_MAX: usize = 3;

/// How the cluster's names are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDns {
    /// The address of the cluster's DNS, if there is one.
    pub address: Option<Ipv4Addr>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
}

/// The pod's host name: its own word, or its name.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    if let Some(own) = spec.and_then(|s| s.hostname_override.as_ref()) {
        return own.clone();
    }
    let name = spec.and_then(|s| s.hostname.as_deref()).or(pod.metadata.name.as_deref()).unwrap_or("pod");
    let cut: String = name.chars().take(HOSTNAME_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// What the kernel of the pod calls itself: the host name, or with `setHostnameAsFQDN` the full one.
///
/// # Errors
/// The name is longer than a kernel's may be, in upstream's words.
pub fn kernel_name(pod: &Pod, domain: &str) -> Result<String, String> {
    let full = pod.spec.as_ref().is_some_and(|s| s.set_hostname_as_fqdn == Some(true));
    let name = full.then(|| full_name(pod, domain)).flatten().unwrap_or_else(|| hostname(pod));
    match name.len() {
        ..=KERNEL_NAME_MAX => Ok(name),
        long => Err(format!(
            "Failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({KERNEL_NAME_MAX} characters is the max, {long} characters requested)"
        )),
    }
}

/// `hostname.subdomain.namespace.svc.domain`, for a pod with a subdomain and no `hostnameOverride`, which stands alone (KEP-4762).
pub fn full_name(pod: &Pod, domain: &str) -> Option<String> {
    if pod.spec.as_ref().is_some_and(|s| s.hostname_override.is_some()) {
        return None;
    }
    let subdomain = pod.spec.as_ref().and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Some(format!("{}.{subdomain}.{namespace}.svc.{domain}", hostname(pod)))
}

/// The hosts file of a pod with an address of its own.
pub fn hosts(pod: &Pod, pod_ips: &[String], domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let full = full_name(pod, domain).map(|full| full + "\t").unwrap_or_default();
    text.extend(pod_ips.iter().map(|address| format!("{address}\t{full}{}\n", hostname(pod))));
    text + &host_aliases(pod)
}

/// The lines of `spec.hostAliases`.
pub fn host_aliases(pod: &Pod) -> String {
    let aliases = pod.spec.iter().flat_map(|s| s.host_aliases.iter().flatten());
    let lines: String =
        aliases.filter_map(|a| Some(format!("{}\t{}\n", a.ip, a.hostnames.as_ref()?.join("\t")))).collect();
    if lines.is_empty() { lines } else { format!("\n# Entries added by HostAliases.\n{lines}") }
}

/// The resolver configuration, by the pod's `dnsPolicy` and `dnsConfig`; `machine` is the machine's own file.
///
/// ClusterFirst without a cluster DNS is Default, as the kubelet has it.
pub fn resolv_conf(pod: &Pod, dns: &ClusterDns, machine: &str) -> String {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let host_network = spec.and_then(|s| s.host_network) == Some(true);
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut conf = match (policy, dns.address) {
        ("None", _) => Conf::default(),
        ("ClusterFirst", Some(address)) if !host_network => cluster(namespace, address, &dns.domain, machine),
        ("ClusterFirstWithHostNet", Some(address)) => cluster(namespace, address, &dns.domain, machine),
        _ => Conf::parse(machine),
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        conf.nameservers.extend(own.nameservers.iter().flatten().cloned());
        conf.search.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            conf.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            conf.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    conf.text()
}

fn cluster(namespace: &str, address: Ipv4Addr, domain: &str, machine: &str) -> Conf {
    let mut search = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    search.extend(Conf::parse(machine).search);
    Conf { nameservers: vec![address.to_string()], search, options: vec!["ndots:5".to_owned()] }
}

#[derive(Default)]
struct Conf {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Conf {
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => conf.nameservers.extend(words.next()),
                Some("search") => conf.search = words.collect(),
                Some("options") => conf.options.extend(words),
                _ => {}
            }
        }
        conf
    }

    fn text(mut self) -> String {
        let mut seen = std::collections::HashSet::new();
        self.search.retain(|d| d != "." && seen.insert(d.clone()));
        let mut text = String::new();
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        for server in self.nameservers.iter().take(NAMESERVERS_MAX) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec})).unwrap()
    }

    fn check(spec: Value) -> String {
        let dns = ClusterDns { address: Some(Ipv4Addr::new(10, 96, 0, 10)), domain: "cluster.local".into() };
        resolv_conf(&pod(spec), &dns, "nameserver 192.0.2.53\nsearch lan\noptions edns0\n")
    }

    #[test]
    fn resolvers_by_policy() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n";
        let machine = "search lan\nnameserver 192.0.2.53\noptions edns0\n";
        assert_eq!(check(json!({"containers": []})), cluster);
        assert_eq!(check(json!({"containers": [], "dnsPolicy": "Default"})), machine);
        assert_eq!(check(json!({"containers": [], "hostNetwork": true})), machine);
        let own =
            json!({"nameservers": ["192.0.2.1"], "searches": ["x.org"], "options": [{"name": "ndots", "value": "2"}]});
        assert_eq!(
            check(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own})),
            "search x.org\nnameserver 192.0.2.1\noptions ndots:2\n"
        );
    }

    #[test]
    fn names() {
        let plain = pod(json!({"containers": []}));
        let one = ["10.1.0.5".to_owned()];
        let both = ["10.1.0.5".to_owned(), "fd00::5".to_owned()];
        assert!(hosts(&plain, &both, "d").ends_with("10.1.0.5\tweb-0\nfd00::5\tweb-0\n"));
        assert!(hosts(&plain, &one, "d").ends_with("10.1.0.5\tweb-0\n"));
        let sub = pod(
            json!({"containers": [], "subdomain": "db", "hostname": "h", "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a", "b"]}]}),
        );
        assert!(hosts(&sub, &one, "d").contains("10.1.0.5\th.db.shop.svc.d\th\n"));
        assert!(hosts(&sub, &one, "d").ends_with("1.1.1.1\ta\tb\n"));
        assert_eq!(kernel_name(&sub, "d").unwrap(), "h");
        let full = json!({"containers": [], "subdomain": "db", "hostname": "h", "setHostnameAsFQDN": true});
        assert_eq!(kernel_name(&pod(full.clone()), "d").unwrap(), "h.db.shop.svc.d");
        let why = kernel_name(&pod(full), &"d".repeat(60)).unwrap_err();
        assert!(why.ends_with("is too long (64 characters is the max, 74 characters requested)"), "{why}");
        assert_eq!(kernel_name(&pod(json!({"containers": [], "setHostnameAsFQDN": true})), "d").unwrap(), "web-0");
        let own = pod(json!({"containers": [], "subdomain": "db", "hostnameOverride": "a.b.example"}));
        assert_eq!(kernel_name(&own, "d").unwrap(), "a.b.example");
        assert!(hosts(&own, &one, "d").contains("10.1.0.5\ta.b.example\n"));
    }
}
