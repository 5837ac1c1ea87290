//! storage.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/storage/v1`. How to read a line: [`super::table`].

use super::core::{PersistentVolumeSpec, TopologySelectorTerm};
use super::meta::{LabelSelector, ObjectMeta};

super::table::messages! {
    CSIDriver: 1 "metadata" one ObjectMeta, 2 "spec" one CSIDriverSpec;
    CSIDriverSpec:
        1 "attachRequired" opt bool, 2 "podInfoOnMount" opt bool, 3 "volumeLifecycleModes" list string,
        4 "storageCapacity" opt bool, 5 "fsGroupPolicy" opt string, 6 "tokenRequests" list TokenRequest,
        7 "requiresRepublish" opt bool, 8 "seLinuxMount" opt bool, 9 "nodeAllocatableUpdatePeriodSeconds" opt int64,
        10 "serviceAccountTokenInSecrets" opt bool, 11 "preventPodSchedulingIfMissing" opt bool;
    CSINode: 1 "metadata" one ObjectMeta, 2 "spec" one CSINodeSpec;
    CSINodeDriver:
        1 "name" one string, 2 "nodeID" one string, 3 "topologyKeys" list string,
        4 "allocatable" one VolumeNodeResources;
    CSINodeSpec: 1 "drivers" list CSINodeDriver;
    CSIStorageCapacity:
        1 "metadata" one ObjectMeta, 2 "nodeTopology" one LabelSelector, 3 "storageClassName" one string,
        4 "capacity" one quantity, 5 "maximumVolumeSize" one quantity;
    StorageClass:
        1 "metadata" one ObjectMeta, 2 "provisioner" one string, 3 "parameters" map string,
        4 "reclaimPolicy" opt string, 5 "mountOptions" list string, 6 "allowVolumeExpansion" opt bool,
        7 "volumeBindingMode" opt string, 8 "allowedTopologies" list TopologySelectorTerm;
    TokenRequest: 1 "audience" one string, 2 "expirationSeconds" opt int64;
    VolumeAttachment:
        1 "metadata" one ObjectMeta, 2 "spec" one VolumeAttachmentSpec, 3 "status" one VolumeAttachmentStatus;
    VolumeAttachmentSource: 1 "persistentVolumeName" opt string, 2 "inlineVolumeSpec" one PersistentVolumeSpec;
    VolumeAttachmentSpec: 1 "attacher" one string, 2 "source" one VolumeAttachmentSource, 3 "nodeName" one string;
    VolumeAttachmentStatus:
        1 "attached" one bool, 2 "attachmentMetadata" map string, 3 "attachError" one VolumeError,
        4 "detachError" one VolumeError;
    VolumeAttributesClass: 1 "metadata" one ObjectMeta, 2 "driverName" one string, 3 "parameters" map string;
    VolumeError: 1 "time" one time, 2 "message" one string, 3 "errorCode" opt int32;
    VolumeNodeResources: 1 "count" opt int32;
}
