//! A controller over kube-rs, as its documentation has one write it: a derived kind, a reflector filled by streaming lists,
//! a finalizer, objects that it owns, status by server-side apply. The node is started anew while it watches.
//!
//! The controller is a process of its own on the node's machine: this program again, with the test that only it runs.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fluidos_e2e::clients;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::Store;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// A garden, and how many plants are wanted in it.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug)]
#[kube(group = "kube-rs.example", version = "v1", kind = "Garden", namespaced, status = "GardenStatus")]
struct GardenSpec {
    plants: u32,
}

/// What was seen of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
struct GardenStatus {
    planted: u32,
    /// How many gardens the reflector knows.
    known: usize,
}

type Failure = kube::runtime::finalizer::Error<kube::Error>;

struct Context {
    client: Client,
    gardens: Store<Garden>,
}

/// Applies with the rights of one manager.
fn managed() -> PatchParams {
    PatchParams::apply("gardener").force()
}

async fn reconcile(garden: Arc<Garden>, context: Arc<Context>) -> Result<Action, Failure> {
    let space = garden.namespace().unwrap_or_default();
    let gardens: Api<Garden> = Api::namespaced(context.client.clone(), &space);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &space);
    finalizer(&gardens, "kube-rs.example/garden", garden, |event| async {
        match event {
            Event::Apply(garden) => {
                let name = garden.name_any();
                let owned = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": name, "ownerReferences": [garden.controller_owner_ref(&())] },
                    "data": { "plants": garden.spec.plants.to_string() },
                });
                maps.patch(&name, &managed(), &Patch::Apply(&owned)).await?;
                let status = GardenStatus { planted: garden.spec.plants, known: context.gardens.len() };
                let kind = (Garden::api_version(&()), Garden::kind(&()));
                let status = json!({ "apiVersion": kind.0, "kind": kind.1, "status": status });
                gardens.patch_status(&name, &managed(), &Patch::Apply(&status)).await?;
            }
            Event::Cleanup(garden) => {
                let name = format!("past-{}", garden.name_any());
                let past = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
                maps.patch(&name, &managed(), &Patch::Apply(&past)).await?;
            }
        }
        Ok(Action::await_change())
    })
    .await
}

/// Not a test by itself: what the story starts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the controller of the story below, which starts it"]
async fn controller() {
    let client = Client::try_default().await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.patch("gardens.kube-rs.example", &managed(), &Patch::Apply(Garden::crd())).await.unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    kube::runtime::wait::await_condition(definitions, "gardens.kube-rs.example", established).await.unwrap();
    let streaming = || watcher::Config::default().streaming_lists();
    let controller = Controller::new(Api::<Garden>::all(client.clone()), streaming())
        .owns(Api::<ConfigMap>::all(client.clone()), streaming());
    let context = Arc::new(Context { client, gardens: controller.store() });
    let again = |_: Arc<Garden>, error: &Failure, _: Arc<Context>| {
        eprintln!("once more: {error}");
        Action::requeue(Duration::from_millis(200))
    };
    controller.run(reconcile, again, context).for_each(|_| std::future::ready(())).await;
}

/// The process of the controller, which goes with the story however it ends.
struct Controlling(std::process::Child);

impl Drop for Controlling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Wants so many plants in a garden.
fn plant(node: &Node, name: &str, plants: u32) {
    let kind = "apiVersion: kube-rs.example/v1\nkind: Garden";
    node.apply(&format!("{kind}\nmetadata: {{name: {name}}}\nspec: {{plants: {plants}}}\n")).unwrap();
}

#[test]
fn a_controller_over_kube_rs_goes_on_when_the_node_is_started_anew() {
    let mut stage = Stage::new("kubr").unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    let setup = node.setup.clone();
    let log = std::fs::File::create(setup.directory.with_extension("controller.log")).unwrap();
    let controller = setup
        .client(&std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kube_rs::controller"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut controller = Controlling(controller);
    let kubectl = clients::Client::new(&setup, "kubernetes-1.36/kubectl").unwrap();
    let get = |object: &str, path: &str| kubectl.run(&format!("get {object} -o jsonpath={path}")).unwrap();
    let shows = |what: &str, object: &str, path: &str, expected: &str| {
        until(what, LIMIT, || match get(object, path) {
            told if told.is_ok && told.out == expected => Ok(()),
            told => Err(format!("{told:?}")),
        })
        .unwrap();
    };
    kubectl.ok("wait --for=create crd/gardens.kube-rs.example --timeout=60s").unwrap();
    kubectl.ok("wait --for=condition=Established crd/gardens.kube-rs.example --timeout=60s").unwrap();
    plant(&node, "a", 3);
    shows("the garden is planted", "garden/a", "{.status}", r#"{"known":1,"planted":3}"#);
    let owner = "{.metadata.ownerReferences[0].kind}{.data.plants}";
    shows("what it owns is there", "cm/a", owner, "Garden3");
    let noted = "{.metadata.managedFields[?(@.subresource==\"status\")]";
    let noted = get("garden/a", &format!("{noted}.manager}}{noted}.operation}}"));
    assert_eq!(noted.out, "gardenerApply", "{noted:?}");
    // What is taken from it is put back.
    kubectl.ok("delete cm/a").unwrap();
    shows("what it owns is back", "cm/a", owner, "Garden3");

    // Another life of the node: the reflector reads on, and what changes is seen.
    let node = node.terminate().unwrap().start().unwrap();
    plant(&node, "b", 1);
    shows("a second garden is seen", "garden/b", "{.status}", r#"{"known":2,"planted":1}"#);
    plant(&node, "a", 5);
    shows("the first is seen to change", "cm/a", owner, "Garden5");

    // The finalizer has its say before a garden goes, and what it owned goes with it.
    kubectl.ok("delete garden/a --timeout=60s").unwrap();
    shows("the finalizer has acted", "cm/past-a", "{.metadata.name}", "past-a");
    kubectl.ok("wait --for=delete cm/a --timeout=60s").unwrap();
    assert!(get("cm/b", "{.data.plants}").is_ok, "what another garden owns stays");
    assert!(controller.0.try_wait().unwrap().is_none(), "the controller must live to the end");
}
