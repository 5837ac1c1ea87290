//! CronJob: a Job at each time of a schedule.
//!
//! ```text
//!  CronJobs, Jobs, the time ──▶ plan: what has ended, what is due, what is history ──▶ act
//! ```
//!
//! A time is *due* from when it comes until the next one: of several that were missed only the last is made up for, and none
//! that is later than `startingDeadlineSeconds`. The Job of a time has a name that follows from it, so it is made once.
//!
//! The grammar is that of robfig/cron's standard parser, which upstream uses and whose peculiarities users know
//! ([`substrate_client::schedule`]). The crates that were looked at (`cron`, `croner`, `saffron`) have other grammars, and bring a
//! second calendar (chrono). Times are those of the wall in `timeZone`, else UTC.
mod act;
mod plan;
mod schedule;

pub(crate) use act::run;
