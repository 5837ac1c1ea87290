//! Where a group of writes becomes durable: nowhere, or in the log of a directory.

use std::sync::{Arc, RwLock};

use crate::log::Log;
use crate::state::State;
use crate::{Error, Event};

pub(crate) enum Backend {
    Memory,
    Disk(Box<Log>),
}

impl Backend {
    /// Makes a group durable, all of it or nothing; unless `sync` it need not survive the loss of power.
    pub fn commit(&mut self, events: &[Event], sync: bool) -> Result<(), Error> {
        match self {
            Self::Memory => Ok(()),
            Self::Disk(log) => log.commit(events, sync),
        }
    }

    /// What is to be done now and then, after the group is shown.
    pub fn maintain(&mut self, state: &Arc<RwLock<State>>) {
        if let Self::Disk(log) = self {
            log.maintain(state);
        }
    }
}
