//! What the *host*'s operating system offers to an engine, each behind a safe function.
//!
//! ```text
//! images, runtime ──▶ rooted: paths that cannot leave their root
//!                     files:  whole or absent, also after the loss of power
//!                     folder: small files, looked at again and again
//!                     space:  what is left, and what a directory takes
//!                     sys:    the system calls that no safe wrapper offers
//! ```

pub mod files;
pub mod folder;
pub mod group;
pub mod rooted;
pub mod space;
pub mod sys;
