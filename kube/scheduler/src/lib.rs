//! What kube-scheduler does: chooses a node for every pod that has none.
//!
//! ```text
//!  Pods, Nodes ──▶ View ──▶ schedule(&View, &Pod): filters ─▶ scores ──▶ Ok(node)  ──▶ POST pods/NAME/binding
//!                 ▲ ▲                                                └─▶ Err(why)  ──▶ condition, event, back-off
//!                 │ └── assumed pods: chosen, not yet seen bound
//!                 └──── guarantees: kept for pods that are not there yet (`guarantee`)
//! ```
//!
//! [`schedule`] is a pure function and a library: whoever wants to know whether a pod would fit, and if not why, calls it
//! with a [`View`] of his own. What the loop works out for a pod it keeps for its equals (`prepared`). A **filter** says of a node why a pod cannot run there; a **score** says how well it would.
//! Names, order, weights and words follow the default profile of kube-scheduler 1.34.
//!
//! A pod that fits nowhere makes others of lower priority leave, if that helps (`preempt`), and waits for their room.
//!
//! Limits: volumes are not counted against what a node can attach, no dynamic resource
//! allocation, no extenders.
mod act;
mod config;
mod filters;
mod guarantee;
mod preempt;
mod prepared;
mod profile;
mod queue;
mod run;
mod schedule;
mod scores;
mod storage;
mod tally;
mod track;
mod view;

pub use config::ConfigError;
pub use guarantee::Guarantee;
pub use profile::{FitStrategy, Profile};
pub use run::{Guaranteed, Options, run};
pub use schedule::{Choice, FitError, Placement, schedule, schedule_by};
pub use storage::Storage;
pub use substrate_client::lookup::{
    label_selector_matches, node_matches_affinity, node_selector_term_matches, tolerates,
};
pub use substrate_client::requests::{Resources, pod_requests};
pub use view::{NodeInfo, View};
