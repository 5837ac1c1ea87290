//! Carries a plan out. Every effect of buffers is here.

use fluidos_model::kinds::{
    AcquisitionPolicy, BufferStatus, FlavorType, LedgerAmounts, Selector, Solver, SolverSpec, names,
};
use fluidos_model::market::{Buffer, BufferPlan, BufferStep, Resource};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};

use crate::bounded;

/// A sentence in a status.
const MESSAGE_LENGTH_MAX: usize = 512;
/// Names of Solvers end up in names of what they buy.
const SUFFIX: usize = 8;

/// Does what is to be done for a buffer.
pub(super) async fn act(client: &Client, buffer: &Buffer, step: &BufferStep) -> kube::Result<()> {
    let api = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
    match step {
        BufferStep::Buy => {
            let suffix: String = uuid::Uuid::new_v4().simple().to_string().chars().take(SUFFIX).collect();
            let lot = solver(buffer, &format!("buffer-{}-{suffix}", buffer.name));
            tracing::info!(buffer = buffer.name, solver = lot.name_any(), "a lot is bought");
            api.create(&PostParams::default(), &lot).await.map(drop)
        }
        BufferStep::Release(name) => {
            tracing::info!(buffer = buffer.name, solver = name, "a lot is released");
            match api.delete(name, &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop),
            }
        }
    }
}

fn solver(buffer: &Buffer, name: &str) -> Solver {
    let mut filters = Map::new();
    let mut devices = Map::new();
    for resource in buffer.step.resources().filter(|resource| buffer.step.get(resource) != 0) {
        let range = json!({"name": "Range", "data": {"min": resource.text(buffer.step.get(&resource))}});
        match &resource {
            Resource::Extended(name) => devices.insert(name.to_string(), range),
            native => filters.insert(format!("{}Filter", native.name()), range),
        };
    }
    if !devices.is_empty() {
        filters.insert("extendedResourceFilters".into(), devices.into());
    }
    if let Some(architecture) = &buffer.architecture {
        filters.insert("architectureFilter".into(), json!({"name": "Match", "data": {"value": architecture}}));
    }
    let spec = SolverSpec {
        selector: Some(Selector { flavor_type: FlavorType::K8Slice, filters: Value::Object(filters) }),
        intent_id: name.to_owned(),
        find_candidate: true,
        reserve_and_buy: true,
        establish_peering: true,
        ..SolverSpec::default()
    };
    let mut solver = Solver::new(name, spec);
    solver.metadata.namespace = Some(names::NAMESPACE.into());
    solver.labels_mut().insert(names::LABEL_BUFFER.into(), buffer.name.clone());
    solver.annotations_mut().extend(buffer.intents.iter().cloned());
    if let Some(namespace) = &buffer.namespace {
        solver.annotations_mut().insert(names::ANNOTATION_NAMESPACE.into(), namespace.clone());
    }
    solver
}

/// Writes into the policy how its buffers stand.
pub(super) async fn tell(
    client: &Client,
    policy: &AcquisitionPolicy,
    told: &[(Buffer, BufferPlan, usize)],
) -> kube::Result<()> {
    let buffers: Vec<BufferStatus> = told
        .iter()
        .map(|(buffer, plan, lots)| BufferStatus {
            name: buffer.name.clone(),
            wanted: LedgerAmounts::from(&buffer.amounts),
            free: LedgerAmounts::from(&plan.free),
            lots: u32::try_from(*lots).unwrap_or(u32::MAX),
            message: bounded(&plan.told, MESSAGE_LENGTH_MAX),
        })
        .collect();
    let kept = told.iter().filter(|(buffer, plan, _)| plan.free.shortfalls(&buffer.amounts).is_empty()).count();
    let shown = if told.is_empty() { String::new() } else { format!("{kept} of {} kept", told.len()) };
    let old = policy.status.clone().unwrap_or_default();
    if (&old.buffers, &old.buffers_shown) == (&buffers, &shown) {
        return Ok(());
    }
    let api = Api::<AcquisitionPolicy>::namespaced(client.clone(), names::NAMESPACE);
    let version = &policy.metadata.resource_version;
    let status = json!({"buffers": buffers, "buffersShown": shown});
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
    match api.patch_status(&policy.name_any(), &PatchParams::default(), &patch).await {
        // Somebody changed or deleted it: it is looked at again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}
