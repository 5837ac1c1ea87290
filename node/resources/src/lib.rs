//! Local Resource Manager (§6.4): the only writer of local flavors.
