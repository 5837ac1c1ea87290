//! Changes of what is offered (SUBSCRIBE, `REFRESH_FLAVOR` and `WITHDRAW_FLAVOR` of the REAR draft): one line of JSON for each.

use serde::{Deserialize, Serialize};

use super::Flavor;
use super::wire::{FlavorWire, id, read_json, write_json};

/// One line of a subscription.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// What is offered: new, or in the place of what was said of this flavor before.
    Refresh(Box<Flavor>),
    /// Nothing of this flavor can be bought any more.
    Withdraw {
        /// Its name at the seller.
        flavor_id: String,
    },
    /// All that changed has been told; the first ends what was on offer from the beginning.
    Heartbeat,
}

#[derive(Serialize, Deserialize)]
struct ChangeWire {
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flavor: Option<FlavorWire>,
    #[serde(rename = "flavorID", default, skip_serializing_if = "Option::is_none")]
    flavor_id: Option<String>,
}

const REFRESH: &str = "REFRESH_FLAVOR";
const WITHDRAW: &str = "WITHDRAW_FLAVOR";
const HEARTBEAT: &str = "HEARTBEAT";

impl Change {
    /// Returns the change of a line; `None` is a message of a later version, which is passed over.
    ///
    /// # Errors
    /// A sentence that says what was observed and needed.
    pub(crate) fn read(line: &[u8]) -> Result<Option<Self>, String> {
        let wire: ChangeWire = read_json(line)?;
        match wire.message.as_str() {
            REFRESH => {
                let flavor = wire.flavor.ok_or_else(|| format!("{REFRESH} without a flavor"))?;
                Ok(Some(Self::Refresh(Box::new(flavor.try_into()?))))
            }
            WITHDRAW => {
                let flavor_id = id("flavorID", wire.flavor_id.unwrap_or_default())?;
                Ok(Some(Self::Withdraw { flavor_id }))
            }
            HEARTBEAT => Ok(Some(Self::Heartbeat)),
            _ => Ok(None),
        }
    }

    /// Appends the line of this change.
    ///
    /// # Errors
    /// A sentence, if the data of a flavor cannot be written as JSON.
    pub(crate) fn write(&self, lines: &mut Vec<u8>) -> Result<(), String> {
        let wire = |message: &str, flavor, flavor_id| ChangeWire { message: message.into(), flavor, flavor_id };
        let wire = match self {
            Self::Refresh(flavor) => wire(REFRESH, Some(FlavorWire::from(flavor.as_ref())), None),
            Self::Withdraw { flavor_id } => wire(WITHDRAW, None, Some(flavor_id.clone())),
            Self::Heartbeat => wire(HEARTBEAT, None, None),
        };
        lines.extend(write_json(&wire)?);
        lines.push(b'\n');
        Ok(())
    }
}
