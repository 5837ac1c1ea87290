//! events.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/events/v1`. How to read a line: [`super::table`].

use super::core::{EventSource, ObjectReference};
use super::meta::ObjectMeta;

super::table::messages! {
    Event:
        1 "metadata" one ObjectMeta, 2 "eventTime" one micro_time, 3 "series" one EventSeries,
        4 "reportingController" one string, 5 "reportingInstance" one string, 6 "action" one string,
        7 "reason" one string, 8 "regarding" one ObjectReference, 9 "related" one ObjectReference,
        10 "note" one string, 11 "type" one string, 12 "deprecatedSource" one EventSource,
        13 "deprecatedFirstTimestamp" one time, 14 "deprecatedLastTimestamp" one time, 15 "deprecatedCount" one int32;
    EventSeries: 1 "count" one int32, 2 "lastObservedTime" one micro_time;
}
