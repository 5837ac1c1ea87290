//! The cases, each with what it needs.

mod ends;
mod inside;
mod life;
mod limits;
mod streams;
mod volumes;

use crate::Case;
use crate::Claim::{
    self, Attach, Beside, Exec, ExecEndsWithSession, Privileges, Propagation, SharedProcesses, Shell, SlowReaders,
    Terminal, WritableLayer,
};

pub const ALL: &[(&str, &[Claim], Case)] = &[
    ("programs_say_and_end", &[], |w| Box::pin(ends::programs_say_and_end(w))),
    ("what_is_missing_is_told", &[], |w| Box::pin(ends::what_is_missing_is_told(w))),
    ("ends_when_told", &[], |w| Box::pin(ends::ends_when_told(w))),
    ("survives_its_client", &[], |w| Box::pin(life::survives_its_client(w))),
    ("forget_and_remove", &[], |w| Box::pin(life::forget_and_remove(w))),
    ("exit_code_and_logs", &[Shell], |w| Box::pin(ends::exit_code_and_logs(w))),
    ("what_cannot_start_says_why", &[Shell], |w| Box::pin(ends::what_cannot_start_says_why(w))),
    ("signals_arrive", &[Shell], |w| Box::pin(ends::signals_arrive(w))),
    ("logs_are_set_aside", &[Shell], |w| Box::pin(ends::logs_are_set_aside(w))),
    ("speaks_on_without_its_client", &[Shell], |w| Box::pin(life::speaks_on_without_its_client(w))),
    ("exec_with_streams", &[Shell, Exec], |w| Box::pin(streams::exec_with_streams(w))),
    ("exec_with_terminal", &[Shell, Exec, Terminal], |w| Box::pin(streams::exec_with_terminal(w))),
    ("attached_to_pipes", &[Shell, Attach], |w| Box::pin(streams::attached_to_pipes(w))),
    ("attached_to_a_terminal", &[Shell, Attach, Terminal], |w| Box::pin(streams::attached_to_a_terminal(w))),
    ("a_slow_reader_holds_up", &[Shell, Attach, SlowReaders], |w| Box::pin(streams::a_slow_reader_holds_up(w))),
    ("dropping_a_session_ends_the_command", &[Shell, Exec, ExecEndsWithSession], |w| {
        Box::pin(streams::dropping_a_session_ends_the_command(w))
    }),
    ("beside_another_container", &[Shell, Beside], |w| Box::pin(inside::beside_another_container(w))),
    ("processes_are_shared", &[Shell, SharedProcesses], |w| Box::pin(inside::processes_are_shared(w))),
    ("confined_by_default", &[Shell, Privileges], |w| Box::pin(inside::confined_by_default(w))),
    ("users_and_privileges", &[Shell, Privileges], |w| Box::pin(inside::users_and_privileges(w))),
    ("profiles_of_others", &[Shell], |w| Box::pin(inside::profiles_of_others(w))),
    ("settings_of_the_kernel", &[Shell], |w| Box::pin(inside::settings_of_the_kernel(w))),
    ("the_pods_own_network", &[Shell], |w| Box::pin(inside::the_pods_own_network(w))),
    ("mounts_stay_inside", &[Shell], |w| Box::pin(volumes::mounts_stay_inside(w))),
    ("mounts_follow_the_host", &[Shell, Propagation], |w| Box::pin(volumes::mounts_follow_the_host(w))),
    ("volumes_in_memory", &[Shell], |w| Box::pin(volumes::volumes_in_memory(w))),
    ("what_is_written_is_found", &[Shell, WritableLayer], |w| Box::pin(limits::what_is_written_is_found(w))),
    ("memory_limit_kills", &[Shell], |w| Box::pin(limits::memory_limit_kills(w))),
    ("limits_hold_what_the_runtime_makes", &[Shell], |w| Box::pin(limits::limits_hold_what_the_runtime_makes(w))),
];
