//! Cron jobs: jobs at given times.

use serde_json::{Value, json};
use substrate_client::schedule::Schedule;

use super::job;
use crate::kinds::{Builtin, Description, Errors, pod_spec};
use crate::object::child;
use crate::status::FieldError;
use crate::table::{age, containers, images, list, selector, since, text};

pub static KIND: Description = Description {
    short: &["cj"],
    categories: &["all"],
    has_status: true,
    counts: true,
    rules: Builtin { default, validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["batch", "v1", "CronJob", "cronjobs"])
};

const COLUMNS: &str =
    "Name, Schedule, Timezone, Suspend:boolean, Active:integer, Last Schedule, Age, Containers+, Images+, Selector+";

/// A job's name is that of its cron job and 11 characters that tell its time; together they must be a label.
const NAME_MAX: usize = 52;

fn default(cron: &mut Value) {
    let spec = &mut cron["spec"];
    pod_spec::set(spec, "concurrencyPolicy", "Allow");
    pod_spec::set(spec, "suspend", false);
    pod_spec::set(spec, "successfulJobsHistoryLimit", 3);
    pod_spec::set(spec, "failedJobsHistoryLimit", 1);
    child(spec, "jobTemplate");
    job::default_template(&mut spec["jobTemplate"]);
    pod_spec::set(cron, "status", json!({}));
}

fn validate(cron: &Value, errors: &mut Errors) {
    let spec = &cron["spec"];
    match spec["schedule"].as_str() {
        None | Some("") => errors.push(FieldError::required("spec.schedule", "")),
        Some(schedule) if schedule.contains("TZ") => {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid("spec.schedule", &spec["schedule"], why));
        }
        Some(schedule) => {
            if let Err(why) = schedule.parse::<Schedule>() {
                errors.push(FieldError::invalid("spec.schedule", &spec["schedule"], &why.to_string()));
            }
        }
    }
    errors.nonnegative(&spec["startingDeadlineSeconds"], "spec.startingDeadlineSeconds");
    time_zone(&spec["timeZone"], errors);
    errors.one_of(&spec["concurrencyPolicy"], "spec.concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
    job::validate_template(&spec["jobTemplate"], "spec.jobTemplate", errors);
    errors.all_nonnegative(spec, "spec", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
    let name = &cron["metadata"]["name"];
    let is_new = cron["metadata"]["resourceVersion"].is_null();
    if is_new && name.as_str().is_some_and(|name| name.len() > NAME_MAX) {
        errors.push(FieldError::invalid("metadata.name", name, "must be no more than 52 characters"));
    }
}

fn time_zone(zone: &Value, errors: &mut Errors) {
    let why = match zone.as_str() {
        None => return,
        Some("") => "timeZone must be nil or non-empty string".to_owned(),
        Some(name) if name.eq_ignore_ascii_case("local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
        }
        Some(name) if jiff::tz::TimeZone::get(name).is_err() => format!("unknown time zone {name}"),
        Some(_) => return,
    };
    errors.push(FieldError::invalid("spec.timeZone", zone, &why));
}

fn cells(cron: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&cron["spec"], &cron["status"]);
    let last = status["lastScheduleTime"].as_str().map_or_else(|| "<none>".to_owned(), |at| since(at, now));
    let job = &spec["jobTemplate"]["spec"];
    vec![
        cron["metadata"]["name"].clone(),
        text(&spec["schedule"], ""),
        text(&spec["timeZone"], "<none>"),
        json!(if spec["suspend"] == json!(true) { "True" } else { "False" }),
        list(&status["active"]).len().into(),
        last.into(),
        age(cron, now),
        containers(&job["template"]["spec"]),
        images(&job["template"]["spec"]),
        selector(&job["selector"]),
    ]
}
