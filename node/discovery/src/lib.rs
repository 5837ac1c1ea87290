//! Discovery Manager (§6.4.1): the peering candidates database.
