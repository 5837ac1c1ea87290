//! How it is told to end. The first process of a namespace gets no signal that it has not asked for, so one that came before somebody
//! listens would be lost: signals are held from the beginning, and a thread takes them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use tokio::sync::watch;

/// What asks a program to end.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Signals that are held.
pub(crate) struct Held(SigSet);

/// Who ends the process when it is told to, or tells on.
pub(crate) struct Ending(Arc<Mutex<Option<watch::Sender<bool>>>>);

impl Held {
    /// Holds them, in this thread and those that it starts.
    pub fn hold() -> io::Result<Self> {
        let set: SigSet = SIGNALS.into_iter().collect();
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Ends the process as others do by default, unless somebody wants to be [told](Ending::told).
    pub fn listen(self) -> io::Result<Ending> {
        let told = Arc::new(Mutex::new(None::<watch::Sender<bool>>));
        let ending = Ending(Arc::clone(&told));
        std::thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(move || {
            while let Ok(signal) = self.0.wait() {
                match &*told.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(told) => drop(told.send_replace(true)),
                    None => engine_host::sys::exit_now(128 + signal as i32),
                }
            }
        })?;
        Ok(ending)
    }
}

impl Ending {
    /// True once it is told to end, which is then the caller's to do.
    pub fn told(&self) -> watch::Receiver<bool> {
        let (tell, told) = watch::channel(false);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
        told
    }
}
