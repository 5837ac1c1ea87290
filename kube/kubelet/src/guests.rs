//! *Guests*: pods that run here for somebody else. Whoever brings them tells the kubelet which pods they are and when they
//! may be started; the network of a guest is confined from its first moment.

use k8s_openapi::api::core::v1::Pod;

/// Knows the guests of this machine.
pub trait Guests: Send + Sync {
    /// Whether this pod runs here for somebody else. It must always answer the same for a pod.
    fn is_guest(&self, pod: &Pod) -> bool;

    /// Who brings the images of this pod, by a name that is the same for all pods of the same one; `None` for the machine's owner. What one
    /// brings serves no other, and of the owner's images a guest has those that are for everybody.
    fn owner(&self, pod: &Pod) -> Option<String>;

    /// Whether a guest's containers may be started now. One that runs already is left alone: only starting waits. It is
    /// asked again every few seconds.
    fn may_start(&self, pod: &Pod) -> bool;
}
