//! PersistentVolumes and their claims: who is bound to whom, and who may not go while he is used.
//!
//! ```text
//!  claims, volumes, Pods ──▶ plan: one claim, then one volume at a time ──▶ act
//!
//!  claim ── is bound to ──▶ volume        first the volume names the claim, then the claim the volume
//!  Pod  ── uses ──▶ claim                 a claim that is used, and a volume that is bound, do not go
//! ```
//!
//! A volume *fits* a claim if it has its class, modes and selector and is not smaller; the smallest that fits is taken. One that is left
//! (`Released`) is not given to another: what is on it belongs to somebody.
//!
//! Not built: recycling of what a volume stands for. Making and removing it is for provisioners (the kubelet's, `local_path`, and others,
//! which see `volume.kubernetes.io/storage-provisioner`).
//! Where a pod will be is the scheduler's to choose: with `WaitForFirstConsumer` it promises a volume to the claim, or names a node.
mod act;
mod plan;

pub(crate) use act::run;
