//! The allocator's set-up: on a device memory is the budget.
#![allow(unsafe_code)]

/// Arenas of glibc's allocator: one for each of the two runtime threads; the default of eight a core keeps freed memory.
const ARENAS: i32 = 2;
/// Free memory at the top of the heap that is given back to the machine.
const TRIM_BYTES: i32 = 128 * 1024;

/// Sets the allocator up. Call it before the first thread.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only writes parameters of the allocator; no other thread runs yet that could read them meanwhile.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_BYTES);
    }
}
