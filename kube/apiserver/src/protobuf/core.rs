//! core/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/core/v1`. How to read a line: [`super::table`].

use super::meta::{Condition, LabelSelector, ObjectMeta};

super::table::messages! {
    AWSElasticBlockStoreVolumeSource:
        1 "volumeID" one string, 2 "fsType" one string, 3 "partition" one int32, 4 "readOnly" one bool;
    Affinity:
        1 "nodeAffinity" one NodeAffinity, 2 "podAffinity" one PodAffinity,
        3 "podAntiAffinity" one PodAntiAffinity;
    AppArmorProfile: 1 "type" one string, 2 "localhostProfile" opt string;
    AttachedVolume: 1 "name" one string, 2 "devicePath" one string;
    AzureDiskVolumeSource:
        1 "diskName" one string, 2 "diskURI" one string, 3 "cachingMode" opt string, 4 "fsType" opt string,
        5 "readOnly" opt bool, 6 "kind" opt string;
    AzureFilePersistentVolumeSource:
        1 "secretName" one string, 2 "shareName" one string, 3 "readOnly" one bool, 4 "secretNamespace" opt string;
    AzureFileVolumeSource: 1 "secretName" one string, 2 "shareName" one string, 3 "readOnly" one bool;
    Binding: 1 "metadata" one ObjectMeta, 2 "target" one ObjectReference;
    CSIPersistentVolumeSource:
        1 "driver" one string, 2 "volumeHandle" one string, 3 "readOnly" one bool, 4 "fsType" one string,
        5 "volumeAttributes" map string, 6 "controllerPublishSecretRef" one SecretReference,
        7 "nodeStageSecretRef" one SecretReference, 8 "nodePublishSecretRef" one SecretReference,
        9 "controllerExpandSecretRef" one SecretReference, 10 "nodeExpandSecretRef" one SecretReference;
    CSIVolumeSource:
        1 "driver" one string, 2 "readOnly" opt bool, 3 "fsType" opt string, 4 "volumeAttributes" map string,
        5 "nodePublishSecretRef" one LocalObjectReference;
    Capabilities: 1 "add" list string, 2 "drop" list string;
    CephFSPersistentVolumeSource:
        1 "monitors" list string, 2 "path" one string, 3 "user" one string, 4 "secretFile" one string,
        5 "secretRef" one SecretReference, 6 "readOnly" one bool;
    CephFSVolumeSource:
        1 "monitors" list string, 2 "path" one string, 3 "user" one string, 4 "secretFile" one string,
        5 "secretRef" one LocalObjectReference, 6 "readOnly" one bool;
    CinderPersistentVolumeSource:
        1 "volumeID" one string, 2 "fsType" one string, 3 "readOnly" one bool, 4 "secretRef" one SecretReference;
    CinderVolumeSource:
        1 "volumeID" one string, 2 "fsType" one string, 3 "readOnly" one bool,
        4 "secretRef" one LocalObjectReference;
    ClientIPConfig: 1 "timeoutSeconds" opt int32;
    ClusterTrustBundleProjection:
        1 "name" opt string, 2 "signerName" opt string, 3 "labelSelector" one LabelSelector,
        4 "path" one string, 5 "optional" opt bool;
    ConfigMap: 1 "metadata" one ObjectMeta, 2 "data" map string, 3 "binaryData" map bytes, 4 "immutable" opt bool;
    ConfigMapEnvSource: 1 "localObjectReference" inline LocalObjectReference, 2 "optional" opt bool;
    ConfigMapKeySelector:
        1 "localObjectReference" inline LocalObjectReference, 2 "key" one string, 3 "optional" opt bool;
    ConfigMapNodeConfigSource:
        1 "namespace" one string, 2 "name" one string, 3 "uid" one string, 4 "resourceVersion" one string,
        5 "kubeletConfigKey" one string;
    ConfigMapProjection:
        1 "localObjectReference" inline LocalObjectReference, 2 "items" list KeyToPath, 4 "optional" opt bool;
    ConfigMapVolumeSource:
        1 "localObjectReference" inline LocalObjectReference, 2 "items" list KeyToPath,
        3 "defaultMode" opt int32, 4 "optional" opt bool;
    Container:
        1 "name" one string, 2 "image" one string, 3 "command" list string, 4 "args" list string,
        5 "workingDir" one string, 6 "ports" list ContainerPort, 7 "env" list EnvVar,
        8 "resources" one ResourceRequirements, 9 "volumeMounts" list VolumeMount, 10 "livenessProbe" one Probe,
        11 "readinessProbe" one Probe, 12 "lifecycle" one Lifecycle, 13 "terminationMessagePath" one string,
        14 "imagePullPolicy" one string, 15 "securityContext" one SecurityContext, 16 "stdin" one bool,
        17 "stdinOnce" one bool, 18 "tty" one bool, 19 "envFrom" list EnvFromSource,
        20 "terminationMessagePolicy" one string, 21 "volumeDevices" list VolumeDevice,
        22 "startupProbe" one Probe, 23 "resizePolicy" list ContainerResizePolicy,
        24 "restartPolicy" opt string, 25 "restartPolicyRules" list ContainerRestartRule;
    ContainerExtendedResourceRequest:
        1 "containerName" one string, 2 "resourceName" one string, 3 "requestName" one string;
    ContainerImage: 1 "names" list string, 2 "sizeBytes" one int64;
    ContainerPort:
        1 "name" one string, 2 "hostPort" one int32, 3 "containerPort" one int32, 4 "protocol" one string,
        5 "hostIP" one string;
    ContainerResizePolicy: 1 "resourceName" one string, 2 "restartPolicy" one string;
    ContainerRestartRule: 1 "action" one string, 2 "exitCodes" one ContainerRestartRuleOnExitCodes;
    ContainerRestartRuleOnExitCodes: 1 "operator" one string, 2 "values" list int32;
    ContainerState:
        1 "waiting" one ContainerStateWaiting, 2 "running" one ContainerStateRunning,
        3 "terminated" one ContainerStateTerminated;
    ContainerStateRunning: 1 "startedAt" one time;
    ContainerStateTerminated:
        1 "exitCode" one int32, 2 "signal" one int32, 3 "reason" one string, 4 "message" one string,
        5 "startedAt" one time, 6 "finishedAt" one time, 7 "containerID" one string;
    ContainerStateWaiting: 1 "reason" one string, 2 "message" one string;
    ContainerStatus:
        1 "name" one string, 2 "state" one ContainerState, 3 "lastState" one ContainerState, 4 "ready" one bool,
        5 "restartCount" one int32, 6 "image" one string, 7 "imageID" one string, 8 "containerID" one string,
        9 "started" opt bool, 10 "allocatedResources" map quantity, 11 "resources" one ResourceRequirements,
        12 "volumeMounts" list VolumeMountStatus, 13 "user" one ContainerUser,
        14 "allocatedResourcesStatus" list ResourceStatus, 15 "stopSignal" opt string;
    ContainerUser: 1 "linux" one LinuxContainerUser;
    DaemonEndpoint: 1 "Port" one int32;
    DownwardAPIProjection: 1 "items" list DownwardAPIVolumeFile;
    DownwardAPIVolumeFile:
        1 "path" one string, 2 "fieldRef" one ObjectFieldSelector,
        3 "resourceFieldRef" one ResourceFieldSelector, 4 "mode" opt int32;
    DownwardAPIVolumeSource: 1 "items" list DownwardAPIVolumeFile, 2 "defaultMode" opt int32;
    EmptyDirVolumeSource: 1 "medium" one string, 2 "sizeLimit" one quantity;
    EndpointAddress:
        1 "ip" one string, 2 "targetRef" one ObjectReference, 3 "hostname" one string, 4 "nodeName" opt string;
    EndpointPort: 1 "name" one string, 2 "port" one int32, 3 "protocol" one string, 4 "appProtocol" opt string;
    EndpointSubset:
        1 "addresses" list EndpointAddress, 2 "notReadyAddresses" list EndpointAddress,
        3 "ports" list EndpointPort;
    Endpoints: 1 "metadata" one ObjectMeta, 2 "subsets" list EndpointSubset;
    EnvFromSource: 1 "prefix" one string, 2 "configMapRef" one ConfigMapEnvSource, 3 "secretRef" one SecretEnvSource;
    EnvVar: 1 "name" one string, 2 "value" one string, 3 "valueFrom" one EnvVarSource;
    EnvVarSource:
        1 "fieldRef" one ObjectFieldSelector, 2 "resourceFieldRef" one ResourceFieldSelector,
        3 "configMapKeyRef" one ConfigMapKeySelector, 4 "secretKeyRef" one SecretKeySelector,
        5 "fileKeyRef" one FileKeySelector;
    EphemeralContainer:
        1 "ephemeralContainerCommon" inline EphemeralContainerCommon, 2 "targetContainerName" one string;
    EphemeralContainerCommon:
        1 "name" one string, 2 "image" one string, 3 "command" list string, 4 "args" list string,
        5 "workingDir" one string, 6 "ports" list ContainerPort, 7 "env" list EnvVar,
        8 "resources" one ResourceRequirements, 9 "volumeMounts" list VolumeMount, 10 "livenessProbe" one Probe,
        11 "readinessProbe" one Probe, 12 "lifecycle" one Lifecycle, 13 "terminationMessagePath" one string,
        14 "imagePullPolicy" one string, 15 "securityContext" one SecurityContext, 16 "stdin" one bool,
        17 "stdinOnce" one bool, 18 "tty" one bool, 19 "envFrom" list EnvFromSource,
        20 "terminationMessagePolicy" one string, 21 "volumeDevices" list VolumeDevice,
        22 "startupProbe" one Probe, 23 "resizePolicy" list ContainerResizePolicy,
        24 "restartPolicy" opt string, 25 "restartPolicyRules" list ContainerRestartRule;
    EphemeralVolumeSource: 1 "volumeClaimTemplate" one PersistentVolumeClaimTemplate;
    Event:
        1 "metadata" one ObjectMeta, 2 "involvedObject" one ObjectReference, 3 "reason" one string,
        4 "message" one string, 5 "source" one EventSource, 6 "firstTimestamp" one time,
        7 "lastTimestamp" one time, 8 "count" one int32, 9 "type" one string, 10 "eventTime" one micro_time,
        11 "series" one EventSeries, 12 "action" one string, 13 "related" one ObjectReference,
        14 "reportingComponent" one string, 15 "reportingInstance" one string;
    EventSeries: 1 "count" one int32, 2 "lastObservedTime" one micro_time;
    EventSource: 1 "component" one string, 2 "host" one string;
    ExecAction: 1 "command" list string;
    FCVolumeSource:
        1 "targetWWNs" list string, 2 "lun" opt int32, 3 "fsType" one string, 4 "readOnly" one bool,
        5 "wwids" list string;
    FileKeySelector: 1 "volumeName" one string, 2 "path" one string, 3 "key" one string, 4 "optional" opt bool;
    FlexPersistentVolumeSource:
        1 "driver" one string, 2 "fsType" one string, 3 "secretRef" one SecretReference, 4 "readOnly" one bool,
        5 "options" map string;
    FlexVolumeSource:
        1 "driver" one string, 2 "fsType" one string, 3 "secretRef" one LocalObjectReference,
        4 "readOnly" one bool, 5 "options" map string;
    FlockerVolumeSource: 1 "datasetName" one string, 2 "datasetUUID" one string;
    GCEPersistentDiskVolumeSource:
        1 "pdName" one string, 2 "fsType" one string, 3 "partition" one int32, 4 "readOnly" one bool;
    GRPCAction: 1 "port" one int32, 2 "service" opt string;
    GitRepoVolumeSource: 1 "repository" one string, 2 "revision" one string, 3 "directory" one string;
    GlusterfsPersistentVolumeSource:
        1 "endpoints" one string, 2 "path" one string, 3 "readOnly" one bool, 4 "endpointsNamespace" opt string;
    GlusterfsVolumeSource: 1 "endpoints" one string, 2 "path" one string, 3 "readOnly" one bool;
    HTTPGetAction:
        1 "path" one string, 2 "port" one int_or_string, 3 "host" one string, 4 "scheme" one string,
        5 "httpHeaders" list HTTPHeader;
    HTTPHeader: 1 "name" one string, 2 "value" one string;
    HostAlias: 1 "ip" one string, 2 "hostnames" list string;
    HostIP: 1 "ip" one string;
    HostPathVolumeSource: 1 "path" one string, 2 "type" opt string;
    ISCSIPersistentVolumeSource:
        1 "targetPortal" one string, 2 "iqn" one string, 3 "lun" one int32, 4 "iscsiInterface" one string,
        5 "fsType" one string, 6 "readOnly" one bool, 7 "portals" list string, 8 "chapAuthDiscovery" one bool,
        10 "secretRef" one SecretReference, 11 "chapAuthSession" one bool, 12 "initiatorName" opt string;
    ISCSIVolumeSource:
        1 "targetPortal" one string, 2 "iqn" one string, 3 "lun" one int32, 4 "iscsiInterface" one string,
        5 "fsType" one string, 6 "readOnly" one bool, 7 "portals" list string, 8 "chapAuthDiscovery" one bool,
        10 "secretRef" one LocalObjectReference, 11 "chapAuthSession" one bool, 12 "initiatorName" opt string;
    ImageVolumeSource: 1 "reference" one string, 2 "pullPolicy" one string;
    KeyToPath: 1 "key" one string, 2 "path" one string, 3 "mode" opt int32;
    Lifecycle: 1 "postStart" one LifecycleHandler, 2 "preStop" one LifecycleHandler, 3 "stopSignal" opt string;
    LifecycleHandler:
        1 "exec" one ExecAction, 2 "httpGet" one HTTPGetAction, 3 "tcpSocket" one TCPSocketAction,
        4 "sleep" one SleepAction;
    LimitRange: 1 "metadata" one ObjectMeta, 2 "spec" one LimitRangeSpec;
    LimitRangeItem:
        1 "type" one string, 2 "max" map quantity, 3 "min" map quantity, 4 "default" map quantity,
        5 "defaultRequest" map quantity, 6 "maxLimitRequestRatio" map quantity;
    LimitRangeSpec: 1 "limits" list LimitRangeItem;
    LinuxContainerUser: 1 "uid" one int64, 2 "gid" one int64, 3 "supplementalGroups" list int64;
    LoadBalancerIngress: 1 "ip" one string, 2 "hostname" one string, 3 "ipMode" opt string, 4 "ports" list PortStatus;
    LoadBalancerStatus: 1 "ingress" list LoadBalancerIngress;
    LocalObjectReference: 1 "name" one string;
    LocalVolumeSource: 1 "path" one string, 2 "fsType" opt string;
    ModifyVolumeStatus: 1 "targetVolumeAttributesClassName" one string, 2 "status" one string;
    NFSVolumeSource: 1 "server" one string, 2 "path" one string, 3 "readOnly" one bool;
    Namespace: 1 "metadata" one ObjectMeta, 2 "spec" one NamespaceSpec, 3 "status" one NamespaceStatus;
    NamespaceCondition:
        1 "type" one string, 2 "status" one string, 4 "lastTransitionTime" one time, 5 "reason" one string,
        6 "message" one string;
    NamespaceSpec: 1 "finalizers" list string;
    NamespaceStatus: 1 "phase" one string, 2 "conditions" list NamespaceCondition;
    Node: 1 "metadata" one ObjectMeta, 2 "spec" one NodeSpec, 3 "status" one NodeStatus;
    NodeAddress: 1 "type" one string, 2 "address" one string;
    NodeAffinity:
        1 "requiredDuringSchedulingIgnoredDuringExecution" one NodeSelector,
        2 "preferredDuringSchedulingIgnoredDuringExecution" list PreferredSchedulingTerm;
    NodeCondition:
        1 "type" one string, 2 "status" one string, 3 "lastHeartbeatTime" one time,
        4 "lastTransitionTime" one time, 5 "reason" one string, 6 "message" one string;
    NodeConfigSource: 2 "configMap" one ConfigMapNodeConfigSource;
    NodeConfigStatus:
        1 "assigned" one NodeConfigSource, 2 "active" one NodeConfigSource,
        3 "lastKnownGood" one NodeConfigSource, 4 "error" one string;
    NodeDaemonEndpoints: 1 "kubeletEndpoint" one DaemonEndpoint;
    NodeFeatures: 1 "supplementalGroupsPolicy" opt bool;
    NodeRuntimeHandler: 1 "name" one string, 2 "features" one NodeRuntimeHandlerFeatures;
    NodeRuntimeHandlerFeatures: 1 "recursiveReadOnlyMounts" opt bool, 2 "userNamespaces" opt bool;
    NodeSelector: 1 "nodeSelectorTerms" list NodeSelectorTerm;
    NodeSelectorRequirement: 1 "key" one string, 2 "operator" one string, 3 "values" list string;
    NodeSelectorTerm: 1 "matchExpressions" list NodeSelectorRequirement, 2 "matchFields" list NodeSelectorRequirement;
    NodeSpec:
        1 "podCIDR" one string, 2 "externalID" one string, 3 "providerID" one string,
        4 "unschedulable" one bool, 5 "taints" list Taint, 6 "configSource" one NodeConfigSource,
        7 "podCIDRs" list string;
    NodeAllocatableResourceClaimStatus:
        1 "resourceClaimName" one string, 2 "containers" list string, 3 "resources" map quantity;
    NodeStatus:
        1 "capacity" map quantity, 2 "allocatable" map quantity, 3 "phase" one string,
        4 "conditions" list NodeCondition, 5 "addresses" list NodeAddress,
        6 "daemonEndpoints" one NodeDaemonEndpoints, 7 "nodeInfo" one NodeSystemInfo,
        8 "images" list ContainerImage, 9 "volumesInUse" list string, 10 "volumesAttached" list AttachedVolume,
        11 "config" one NodeConfigStatus, 12 "runtimeHandlers" list NodeRuntimeHandler,
        13 "features" one NodeFeatures, 14 "declaredFeatures" list string;
    NodeSwapStatus: 1 "capacity" opt int64;
    NodeSystemInfo:
        1 "machineID" one string, 2 "systemUUID" one string, 3 "bootID" one string,
        4 "kernelVersion" one string, 5 "osImage" one string, 6 "containerRuntimeVersion" one string,
        7 "kubeletVersion" one string, 8 "kubeProxyVersion" one string, 9 "operatingSystem" one string,
        10 "architecture" one string, 11 "swap" one NodeSwapStatus;
    ObjectFieldSelector: 1 "apiVersion" one string, 2 "fieldPath" one string;
    ObjectReference:
        1 "kind" one string, 2 "namespace" one string, 3 "name" one string, 4 "uid" one string,
        5 "apiVersion" one string, 6 "resourceVersion" one string, 7 "fieldPath" one string;
    PersistentVolume:
        1 "metadata" one ObjectMeta, 2 "spec" one PersistentVolumeSpec, 3 "status" one PersistentVolumeStatus;
    PersistentVolumeClaim:
        1 "metadata" one ObjectMeta, 2 "spec" one PersistentVolumeClaimSpec,
        3 "status" one PersistentVolumeClaimStatus;
    PersistentVolumeClaimCondition:
        1 "type" one string, 2 "status" one string, 3 "lastProbeTime" one time, 4 "lastTransitionTime" one time,
        5 "reason" one string, 6 "message" one string;
    PersistentVolumeClaimSpec:
        1 "accessModes" list string, 2 "resources" one VolumeResourceRequirements, 3 "volumeName" one string,
        4 "selector" one LabelSelector, 5 "storageClassName" opt string, 6 "volumeMode" opt string,
        7 "dataSource" one TypedLocalObjectReference, 8 "dataSourceRef" one TypedObjectReference,
        9 "volumeAttributesClassName" opt string;
    PersistentVolumeClaimStatus:
        1 "phase" one string, 2 "accessModes" list string, 3 "capacity" map quantity,
        4 "conditions" list PersistentVolumeClaimCondition, 5 "allocatedResources" map quantity,
        7 "allocatedResourceStatuses" map string, 8 "currentVolumeAttributesClassName" opt string,
        9 "modifyVolumeStatus" one ModifyVolumeStatus;
    PersistentVolumeClaimTemplate: 1 "metadata" one ObjectMeta, 2 "spec" one PersistentVolumeClaimSpec;
    PersistentVolumeClaimVolumeSource: 1 "claimName" one string, 2 "readOnly" one bool;
    PersistentVolumeSource:
        1 "gcePersistentDisk" one GCEPersistentDiskVolumeSource,
        2 "awsElasticBlockStore" one AWSElasticBlockStoreVolumeSource, 3 "hostPath" one HostPathVolumeSource,
        4 "glusterfs" one GlusterfsPersistentVolumeSource, 5 "nfs" one NFSVolumeSource,
        6 "rbd" one RBDPersistentVolumeSource, 7 "iscsi" one ISCSIPersistentVolumeSource,
        8 "cinder" one CinderPersistentVolumeSource, 9 "cephfs" one CephFSPersistentVolumeSource,
        10 "fc" one FCVolumeSource, 11 "flocker" one FlockerVolumeSource,
        12 "flexVolume" one FlexPersistentVolumeSource, 13 "azureFile" one AzureFilePersistentVolumeSource,
        14 "vsphereVolume" one VsphereVirtualDiskVolumeSource, 15 "quobyte" one QuobyteVolumeSource,
        16 "azureDisk" one AzureDiskVolumeSource, 17 "photonPersistentDisk" one PhotonPersistentDiskVolumeSource,
        18 "portworxVolume" one PortworxVolumeSource, 19 "scaleIO" one ScaleIOPersistentVolumeSource,
        20 "local" one LocalVolumeSource, 21 "storageos" one StorageOSPersistentVolumeSource,
        22 "csi" one CSIPersistentVolumeSource;
    PersistentVolumeSpec:
        1 "capacity" map quantity, 2 "persistentVolumeSource" inline PersistentVolumeSource,
        3 "accessModes" list string, 4 "claimRef" one ObjectReference, 5 "persistentVolumeReclaimPolicy" one string,
        6 "storageClassName" one string, 7 "mountOptions" list string, 8 "volumeMode" opt string,
        9 "nodeAffinity" one VolumeNodeAffinity, 10 "volumeAttributesClassName" opt string;
    PersistentVolumeStatus:
        1 "phase" one string, 2 "message" one string, 3 "reason" one string, 4 "lastPhaseTransitionTime" one time;
    PhotonPersistentDiskVolumeSource: 1 "pdID" one string, 2 "fsType" one string;
    Pod: 1 "metadata" one ObjectMeta, 2 "spec" one PodSpec, 3 "status" one PodStatus;
    PodAffinity:
        1 "requiredDuringSchedulingIgnoredDuringExecution" list PodAffinityTerm,
        2 "preferredDuringSchedulingIgnoredDuringExecution" list WeightedPodAffinityTerm;
    PodAffinityTerm:
        1 "labelSelector" one LabelSelector, 2 "namespaces" list string, 3 "topologyKey" one string,
        4 "namespaceSelector" one LabelSelector, 5 "matchLabelKeys" list string,
        6 "mismatchLabelKeys" list string;
    PodAntiAffinity:
        1 "requiredDuringSchedulingIgnoredDuringExecution" list PodAffinityTerm,
        2 "preferredDuringSchedulingIgnoredDuringExecution" list WeightedPodAffinityTerm;
    PodCertificateProjection:
        1 "signerName" one string, 2 "keyType" one string, 3 "maxExpirationSeconds" opt int32,
        4 "credentialBundlePath" one string, 5 "keyPath" one string, 6 "certificateChainPath" one string,
        7 "userAnnotations" map string;
    PodCondition:
        1 "type" one string, 2 "status" one string, 3 "lastProbeTime" one time, 4 "lastTransitionTime" one time,
        5 "reason" one string, 6 "message" one string, 7 "observedGeneration" one int64;
    PodDNSConfig: 1 "nameservers" list string, 2 "searches" list string, 3 "options" list PodDNSConfigOption;
    PodDNSConfigOption: 1 "name" one string, 2 "value" opt string;
    PodExtendedResourceClaimStatus:
        1 "requestMappings" list ContainerExtendedResourceRequest, 2 "resourceClaimName" one string;
    PodIP: 1 "ip" one string;
    PodOS: 1 "name" one string;
    PodReadinessGate: 1 "conditionType" one string;
    PodResourceClaim: 1 "name" one string, 3 "resourceClaimName" opt string, 4 "resourceClaimTemplateName" opt string;
    PodResourceClaimStatus: 1 "name" one string, 2 "resourceClaimName" opt string;
    PodSchedulingGate: 1 "name" one string;
    PodSecurityContext:
        1 "seLinuxOptions" one SELinuxOptions, 2 "runAsUser" opt int64, 3 "runAsNonRoot" opt bool,
        4 "supplementalGroups" list int64, 5 "fsGroup" opt int64, 6 "runAsGroup" opt int64,
        7 "sysctls" list Sysctl, 8 "windowsOptions" one WindowsSecurityContextOptions,
        9 "fsGroupChangePolicy" opt string, 10 "seccompProfile" one SeccompProfile,
        11 "appArmorProfile" one AppArmorProfile, 12 "supplementalGroupsPolicy" opt string,
        13 "seLinuxChangePolicy" opt string;
    PodSpec:
        1 "volumes" list Volume, 2 "containers" list Container, 3 "restartPolicy" one string,
        4 "terminationGracePeriodSeconds" opt int64, 5 "activeDeadlineSeconds" opt int64,
        6 "dnsPolicy" one string, 7 "nodeSelector" map string, 8 "serviceAccountName" one string,
        9 "serviceAccount" one string, 10 "nodeName" one string, 11 "hostNetwork" one bool,
        12 "hostPID" one bool, 13 "hostIPC" one bool, 14 "securityContext" one PodSecurityContext,
        15 "imagePullSecrets" list LocalObjectReference, 16 "hostname" one string, 17 "subdomain" one string,
        18 "affinity" one Affinity, 19 "schedulerName" one string, 20 "initContainers" list Container,
        21 "automountServiceAccountToken" opt bool, 22 "tolerations" list Toleration,
        23 "hostAliases" list HostAlias, 24 "priorityClassName" one string, 25 "priority" opt int32,
        26 "dnsConfig" one PodDNSConfig, 27 "shareProcessNamespace" opt bool,
        28 "readinessGates" list PodReadinessGate, 29 "runtimeClassName" opt string,
        30 "enableServiceLinks" opt bool, 31 "preemptionPolicy" opt string, 32 "overhead" map quantity,
        33 "topologySpreadConstraints" list TopologySpreadConstraint,
        34 "ephemeralContainers" list EphemeralContainer, 35 "setHostnameAsFQDN" opt bool, 36 "os" one PodOS,
        37 "hostUsers" opt bool, 38 "schedulingGates" list PodSchedulingGate,
        39 "resourceClaims" list PodResourceClaim, 40 "resources" one ResourceRequirements,
        41 "hostnameOverride" opt string, 43 "schedulingGroup" one PodSchedulingGroup;
    PodSchedulingGroup: 1 "podGroupName" opt string;
    PodStatus:
        1 "phase" one string, 2 "conditions" list PodCondition, 3 "message" one string, 4 "reason" one string,
        5 "hostIP" one string, 6 "podIP" one string, 7 "startTime" one time,
        8 "containerStatuses" list ContainerStatus, 9 "qosClass" one string,
        10 "initContainerStatuses" list ContainerStatus, 11 "nominatedNodeName" one string,
        12 "podIPs" list PodIP, 13 "ephemeralContainerStatuses" list ContainerStatus, 14 "resize" one string,
        15 "resourceClaimStatuses" list PodResourceClaimStatus, 16 "hostIPs" list HostIP,
        17 "observedGeneration" one int64, 18 "extendedResourceClaimStatus" one PodExtendedResourceClaimStatus,
        19 "allocatedResources" map quantity, 20 "resources" one ResourceRequirements,
        21 "nodeAllocatableResourceClaimStatuses" list NodeAllocatableResourceClaimStatus;
    PodTemplate: 1 "metadata" one ObjectMeta, 2 "template" one PodTemplateSpec;
    PodTemplateSpec: 1 "metadata" one ObjectMeta, 2 "spec" one PodSpec;
    PortStatus: 1 "port" one int32, 2 "protocol" one string, 3 "error" opt string;
    PortworxVolumeSource: 1 "volumeID" one string, 2 "fsType" one string, 3 "readOnly" one bool;
    PreferredSchedulingTerm: 1 "weight" one int32, 2 "preference" one NodeSelectorTerm;
    Probe:
        1 "handler" inline ProbeHandler, 2 "initialDelaySeconds" one int32, 3 "timeoutSeconds" one int32,
        4 "periodSeconds" one int32, 5 "successThreshold" one int32, 6 "failureThreshold" one int32,
        7 "terminationGracePeriodSeconds" opt int64;
    ProbeHandler:
        1 "exec" one ExecAction, 2 "httpGet" one HTTPGetAction, 3 "tcpSocket" one TCPSocketAction,
        4 "grpc" one GRPCAction;
    ProjectedVolumeSource: 1 "sources" list VolumeProjection, 2 "defaultMode" opt int32;
    QuobyteVolumeSource:
        1 "registry" one string, 2 "volume" one string, 3 "readOnly" one bool, 4 "user" one string,
        5 "group" one string, 6 "tenant" one string;
    RBDPersistentVolumeSource:
        1 "monitors" list string, 2 "image" one string, 3 "fsType" one string, 4 "pool" one string,
        5 "user" one string, 6 "keyring" one string, 7 "secretRef" one SecretReference, 8 "readOnly" one bool;
    RBDVolumeSource:
        1 "monitors" list string, 2 "image" one string, 3 "fsType" one string, 4 "pool" one string,
        5 "user" one string, 6 "keyring" one string, 7 "secretRef" one LocalObjectReference,
        8 "readOnly" one bool;
    ReplicationController:
        1 "metadata" one ObjectMeta, 2 "spec" one ReplicationControllerSpec,
        3 "status" one ReplicationControllerStatus;
    ReplicationControllerCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string;
    ReplicationControllerSpec:
        1 "replicas" opt int32, 2 "selector" map string, 3 "template" one PodTemplateSpec,
        4 "minReadySeconds" one int32;
    ReplicationControllerStatus:
        1 "replicas" one int32, 2 "fullyLabeledReplicas" one int32, 3 "observedGeneration" one int64,
        4 "readyReplicas" one int32, 5 "availableReplicas" one int32,
        6 "conditions" list ReplicationControllerCondition;
    ResourceClaim: 1 "name" one string, 2 "request" one string;
    ResourceFieldSelector: 1 "containerName" one string, 2 "resource" one string, 3 "divisor" one quantity;
    ResourceHealth: 1 "resourceID" one string, 2 "health" one string, 6 "message" opt string;
    ResourceQuota: 1 "metadata" one ObjectMeta, 2 "spec" one ResourceQuotaSpec, 3 "status" one ResourceQuotaStatus;
    ResourceQuotaSpec: 1 "hard" map quantity, 2 "scopes" list string, 3 "scopeSelector" one ScopeSelector;
    ResourceQuotaStatus: 1 "hard" map quantity, 2 "used" map quantity;
    ResourceRequirements: 1 "limits" map quantity, 2 "requests" map quantity, 3 "claims" list ResourceClaim;
    ResourceStatus: 1 "name" one string, 2 "resources" list ResourceHealth;
    SELinuxOptions: 1 "user" one string, 2 "role" one string, 3 "type" one string, 4 "level" one string;
    ScaleIOPersistentVolumeSource:
        1 "gateway" one string, 2 "system" one string, 3 "secretRef" one SecretReference, 4 "sslEnabled" one bool,
        5 "protectionDomain" one string, 6 "storagePool" one string, 7 "storageMode" one string,
        8 "volumeName" one string, 9 "fsType" one string, 10 "readOnly" one bool;
    ScaleIOVolumeSource:
        1 "gateway" one string, 2 "system" one string, 3 "secretRef" one LocalObjectReference,
        4 "sslEnabled" one bool, 5 "protectionDomain" one string, 6 "storagePool" one string,
        7 "storageMode" one string, 8 "volumeName" one string, 9 "fsType" one string, 10 "readOnly" one bool;
    ScopeSelector: 1 "matchExpressions" list ScopedResourceSelectorRequirement;
    ScopedResourceSelectorRequirement: 1 "scopeName" one string, 2 "operator" one string, 3 "values" list string;
    SeccompProfile: 1 "type" one string, 2 "localhostProfile" opt string;
    Secret:
        1 "metadata" one ObjectMeta, 2 "data" map bytes, 3 "type" one string, 4 "stringData" map string,
        5 "immutable" opt bool;
    SecretEnvSource: 1 "localObjectReference" inline LocalObjectReference, 2 "optional" opt bool;
    SecretKeySelector: 1 "localObjectReference" inline LocalObjectReference, 2 "key" one string, 3 "optional" opt bool;
    SecretProjection:
        1 "localObjectReference" inline LocalObjectReference, 2 "items" list KeyToPath, 4 "optional" opt bool;
    SecretReference: 1 "name" one string, 2 "namespace" one string;
    SecretVolumeSource:
        1 "secretName" one string, 2 "items" list KeyToPath, 3 "defaultMode" opt int32, 4 "optional" opt bool;
    SecurityContext:
        1 "capabilities" one Capabilities, 2 "privileged" opt bool, 3 "seLinuxOptions" one SELinuxOptions,
        4 "runAsUser" opt int64, 5 "runAsNonRoot" opt bool, 6 "readOnlyRootFilesystem" opt bool,
        7 "allowPrivilegeEscalation" opt bool, 8 "runAsGroup" opt int64, 9 "procMount" opt string,
        10 "windowsOptions" one WindowsSecurityContextOptions, 11 "seccompProfile" one SeccompProfile,
        12 "appArmorProfile" one AppArmorProfile;
    Service: 1 "metadata" one ObjectMeta, 2 "spec" one ServiceSpec, 3 "status" one ServiceStatus;
    ServiceAccount:
        1 "metadata" one ObjectMeta, 2 "secrets" list ObjectReference,
        3 "imagePullSecrets" list LocalObjectReference, 4 "automountServiceAccountToken" opt bool;
    ServiceAccountTokenProjection: 1 "audience" one string, 2 "expirationSeconds" opt int64, 3 "path" one string;
    ServicePort:
        1 "name" one string, 2 "protocol" one string, 3 "port" one int32, 4 "targetPort" one int_or_string,
        5 "nodePort" one int32, 6 "appProtocol" opt string;
    ServiceSpec:
        1 "ports" list ServicePort, 2 "selector" map string, 3 "clusterIP" one string, 4 "type" one string,
        5 "externalIPs" list string, 7 "sessionAffinity" one string, 8 "loadBalancerIP" one string,
        9 "loadBalancerSourceRanges" list string, 10 "externalName" one string,
        11 "externalTrafficPolicy" one string, 12 "healthCheckNodePort" one int32,
        13 "publishNotReadyAddresses" one bool, 14 "sessionAffinityConfig" one SessionAffinityConfig,
        17 "ipFamilyPolicy" opt string, 18 "clusterIPs" list string, 19 "ipFamilies" list string,
        20 "allocateLoadBalancerNodePorts" opt bool, 21 "loadBalancerClass" opt string,
        22 "internalTrafficPolicy" opt string, 23 "trafficDistribution" opt string;
    ServiceStatus: 1 "loadBalancer" one LoadBalancerStatus, 2 "conditions" list Condition;
    SessionAffinityConfig: 1 "clientIP" one ClientIPConfig;
    SleepAction: 1 "seconds" one int64;
    StorageOSPersistentVolumeSource:
        1 "volumeName" one string, 2 "volumeNamespace" one string, 3 "fsType" one string, 4 "readOnly" one bool,
        5 "secretRef" one ObjectReference;
    StorageOSVolumeSource:
        1 "volumeName" one string, 2 "volumeNamespace" one string, 3 "fsType" one string, 4 "readOnly" one bool,
        5 "secretRef" one LocalObjectReference;
    Sysctl: 1 "name" one string, 2 "value" one string;
    TCPSocketAction: 1 "port" one int_or_string, 2 "host" one string;
    Taint: 1 "key" one string, 2 "value" one string, 3 "effect" one string, 4 "timeAdded" one time;
    Toleration:
        1 "key" one string, 2 "operator" one string, 3 "value" one string, 4 "effect" one string,
        5 "tolerationSeconds" opt int64;
    TopologySelectorLabelRequirement: 1 "key" one string, 2 "values" list string;
    TopologySelectorTerm: 1 "matchLabelExpressions" list TopologySelectorLabelRequirement;
    TopologySpreadConstraint:
        1 "maxSkew" one int32, 2 "topologyKey" one string, 3 "whenUnsatisfiable" one string,
        4 "labelSelector" one LabelSelector, 5 "minDomains" opt int32, 6 "nodeAffinityPolicy" opt string,
        7 "nodeTaintsPolicy" opt string, 8 "matchLabelKeys" list string;
    TypedLocalObjectReference: 1 "apiGroup" opt string, 2 "kind" one string, 3 "name" one string;
    TypedObjectReference: 1 "apiGroup" opt string, 2 "kind" one string, 3 "name" one string, 4 "namespace" opt string;
    Volume: 1 "name" one string, 2 "volumeSource" inline VolumeSource;
    VolumeDevice: 1 "name" one string, 2 "devicePath" one string;
    VolumeMount:
        1 "name" one string, 2 "readOnly" one bool, 3 "mountPath" one string, 4 "subPath" one string,
        5 "mountPropagation" opt string, 6 "subPathExpr" one string, 7 "recursiveReadOnly" opt string;
    VolumeMountStatus:
        1 "name" one string, 2 "mountPath" one string, 3 "readOnly" one bool, 4 "recursiveReadOnly" opt string,
        5 "volumeStatus" one VolumeStatus;
    VolumeStatus: 1 "image" one ImageVolumeStatus;
    ImageVolumeStatus: 1 "imageRef" one string;
    VolumeNodeAffinity: 1 "required" one NodeSelector;
    VolumeProjection:
        1 "secret" one SecretProjection, 2 "downwardAPI" one DownwardAPIProjection,
        3 "configMap" one ConfigMapProjection, 4 "serviceAccountToken" one ServiceAccountTokenProjection,
        5 "clusterTrustBundle" one ClusterTrustBundleProjection,
        6 "podCertificate" one PodCertificateProjection;
    VolumeResourceRequirements: 1 "limits" map quantity, 2 "requests" map quantity;
    VolumeSource:
        1 "hostPath" one HostPathVolumeSource, 2 "emptyDir" one EmptyDirVolumeSource,
        3 "gcePersistentDisk" one GCEPersistentDiskVolumeSource,
        4 "awsElasticBlockStore" one AWSElasticBlockStoreVolumeSource, 5 "gitRepo" one GitRepoVolumeSource,
        6 "secret" one SecretVolumeSource, 7 "nfs" one NFSVolumeSource, 8 "iscsi" one ISCSIVolumeSource,
        9 "glusterfs" one GlusterfsVolumeSource,
        10 "persistentVolumeClaim" one PersistentVolumeClaimVolumeSource, 11 "rbd" one RBDVolumeSource,
        12 "flexVolume" one FlexVolumeSource, 13 "cinder" one CinderVolumeSource,
        14 "cephfs" one CephFSVolumeSource, 15 "flocker" one FlockerVolumeSource,
        16 "downwardAPI" one DownwardAPIVolumeSource, 17 "fc" one FCVolumeSource,
        18 "azureFile" one AzureFileVolumeSource, 19 "configMap" one ConfigMapVolumeSource,
        20 "vsphereVolume" one VsphereVirtualDiskVolumeSource, 21 "quobyte" one QuobyteVolumeSource,
        22 "azureDisk" one AzureDiskVolumeSource,
        23 "photonPersistentDisk" one PhotonPersistentDiskVolumeSource,
        24 "portworxVolume" one PortworxVolumeSource, 25 "scaleIO" one ScaleIOVolumeSource,
        26 "projected" one ProjectedVolumeSource, 27 "storageos" one StorageOSVolumeSource,
        28 "csi" one CSIVolumeSource, 29 "ephemeral" one EphemeralVolumeSource,
        30 "image" one ImageVolumeSource;
    VsphereVirtualDiskVolumeSource:
        1 "volumePath" one string, 2 "fsType" one string, 3 "storagePolicyName" one string,
        4 "storagePolicyID" one string;
    WeightedPodAffinityTerm: 1 "weight" one int32, 2 "podAffinityTerm" one PodAffinityTerm;
    WindowsSecurityContextOptions:
        1 "gmsaCredentialSpecName" opt string, 2 "gmsaCredentialSpec" opt string, 3 "runAsUserName" opt string,
        4 "hostProcess" opt bool;
}
