//! *Commands*: what runs once, and whose exit code is the container's.
//!
//! ```text
//! module     _start         proc_exit(code), or its return (0)
//! component  wasi:cli/run   exit, or its result (0, 1)
//! both       trap           134, as of a program that aborts, and why in the log
//! ```

use wasmtime::component::Component;
use wasmtime::{Engine, Linker, Module, Store, StoreLimits};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::{I32Exit, p1, p2};

use crate::code::Code;
use crate::host::{Guest, Host};
use crate::say;

/// 128 and SIGABRT: what a program that aborts ends with.
const TRAPPED: u8 = 134;

struct Preview1 {
    wasi: WasiP1Ctx,
    limits: StoreLimits,
}

/// Runs a module.
pub(crate) fn module(engine: &Engine, code: &Code, guest: &Guest) -> wasmtime::Result<u8> {
    let module: Module = code.module(engine)?;
    let mut linker: Linker<Preview1> = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host| &mut host.wasi)?;
    let host = Preview1 { wasi: guest.command()?.build_p1(), limits: guest.limits() };
    let mut store = unending(Store::new(engine, host));
    store.limiter(|host| &mut host.limits);
    run(async {
        let instance = linker.instantiate_async(&mut store, &module).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        start.call_async(&mut store, ()).await.map(|()| Ok(()))
    })
}

/// Runs a component.
pub(crate) fn component(engine: &Engine, code: &Code, guest: &Guest) -> wasmtime::Result<u8> {
    let component: Component = code.component(engine)?;
    let mut linker = wasmtime::component::Linker::<Host>::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    let mut store = unending(Store::new(engine, guest.host(guest.command()?)));
    store.limiter(|host| &mut host.limits);
    run(async {
        let command = Command::instantiate_async(&mut store, &component, &linker).await?;
        command.wasi_cli_run().call_run(&mut store).await
    })
}

/// Code is compiled to look whether its time is over; that of a command is the pod's.
fn unending<T>(mut store: Store<T>) -> Store<T> {
    store.set_epoch_deadline(u64::MAX / 2);
    store
}

fn run(ends: impl Future<Output = wasmtime::Result<Result<(), ()>>>) -> wasmtime::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(ends);
    runtime.shutdown_background(); // somebody may still wait for input
    let why = match ended {
        Ok(Ok(())) => return Ok(0),
        Ok(Err(())) => return Ok(1),
        Err(why) => why,
    };
    match why.downcast_ref::<I32Exit>() {
        Some(exit) => Ok(exit.0 as u8), // as the kernel cuts it
        None => {
            say(&format!("{why:#}"));
            Ok(TRAPPED)
        }
    }
}
