//! meta/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/apimachinery/pkg/apis/meta/v1`. How to read a line: [`super::table`].

super::table::messages! {
    Condition:
        1 "type" one string, 2 "status" one string, 3 "observedGeneration" one int64,
        4 "lastTransitionTime" one time, 5 "reason" one string, 6 "message" one string;
    DeleteOptions:
        1 "gracePeriodSeconds" opt int64, 2 "preconditions" one Preconditions, 3 "orphanDependents" opt bool,
        4 "propagationPolicy" opt string, 5 "dryRun" list string,
        6 "ignoreStoreReadErrorWithClusterBreakingPotential" opt bool;
    FieldSelectorRequirement: 1 "key" one string, 2 "operator" one string, 3 "values" list string;
    LabelSelector: 1 "matchLabels" map string, 2 "matchExpressions" list LabelSelectorRequirement;
    LabelSelectorRequirement: 1 "key" one string, 2 "operator" one string, 3 "values" list string;
    ListMeta:
        1 "selfLink" one string, 2 "resourceVersion" one string, 3 "continue" one string,
        4 "remainingItemCount" opt int64, 5 "shardInfo" one ShardInfo;
    ManagedFieldsEntry:
        1 "manager" one string, 2 "operation" one string, 3 "apiVersion" one string, 4 "time" one time,
        6 "fieldsType" one string, 7 "fieldsV1" one json, 8 "subresource" one string;
    ObjectMeta:
        1 "name" one string, 2 "generateName" one string, 3 "namespace" one string, 4 "selfLink" one string,
        5 "uid" one string, 6 "resourceVersion" one string, 7 "generation" one int64,
        8 "creationTimestamp" one time, 9 "deletionTimestamp" one time,
        10 "deletionGracePeriodSeconds" opt int64, 11 "labels" map string, 12 "annotations" map string,
        13 "ownerReferences" list OwnerReference, 14 "finalizers" list string,
        17 "managedFields" list ManagedFieldsEntry;
    OwnerReference:
        1 "kind" one string, 3 "name" one string, 4 "uid" one string, 5 "apiVersion" one string,
        6 "controller" opt bool, 7 "blockOwnerDeletion" opt bool;
    PartialObjectMetadata: 1 "metadata" one ObjectMeta;
    Preconditions: 1 "uid" opt string, 2 "resourceVersion" opt string;
    ShardInfo: 1 "selector" one string;
    Status:
        1 "metadata" one ListMeta, 2 "status" one string, 3 "message" one string, 4 "reason" one string,
        5 "details" one StatusDetails, 6 "code" one int32;
    StatusCause: 1 "reason" one string, 2 "message" one string, 3 "field" one string;
    StatusDetails:
        1 "name" one string, 2 "group" one string, 3 "kind" one string, 4 "causes" list StatusCause,
        5 "retryAfterSeconds" one int32, 6 "uid" one string;
}
