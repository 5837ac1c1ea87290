//! What WebAssembly finds around it: arguments, variables, streams, files, network, and the bounds of its memory.

use wasmtime::{StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Elements of all tables of one instance: programs with 100,000 functions have fewer, and each is 8 bytes of ours.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;
/// Random bytes that one call may ask for.
const RANDOM_MAX: u64 = 1 << 20;

/// What the container says.
pub(crate) struct Guest {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// Bytes of linear memory.
    pub memory_max: Option<u64>,
}

/// What belongs to one instance of a component.
pub(crate) struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    pub limits: StoreLimits,
}

impl Guest {
    /// Around a command, which may hold the thread up while it reads a file.
    pub fn command(&self) -> wasmtime::Result<WasiCtxBuilder> {
        let mut builder = WasiCtxBuilder::new();
        builder.allow_blocking_current_thread(true).inherit_stdin();
        self.around(builder)
    }

    /// Around a function, beside which others run.
    pub fn function(&self) -> wasmtime::Result<Host> {
        Ok(self.host(self.around(WasiCtxBuilder::new())?))
    }

    pub fn host(&self, mut builder: WasiCtxBuilder) -> Host {
        let (http, table) = (WasiHttpCtx::new(), ResourceTable::new());
        Host { wasi: builder.build(), http, table, limits: self.limits() }
    }

    pub fn limits(&self) -> StoreLimits {
        let builder = StoreLimitsBuilder::new().table_elements(TABLE_ELEMENTS_MAX);
        match self.memory_max.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) => builder.memory_size(bytes).build(),
            None => builder.build(),
        }
    }

    fn around(&self, mut builder: WasiCtxBuilder) -> wasmtime::Result<WasiCtxBuilder> {
        builder.args(&self.args).inherit_stdout().inherit_stderr().max_random_size(RANDOM_MAX);
        for variable in &self.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            builder.env(name, value);
        }
        if !self.cwd.is_empty() {
            builder.initial_cwd(&self.cwd);
        }
        // What may be written is the kernel's to say: the root is mounted read-only, and volumes are as the pod has them.
        builder.preopened_dir("/", "/", FsPerms::ReadWrite)?;
        // The network namespace is the pod's, and its policies are in the kernel.
        builder.inherit_network().allow_ip_name_lookup(true);
        Ok(builder)
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
    }
}
