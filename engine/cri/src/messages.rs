//! What is said over the socket: of `runtime.v1` (CRI, the protocol of kubelets and container runtimes) and of containerd's own services the
//! fields that are used here. What else an answer holds is skipped, as protobuf wants it.

use std::collections::BTreeMap;

use prost::Message;

/// A message with its fields: `name: type = "kind", tag`.
macro_rules! messages {
    ($($name:ident { $($field:ident: $type:ty = ($($kind:tt)+), $tag:literal;)* })*) => { $(
        #[derive(Clone, PartialEq, Message)]
        pub struct $name { $(#[prost($($kind)+, tag = $tag)] pub $field: $type,)* }
    )* };
}

/// `NamespaceMode` by number.
pub mod namespace {
    pub const POD: i32 = 0;
    pub const CONTAINER: i32 = 1;
    pub const NODE: i32 = 2;
    pub const TARGET: i32 = 3;
}

/// `ContainerState` by number; a created one has never run.
pub mod state {
    pub const RUNNING: i32 = 1;
    pub const EXITED: i32 = 2;
    pub const UNKNOWN: i32 = 3;
}

/// `PodSandboxState`: ready is 0.
pub const SANDBOX_READY: i32 = 0;

/// `SecurityProfile.ProfileType` by number.
pub mod profile {
    pub const RUNTIME_DEFAULT: i32 = 0;
    pub const UNCONFINED: i32 = 1;
    pub const LOCALHOST: i32 = 2;
}

pub type Map = BTreeMap<String, String>;

messages! {
    Empty {}
    VersionResponse {
        runtime_name: String = (string), "2";
        runtime_version: String = (string), "3";
    }
    StatusRequest { verbose: bool = (bool), "1"; }
    RuntimeCondition {
        kind: String = (string), "1";
        status: bool = (bool), "2";
        reason: String = (string), "3";
        message: String = (string), "4";
    }
    RuntimeStatus { conditions: Vec<RuntimeCondition> = (message, repeated), "1"; }
    RuntimeHandler { name: String = (string), "1"; }
    StatusResponse {
        status: Option<RuntimeStatus> = (message, optional), "1";
        info: Map = (btree_map = "string, string"), "2";
        handlers: Vec<RuntimeHandler> = (message, repeated), "3";
    }

    Int64Value { value: i64 = (int64), "1"; }
    NamespaceOption {
        network: i32 = (int32), "1";
        pid: i32 = (int32), "2";
        ipc: i32 = (int32), "3";
        target_id: String = (string), "4";
    }
    SecurityProfile {
        kind: i32 = (int32), "1";
        file: String = (string), "2";
    }
    LinuxSandboxSecurityContext {
        namespaces: Option<NamespaceOption> = (message, optional), "1";
        privileged: bool = (bool), "6";
        seccomp: Option<SecurityProfile> = (message, optional), "9";
    }
    LinuxPodSandboxConfig {
        cgroup_parent: String = (string), "1";
        security: Option<LinuxSandboxSecurityContext> = (message, optional), "2";
        sysctls: Map = (btree_map = "string, string"), "3";
    }
    PodSandboxMetadata {
        name: String = (string), "1";
        uid: String = (string), "2";
        namespace: String = (string), "3";
        attempt: u32 = (uint32), "4";
    }
    PodSandboxConfig {
        metadata: Option<PodSandboxMetadata> = (message, optional), "1";
        hostname: String = (string), "2";
        log_directory: String = (string), "3";
        labels: Map = (btree_map = "string, string"), "6";
        annotations: Map = (btree_map = "string, string"), "7";
        linux: Option<LinuxPodSandboxConfig> = (message, optional), "8";
    }
    RunPodSandboxRequest {
        config: Option<PodSandboxConfig> = (message, optional), "1";
        handler: String = (string), "2";
    }
    SandboxId { id: String = (string), "1"; }
    SandboxStatusRequest {
        id: String = (string), "1";
        verbose: bool = (bool), "2";
    }
    SandboxStatusResponse { info: Map = (btree_map = "string, string"), "2"; }
    SandboxFilter { labels: Map = (btree_map = "string, string"), "3"; }
    ListPodSandboxRequest { filter: Option<SandboxFilter> = (message, optional), "1"; }
    PodSandbox {
        id: String = (string), "1";
        metadata: Option<PodSandboxMetadata> = (message, optional), "2";
        state: i32 = (int32), "3";
        labels: Map = (btree_map = "string, string"), "5";
        handler: String = (string), "7";
    }
    ListPodSandboxResponse { items: Vec<PodSandbox> = (message, repeated), "1"; }

    ImageSpec { image: String = (string), "1"; }
    KeyValue {
        key: String = (string), "1";
        value: String = (string), "2";
    }
    Mount {
        inside: String = (string), "1";
        host: String = (string), "2";
        read_only: bool = (bool), "3";
        propagation: i32 = (int32), "5";
    }
    Capability {
        add: Vec<String> = (string, repeated), "1";
        drop: Vec<String> = (string, repeated), "2";
    }
    LinuxContainerResources { oom_score_adj: i64 = (int64), "5"; }
    LinuxContainerSecurityContext {
        capabilities: Option<Capability> = (message, optional), "1";
        privileged: bool = (bool), "2";
        namespaces: Option<NamespaceOption> = (message, optional), "3";
        user: Option<Int64Value> = (message, optional), "5";
        user_name: String = (string), "6";
        read_only_root: bool = (bool), "7";
        groups: Vec<i64> = (int64, repeated), "8";
        no_new_privs: bool = (bool), "11";
        group: Option<Int64Value> = (message, optional), "12";
        masked_paths: Vec<String> = (string, repeated), "13";
        read_only_paths: Vec<String> = (string, repeated), "14";
        seccomp: Option<SecurityProfile> = (message, optional), "15";
    }
    LinuxContainerConfig {
        resources: Option<LinuxContainerResources> = (message, optional), "1";
        security: Option<LinuxContainerSecurityContext> = (message, optional), "2";
    }
    ContainerMetadata {
        name: String = (string), "1";
        attempt: u32 = (uint32), "2";
    }
    ContainerConfig {
        metadata: Option<ContainerMetadata> = (message, optional), "1";
        image: Option<ImageSpec> = (message, optional), "2";
        command: Vec<String> = (string, repeated), "3";
        working_dir: String = (string), "5";
        envs: Vec<KeyValue> = (message, repeated), "6";
        mounts: Vec<Mount> = (message, repeated), "7";
        labels: Map = (btree_map = "string, string"), "9";
        annotations: Map = (btree_map = "string, string"), "10";
        log_path: String = (string), "11";
        stdin: bool = (bool), "12";
        stdin_once: bool = (bool), "13";
        tty: bool = (bool), "14";
        linux: Option<LinuxContainerConfig> = (message, optional), "15";
    }
    CreateContainerRequest {
        sandbox_id: String = (string), "1";
        config: Option<ContainerConfig> = (message, optional), "2";
        sandbox: Option<PodSandboxConfig> = (message, optional), "3";
    }
    ContainerId { id: String = (string), "1"; }
    StopContainerRequest {
        id: String = (string), "1";
        timeout: i64 = (int64), "2";
    }
    ContainerFilter {
        sandbox_id: String = (string), "3";
        labels: Map = (btree_map = "string, string"), "4";
    }
    ListContainersRequest { filter: Option<ContainerFilter> = (message, optional), "1"; }
    Container {
        id: String = (string), "1";
        sandbox_id: String = (string), "2";
        image_ref: String = (string), "5";
        state: i32 = (int32), "6";
        labels: Map = (btree_map = "string, string"), "8";
    }
    ListContainersResponse { containers: Vec<Container> = (message, repeated), "1"; }
    ContainerStatusRequest {
        id: String = (string), "1";
        verbose: bool = (bool), "2";
    }
    ContainerStatus {
        state: i32 = (int32), "3";
        created_at: i64 = (int64), "4";
        started_at: i64 = (int64), "5";
        finished_at: i64 = (int64), "6";
        exit_code: i32 = (int32), "7";
        reason: String = (string), "10";
        message: String = (string), "11";
        labels: Map = (btree_map = "string, string"), "12";
        annotations: Map = (btree_map = "string, string"), "13";
        log_path: String = (string), "15";
    }
    ContainerStatusResponse {
        status: Option<ContainerStatus> = (message, optional), "1";
        info: Map = (btree_map = "string, string"), "2";
    }
    ExecRequest {
        id: String = (string), "1";
        command: Vec<String> = (string, repeated), "2";
        tty: bool = (bool), "3";
        stdin: bool = (bool), "4";
        stdout: bool = (bool), "5";
        stderr: bool = (bool), "6";
    }
    AttachRequest {
        id: String = (string), "1";
        stdin: bool = (bool), "2";
        tty: bool = (bool), "3";
        stdout: bool = (bool), "4";
        stderr: bool = (bool), "5";
    }
    Url { url: String = (string), "1"; }

    ImageRequest { image: Option<ImageSpec> = (message, optional), "1"; }
    KnownImage {
        id: String = (string), "1";
        tags: Vec<String> = (string, repeated), "2";
        digests: Vec<String> = (string, repeated), "3";
    }
    ImageStatusResponse { image: Option<KnownImage> = (message, optional), "1"; }
}

// containerd's own.
messages! {
    Descriptor {
        media_type: String = (string), "1";
        digest: String = (string), "2";
        size: i64 = (int64), "3";
    }
    Image {
        name: String = (string), "1";
        labels: Map = (btree_map = "string, string"), "2";
        target: Option<Descriptor> = (message, optional), "3";
    }
    CreateImageRequest { image: Option<Image> = (message, optional), "1"; }
    DeleteImageRequest { name: String = (string), "1"; }
    Lease {
        id: String = (string), "1";
        labels: Map = (btree_map = "string, string"), "3";
    }
    WriteContentRequest {
        action: i32 = (int32), "1";
        name: String = (string), "2";
        total: i64 = (int64), "3";
        expected: String = (string), "4";
        offset: i64 = (int64), "5";
        data: Vec<u8> = (bytes = "vec"), "6";
        labels: Map = (btree_map = "string, string"), "7";
    }
    KillRequest {
        container_id: String = (string), "1";
        signal: u32 = (uint32), "3";
    }
    MountsRequest {
        snapshotter: String = (string), "1";
        key: String = (string), "2";
    }
    SnapshotMount { options: Vec<String> = (string, repeated), "4"; }
    MountsResponse { mounts: Vec<SnapshotMount> = (message, repeated), "1"; }
    SubscribeRequest { filters: Vec<String> = (string, repeated), "1"; }
}
