//! Many nodes on a LAN that only announce themselves: each with a key of its own, signed, all at the address of this machine. Nobody answers
//! at their links. Until it is killed.

use std::io::Write as _;

use anyhow::Result;
use fluidos_discovery::Features;
use fluidos_discovery::mdns::{Announcement, Mdns};
use fluidos_identity::NodeKey;

/// The first of their ports.
const FIRST_PORT: u16 = 20_000;
/// Announced one after the other, so that no packet is lost before anybody listens.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Announces so many, says so, and goes on.
pub async fn announce(count: u16) -> Result<()> {
    let mut mdns = Mdns::start(None)?;
    for number in 0..count {
        let mut seed = [13; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let (key, name, port) = (NodeKey::from_seed(seed)?, format!("n{number}"), FIRST_PORT + number);
        let (domain, features) = ("crowd.example", &Features::default());
        let announcement = Announcement { key: &key, name: &name, domain, rear_port: port, link_port: port, features };
        mdns.announce_also(&announcement)?;
        tokio::time::sleep(PAUSE).await;
    }
    writeln!(std::io::stdout(), "announced {count}")?;
    std::future::pending::<()>().await;
    Ok(())
}
