//! Code that the kernel reads from its file when it is run.

#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Result};

/// The module whose code the file has.
pub(super) fn module(engine: &Engine, path: &Path) -> Result<Module> {
    // SAFETY: the file is whole output of `Engine::precompile_module` and never changes: only the keeper writes it, under the digest of
    // what was compiled and before anybody else opens it; inside it is on a read-only mount, and only root can replace it outside.
    unsafe { Module::deserialize_file(engine, path) }
}

/// The component whose code the file has.
pub(super) fn component(engine: &Engine, path: &Path) -> Result<Component> {
    // SAFETY: as above, of `Engine::precompile_component`.
    unsafe { Component::deserialize_file(engine, path) }
}
