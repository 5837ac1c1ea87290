//! discovery.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/discovery/v1`. How to read a line: [`super::table`].

use super::core::ObjectReference;
use super::meta::ObjectMeta;

super::table::messages! {
    Endpoint:
        1 "addresses" list string, 2 "conditions" one EndpointConditions, 3 "hostname" opt string,
        4 "targetRef" one ObjectReference, 5 "deprecatedTopology" map string, 6 "nodeName" opt string,
        7 "zone" opt string, 8 "hints" one EndpointHints;
    EndpointConditions: 1 "ready" opt bool, 2 "serving" opt bool, 3 "terminating" opt bool;
    EndpointHints: 1 "forZones" list ForZone, 2 "forNodes" list ForNode;
    EndpointPort: 1 "name" opt string, 2 "protocol" opt string, 3 "port" opt int32, 4 "appProtocol" opt string;
    EndpointSlice:
        1 "metadata" one ObjectMeta, 2 "endpoints" list Endpoint, 3 "ports" list EndpointPort,
        4 "addressType" one string;
    ForNode: 1 "name" one string;
    ForZone: 1 "name" one string;
}
