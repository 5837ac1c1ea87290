//! A claim that names no class gets the default one (admission plug-in DefaultStorageClass).

use serde_json::{Value, json};

use super::{Operation, Request, all};
use crate::server::ApiServer;
use crate::status::Status;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// Where the class stood before it was a field; who still writes it means it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Names the default class in a new claim. Of several the newest counts, then the first by name. Without one nothing is filled in.
pub(super) fn admit(server: &ApiServer, request: &Request<'_>, claim: &mut Value) -> Result<(), Status> {
    if (request.group, request.plural) != ("", "persistentvolumeclaims") || request.operation != Operation::Create {
        return Ok(());
    }
    if !claim["spec"]["storageClassName"].is_null() || !claim["metadata"]["annotations"][OLD_CLASS].is_null() {
        return Ok(());
    }
    let classes = all(server, ("storage.k8s.io", "v1", "storageclasses"), "")?;
    let is_default = |class: &&Value| class["metadata"]["annotations"][DEFAULT] == json!("true");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_age = |class: &&Value| {
        (text(&class["metadata"]["creationTimestamp"]), std::cmp::Reverse(text(&class["metadata"]["name"])))
    };
    if let Some(class) = classes.iter().filter(is_default).max_by_key(by_age) {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}
