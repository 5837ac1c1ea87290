//! The flags of `fluidos up`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use fluidos_discovery::Trust;
use fluidos_identity::NodeId;
use fluidos_model::market::{Amounts, Location, Resource};

use super::issuer::Issuer;
use super::pods::Pods;

/// Shown by `fluidos up --help`.
pub const EXAMPLES: &str = "Examples:
  fluidos up --name farm --data-dir /var/lib/fluidos
  fluidos up --name grid --domain grid.example --data-dir /var/lib/fluidos --offer cpu=4,memory=8Gi,pods=50 --location city=Milan
  fluidos up --name farm --data-dir /var/lib/fluidos --peer 192.0.2.7:7300

Every flag is also a variable (FLUIDOS_DATA_DIR) and a line of the file (data-dir: /var/lib/fluidos).";

/// What a node is told when it starts.
#[derive(clap::Args, Clone, Debug)]
pub struct Up {
    /// The node's name: its Node object, and how peers call it.
    #[arg(long, env = "FLUIDOS_NAME", value_parser = name)]
    pub name: String,
    /// The owner's domain. It is a claim, not a proof.
    #[arg(long, env = "FLUIDOS_DOMAIN", default_value = "fluidos.eu")]
    pub domain: String,
    /// Where the node keeps its key, objects, images and contracts. The same directory is the same node.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_name = "DIR", value_parser = directory)]
    pub data_dir: PathBuf,
    /// Where the Kubernetes API listens.
    #[arg(long, env = "FLUIDOS_API", default_value = "127.0.0.1:6443", value_name = "ADDR:PORT")]
    pub api: SocketAddr,
    /// Where peers reach this node: TCP for REAR, UDP for the link.
    #[arg(long, env = "FLUIDOS_REAR", default_value = "0.0.0.0:7300", value_name = "ADDR:PORT")]
    pub rear: SocketAddr,
    /// Where official FLUIDOS nodes reach this one: REAR without TLS, where nobody proves a key. Off without it; what is sold there
    /// must be permitted by an AccessPolicy and goes as far as the contract.
    #[arg(long, env = "FLUIDOS_REAR_PLAIN", value_name = "ADDR:PORT")]
    pub rear_plain: Option<SocketAddr>,
    /// A peer, by the address of its --rear; may be given several times. It is called until it answers.
    #[arg(long, env = "FLUIDOS_PEER", value_delimiter = ',', value_name = "ADDR:PORT")]
    pub peer: Vec<String>,
    /// A catalog where this node announces itself and looks for others, as did:key:...@HOST:PORT/TENANT, of which only HOST:PORT is
    /// needed; may be given several times.
    #[arg(long, env = "FLUIDOS_CATALOG", value_delimiter = ',', value_name = "[DID@]HOST:PORT[/TENANT]")]
    pub catalog: Vec<fluidos_discovery::catalog::Target>,
    /// Neither announce this node on the LAN nor listen there.
    #[arg(long, env = "FLUIDOS_NO_MDNS")]
    pub no_mdns: bool,
    /// What may be bought here, as cpu=4,memory=8Gi,pods=50, and devices by their names, as example.com/fpga=2; no more is sold than this
    /// owner's machines have. Without it nothing is sold.
    #[arg(long, env = "FLUIDOS_OFFER", value_parser = offer)]
    pub offer: Option<Amounts>,
    /// Who may receive this owner's workloads: known (named by --peer), lan (also found there), or DIDs.
    #[arg(long, env = "FLUIDOS_TRUST", default_value = "known", value_name = "known|lan|did:..,..")]
    pub trust: TrustFlag,
    /// Whose word about nodes is believed, as DID=farm.example (an owner, and its domain), certifier:DID or attester:DID; may be
    /// given several times.
    #[arg(long, env = "FLUIDOS_TRUST_ISSUER", value_delimiter = ',', value_name = "[ROLE:]DID[=DOMAIN]")]
    pub trust_issuer: Vec<Issuer>,
    /// Whether the domain that a believed owner claims is asked whose it is (https://DOMAIN/.well-known/did.json): off, public (at public
    /// addresses only), or private (also on loopback and in private networks).
    #[arg(long, env = "FLUIDOS_DID_WEB", value_enum, default_value_t = DidWeb::Public)]
    pub did_web: DidWeb,
    /// Where this node is, as city=Milan,country=Italy,latitude=45.46,longitude=9.19.
    #[arg(long, env = "FLUIDOS_LOCATION", value_parser = location)]
    pub location: Option<Location>,
    /// Addresses of pods. Default: of the node's key, unique among peers.
    #[arg(long, env = "FLUIDOS_POD_CIDR", value_parser = cidr)]
    pub pod_cidr: Option<(Ipv4Addr, u8)>,
    /// Addresses of Services. Default: of the node's key, unique among peers.
    #[arg(long, env = "FLUIDOS_SERVICE_CIDR", value_parser = cidr)]
    pub service_cidr: Option<(Ipv4Addr, u8)>,
    /// Do not run pods here: no kubelet, no Node for this machine, no root needed.
    #[arg(long, env = "FLUIDOS_NO_AGENT")]
    pub no_agent: bool,
    #[command(flatten)]
    pub pods: Pods,
    /// Which kinds are encrypted on the disk, and by which keys: an EncryptionConfiguration as kube-apiserver reads it, with providers
    /// aesgcm and identity.
    #[arg(long, env = "FLUIDOS_ENCRYPTION_CONFIG", value_name = "FILE")]
    pub encryption_config: Option<PathBuf>,
    /// Which requests to the API are written down, and how much of them: a Policy (audit.k8s.io/v1) as kube-apiserver reads it.
    #[arg(long, env = "FLUIDOS_AUDIT_POLICY_FILE", value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where they are written, as lines of JSON. A file that is full is set aside beside it.
    #[arg(long, env = "FLUIDOS_AUDIT_LOG_PATH", value_name = "FILE", requires = "audit_policy_file", value_parser = directory)]
    pub audit_log_path: Option<PathBuf>,
    /// MiB of that file before it is set aside.
    #[arg(long, env = "FLUIDOS_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub audit_log_maxsize: u64,
    /// How many of those that were set aside are kept; older ones are removed.
    #[arg(long, env = "FLUIDOS_AUDIT_LOG_MAXBACKUP", default_value_t = 10, value_name = "COUNT")]
    pub audit_log_maxbackup: u16,
    /// What happens to running containers when the node is told to stop with SIGTERM.
    #[arg(long, env = "FLUIDOS_ON_STOP", value_enum, default_value_t = OnStop::Keep)]
    pub on_stop: OnStop,
    /// How the scheduler chooses nodes: a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) as YAML.
    #[arg(long, env = "FLUIDOS_SCHEDULER_CONFIG", value_name = "FILE", value_parser = super::config::scheduler)]
    pub scheduler_config: Option<substrate_scheduler::Options>,
    /// A YAML file with these flags.
    #[arg(long, env = "FLUIDOS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Where `did:web` documents are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DidWeb {
    /// Nowhere.
    Off,
    /// At public addresses.
    Public,
    /// Wherever the domain leads.
    Private,
}

