//! The first two policies, which the flags of `fluidos up` write: `offer` and `trust`.

use std::fmt::Write as _;

use fluidos_identity::NodeId;

/// Who may receive this owner's workloads, as `--trust` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Something is sold (`--offer`).
    pub offers: bool,
    /// Those that the owner named by address.
    pub known: bool,
    /// Those found on the LAN, too.
    pub lan: bool,
    /// These keys, however they were found.
    pub keys: Vec<NodeId>,
}

const WRITTEN: &str =
    "// Written at every start, from the flags of `fluidos up`. To say more, write an AccessPolicy of your own:
// a forbid in it counts more than what is permitted here.
";

/// The text of the policy `offer`. What was sold is kept, whether or not more is sold.
pub fn offer(flags: &Flags) -> String {
    let sell = if flags.offers {
        "// --offer: anybody may see what is sold; who proves a key may have it.
@id(\"list\")
permit (principal, action == Action::\"Discover\", resource);
@id(\"sell\")
permit (principal, action in [Action::\"Negotiate\", Action::\"Reserve\", Action::\"Buy\"], resource)
when { principal.proven };
"
    } else {
        "// Nothing is sold: there is no --offer.\n"
    };
    format!(
        "{WRITTEN}{sell}// Who has a contract may use it.
@id(\"run\")
permit (principal, action == Action::\"Offload\", resource)
when {{ principal.proven }};
"
    )
}

/// The text of the policy `trust`.
pub fn trust(flags: &Flags) -> String {
    let mut text = String::from(WRITTEN);
    let mut receive = |why: &str, id: &str, when: &str| {
        let _ = write!(
            text,
            "// {why}
@id(\"{id}\")
permit (principal, action == Action::\"Receive\", resource)
when {{ {when} }};
"
        );
    };
    if flags.known {
        receive(
            "--trust known: those that the owner named by address.",
            "known",
            "principal.source == Source::\"Static\"",
        );
    }
    if flags.lan {
        receive("--trust lan: those found on the LAN.", "lan", "principal.source == Source::\"Multicast\"");
    }
    for (place, key) in flags.keys.iter().enumerate() {
        let id = format!("key-{}", place + 1);
        receive("--trust did:…: a key, however it was found.", &id, &format!("principal in Peer::\"{key}\""));
    }
    receive("Those whose KnownCluster the owner wrote as trusted.", "hand", "principal.trust == Trust::\"Trusted\"");
    text.push_str(
        "@id(\"hand-not\")
@reason(\"its owner's KnownCluster says Untrusted\")
forbid (principal, action == Action::\"Receive\", resource)
when { principal.trust == Trust::\"Untrusted\" };
",
    );
    text
}