/// What happens to containers at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// They run on.
    Keep,
    /// They are stopped.
    Stop,
}

/// `--trust`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustFlag(pub Trust);

impl FromStr for TrustFlag {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut trust = Trust::default();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            match word {
                "known" => trust.known = true,
                // Who trusts the whole LAN trusts whom he named.
                "lan" => (trust.known, trust.lan) = (true, true),
                did => trust
                    .keys
                    .push(did.parse::<NodeId>().map_err(|e| anyhow!("{did:?}: needed known, lan or a did:key: {e}"))?),
            }
        }
        Ok(Self(trust))
    }
}

/// A path that means the same whatever the working directory: it goes into mounts and to other processes.
pub fn directory(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

/// The name of a Node.
pub fn name(text: &str) -> Result<String> {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let inside = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if text.len() > 63 || !edge(bytes.first()) || !edge(bytes.last()) || !inside {
        bail!("needed at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit");
    }
    Ok(text.to_owned())
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').ok_or_else(|| anyhow!("{part:?}: needed NAME=VALUE")))
        .collect()
}

/// Amounts as a flag says them.
pub fn offer(text: &str) -> Result<Amounts> {
    let mut amounts = Amounts::default();
    for (name, value) in pairs(text)? {
        let resource = Resource::parse(name)?;
        let quantity = fluidos_model::market::Quantity::parse(value).map_err(|e| anyhow!("{name}={value}: {e}"))?;
        amounts.set(&resource, resource.offered(quantity));
    }
    Ok(amounts)
}

fn location(text: &str) -> Result<Location> {
    let mut location = Location::default();
    for (name, value) in pairs(text)? {
        let field = match name {
            "city" => &mut location.city,
            "country" => &mut location.country,
            "latitude" => &mut location.latitude,
            "longitude" => &mut location.longitude,
            other => bail!("{other}: needed city, country, latitude or longitude"),
        };
        if matches!(name, "latitude" | "longitude") && value.parse::<f64>().is_err() {
            bail!("{name}={value}: needed degrees, as 45.46");
        }
        value.clone_into(field);
    }
    Ok(location)
}

fn cidr(text: &str) -> Result<(Ipv4Addr, u8)> {
    let (address, bits) = text.split_once('/').ok_or_else(|| anyhow!("needed ADDRESS/BITS, as 10.42.0.0/16"))?;
    let (address, bits): (Ipv4Addr, u8) = (address.parse()?, bits.parse()?);
    if !(12..=28).contains(&bits) {
        bail!("/{bits}: needed between /12 and /28");
    }
    Ok((address, bits))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_read_or_refused_with_what_was_needed() {
        let amounts = offer("cpu=1500m,memory=2Gi,pods=5").unwrap();
        assert_eq!((amounts.cpu_milli, amounts.memory_bytes, amounts.pods), (1500, 2 << 30, 5));
        assert_eq!(offer("cpu=0").unwrap(), Amounts::default());
        assert_eq!(offer("gpu=1,example.com/fpga=2").unwrap().to_string(), "example.com/fpga 2, nvidia.com/gpu 1");
        assert!(offer("fpga=1").unwrap_err().to_string().contains("\"fpga\" is not traded: needed cpu, memory"));
        assert!(offer("cpu").unwrap_err().to_string().contains("NAME=VALUE"));
        assert_eq!(location("city=Milan, country=Italy").unwrap().country, "Italy");
        assert!(location("latitude=north").unwrap_err().to_string().contains("degrees"));
        assert_eq!(cidr("10.42.0.0/16").unwrap().1, 16);
        assert!(cidr("10.42.0.0/30").is_err() && cidr("10.42.0.0").is_err());
        assert!("lan".parse::<TrustFlag>().unwrap().0.known);
        assert!("did:web:x".parse::<TrustFlag>().is_err());
        assert!(name("Farm").is_err() && name("farm-1").is_ok());
    }
}
