//! Images with credentials: a registry of somebody else, two tenants of one node, and what is kept of their images.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::disk::Disk;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::registry::{DOMAIN, Registry, USERS};
use fluidos_e2e::stage::{Stage, together};
use fluidos_e2e::terminal::Terminal;
use fluidos_e2e::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

/// A node, and the one of its machines that the story is about: the only one, or the last of its agents.
struct Farm {
    node: Node,
    agents: Vec<Node>,
}

impl Farm {
    fn of((node, agents): (Node, Vec<Node>)) -> Self {
        Self { node, agents }
    }

    fn machine(&self) -> &Setup {
        &self.agents.last().unwrap_or(&self.node).setup
    }

    /// The machine stops, and goes on as what it was.
    fn start_machine_again(mut self) -> Self {
        match self.agents.pop() {
            Some(agent) => self.agents.push(agent.terminate().unwrap().join(None).unwrap()),
            None => self.node = self.node.terminate().unwrap().start().unwrap(),
        }
        self
    }

    fn pod(&self, namespace: &str, name: &str, image: &str, more: &str) {
        self.pod_on(&self.machine().name, namespace, name, image, more);
    }

    fn pod_on(&self, machine: &str, namespace: &str, name: &str, image: &str, more: &str) {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{nodeName: {machine}, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: \"{DOMAIN}/{image}\", command: [sleep, \"1000\"]{more}}}]}}\n"
        );
        self.node.apply(&manifest).unwrap();
    }

    /// Whether a machine says through the API that it has an image.
    fn has(&self, machine: &str, image: &str) -> bool {
        let told = self.node.kubectl(&["get", "node", machine, "-o", "jsonpath={.status.images[*].names[*]}"]).unwrap();
        told.contains(image)
    }
}

fn runs(node: &Node, namespace: &str, name: &str) {
    let ready =
        node.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    ready.unwrap_or_else(|error| {
        panic!("{error}\n{}", node.kubectl(&["describe", "pod", "-n", namespace, name]).unwrap())
    });
}

/// Waits until `kubectl describe` shows all these words.
fn shows(node: &Node, namespace: &str, name: &str, words: &[&str]) -> String {
    until(&words.join(", "), LIMIT, || {
        let told = node.kubectl(&["describe", "pod", "-n", namespace, name]).map_err(|error| error.to_string())?;
        if words.iter().all(|word| told.contains(word)) { Ok(told) } else { Err(told) }
    })
    .unwrap()
}

fn secret(node: &Node, namespace: &str, (user, password): (&str, &str)) {
    let server = format!("--docker-server={DOMAIN}");
    let (user, password) = (format!("--docker-username={user}"), format!("--docker-password={password}"));
    node.kubectl(&["create", "secret", "docker-registry", "pull", "-n", namespace, &server, &user, &password]).unwrap();
    let patch = r#"{"imagePullSecrets": [{"name": "pull"}]}"#;
    node.kubectl(&["patch", "serviceaccount", "default", "-n", namespace, "-p", patch]).unwrap();
}

#[test]
fn a_private_image_is_for_whoever_its_registry_admits() {
    a_private_image_is_for_whoever_its_registry_admits_with(1);
}

#[test]
fn a_private_image_is_for_whoever_its_registry_admits_on_three_machines() {
    a_private_image_is_for_whoever_its_registry_admits_with(3);
}

fn a_private_image_is_for_whoever_its_registry_admits_with(machines: usize) {
    let mut stage = Stage::new("imgs").unwrap();
    let mut farm = Farm::of(together(&stage.setups(machines, &[]).unwrap()).unwrap());
    let machine = farm.machine().clone();
    let registry = Registry::start(&machine, &stage.directory().join("registry")).unwrap();
    let layout = Image::Busybox.layout().unwrap();
    registry.push(&layout, "team/app", "1").unwrap();
    registry.push(&layout, "team/tool", "1").unwrap();
    for namespace in ["red", "blue"] {
        farm.node.kubectl(&["create", "namespace", namespace]).unwrap();
    }

    // Its secret comes to the pod by its account.
    secret(&farm.node, "red", USERS[0]);
    farm.pod("red", "first", "team/app:1", "");
    runs(&farm.node, "red", "first");
    let told = shows(&farm.node, "red", "first", &["Successfully pulled image", "including waiting). Image size: "]);
    assert!(told.contains(&format!("Pulling image \"{DOMAIN}/team/app:1\"")), "{told}");
    let listed = machine.fluidos(&["image", "ls"]).unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("team/app:1"));

    // The machine says that it has it; no other has it by that, not even for who was admitted.
    until("the image in its status", LIMIT, || {
        if farm.has(&machine.name, "team/app:1") { Ok(()) } else { Err("none".into()) }
    })
    .unwrap();
    let never = ", imagePullPolicy: Never";
    if machines > 1 {
        farm.pod_on("farm", "red", "elsewhere", "team/app:1", never);
        shows(&farm.node, "red", "elsewhere", &["ErrImageNeverPull", "is not present with pull policy of Never"]);
        assert!(!farm.has("farm", "team/app:1"));
    }

    // The image is here, and not for a tenant without a credential: neither by its policy nor by its name.
    farm.pod("blue", "never", "team/app:1", never);
    shows(
        &farm.node,
        "blue",
        "never",
        &["ErrImageNeverPull", "does not have the proper credentials to access the image"],
    );
    farm.pod("blue", "bare", "team/app:1", "");
    shows(&farm.node, "blue", "bare", &["Failed to pull image", "401 Unauthorized", "ImagePullBackOff"]);
    // One that another user has admitted as well.
    secret(&farm.node, "blue", USERS[1]);
    farm.pod("blue", "second", "team/app:1", "");
    runs(&farm.node, "blue", "second");
    shows(&farm.node, "blue", "second", &["Successfully pulled image"]);
    // A secret that is not there is told, and the pod goes on.
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: lost, namespace: blue}}\nspec: {{nodeName: {}, imagePullSecrets: [{{name: none}}], containers: [{{name: c, image: \"{DOMAIN}/team/app:1\"}}]}}\n",
        machine.name
    );
    farm.node.apply(&manifest).unwrap();
    let words =
        ["FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (none); attempting", "401"];
    shows(&farm.node, "blue", "lost", &words);

    // Without the registry those who were admitted have it still, also after a restart of the node, and the others still have not.
    drop(registry);
    farm = farm.start_machine_again();
    farm.pod("red", "later", "team/app:1", "");
    runs(&farm.node, "red", "later");
    shows(&farm.node, "red", "later", &["already present on machine and can be accessed by the pod"]);
    farm.node.kubectl(&["create", "namespace", "green"]).unwrap();
    secret(&farm.node, "green", ("ada", "flt-wrong"));
    farm.pod("green", "eve", "team/app:1", "");
    shows(&farm.node, "green", "eve", &["Failed to pull image", "cannot be reached"]);

    // No password is in a message or beside the images.
    let told = farm.node.kubectl(&["get", "events", "-A", "-o", "json"]).unwrap();
    let kept = machine.directory.join("kubelet/images");
    for (_, password) in USERS {
        assert!(!told.contains(password));
        let found = std::process::Command::new("grep").args(["-rl", password]).arg(&kept).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
}

#[test]
fn the_credentials_of_a_machine_are_for_all_its_pods() {
    the_credentials_of_a_machine_are_for_all_its_pods_with(1);
}

#[test]
fn the_credentials_of_a_machine_are_for_all_its_pods_on_three_machines() {
    the_credentials_of_a_machine_are_for_all_its_pods_with(3);
}

fn the_credentials_of_a_machine_are_for_all_its_pods_with(machines: usize) {
    let mut stage = Stage::new("imgm").unwrap();
    let config = stage.directory().join("config.json");
    std::fs::write(&config, "{\"auths\": {}}").unwrap();
    let flags = ["--registry-config", &config.display().to_string()];
    let farm = Farm::of(together(&stage.setups(machines, &flags).unwrap()).unwrap());
    let (node, machine) = (&farm.node, farm.machine());
    let registry = Registry::start(machine, &stage.directory().join("registry")).unwrap();
    let layout = Image::Busybox.layout().unwrap();
    registry.push(&layout, "team/app", "1").unwrap();
    registry.push(&layout, "team/tool", "1").unwrap();
    // docker writes it so.
    let auths = format!("{{\"auths\": {{\"{DOMAIN}\": {{\"auth\": \"YWRhOmZsdC1vbmU=\"}}}}}}");
    let own = stage.directory().join("own.json").display().to_string();
    std::fs::write(&own, &auths).unwrap();
    let tool = format!("{DOMAIN}/team/tool:1");
    let refused = machine.fluidos(&["image", "pull", &tool]).unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("401 Unauthorized"), "{told}");
    // On a terminal a bar shows how far it is, elsewhere a line says what is done.
    let mut command = machine.client(&machine.program);
    command.args(["image", "pull", &tool, "--registry-config", &own]).env("FLUIDOS_DATA_DIR", &machine.directory);
    let terminal = Terminal::open(&command, 24, 160).unwrap();
    terminal.shows("[####################]").unwrap();
    terminal.shows("2 of 2 parts").unwrap();
    assert_eq!(terminal.ends().unwrap(), Some(0));
    let again = machine.fluidos(&["image", "pull", &tool, "--registry-config", &own]).unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stderr), format!("pulling {tool}\n"));

    farm.pod("default", "app", "team/app:1", "");
    shows(node, "default", "app", &["401 Unauthorized"]);
    // It is read at the next try.
    std::fs::write(&config, auths).unwrap();
    runs(node, "default", "app");
    drop(registry);
    node.kubectl(&["create", "namespace", "blue"]).unwrap();
    for image in ["app", "tool"] {
        farm.pod("blue", image, &format!("team/{image}:1"), "");
        runs(node, "blue", image);
    }
}

#[test]
fn a_pull_without_room_says_how_much_is_missing_and_goes_on_when_there_is() {
    a_pull_without_room_says_how_much_is_missing_and_goes_on_when_there_is_with(1);
}

#[test]
fn a_pull_without_room_says_how_much_is_missing_and_goes_on_when_there_is_on_three_machines() {
    a_pull_without_room_says_how_much_is_missing_and_goes_on_when_there_is_with(3);
}

fn a_pull_without_room_says_how_much_is_missing_and_goes_on_when_there_is_with(machines: usize) {
    let mut stage = Stage::new("imgf").unwrap();
    let config = stage.directory().join("config.json");
    std::fs::write(&config, format!("{{\"auths\": {{\"{DOMAIN}\": {{\"auth\": \"YWRhOmZsdC1vbmU=\"}}}}}}")).unwrap();
    let setups = stage.setups(machines, &["--registry-config", &config.display().to_string()]).unwrap();
    let machine = setups.last().unwrap();
    let disk = Disk::mount(machine, "kubelet/images", 1 << 20).unwrap();
    let farm = Farm::of(together(&setups).unwrap());
    let node = &farm.node;
    let registry = Registry::start(machine, &stage.directory().join("registry")).unwrap();
    registry.push(&Image::Busybox.layout().unwrap(), "team/app", "1").unwrap();
    registry.push(&Image::Nginx.layout().unwrap(), "team/more", "1").unwrap();
    farm.pod("default", "app", "team/app:1", "");
    let path = disk.path().display().to_string();
    shows(node, "default", "app", &["Failed to pull image", &path, "bytes are needed and", "are free"]);
    until("what the machine says", LIMIT, || {
        let told = node.kubectl(&["describe", "node", &machine.name]).map_err(|error| error.to_string())?;
        let is_told = told.contains("FreeDiskSpaceFailed") && told.contains("bytes eligible to free");
        if is_told { Ok(()) } else { Err(told) }
    })
    .unwrap();
    disk.resize(64 << 20).unwrap();
    runs(node, "default", "app");

    // What nobody uses any more makes room for what is needed.
    node.kubectl(&["delete", "pod", "app", "--timeout=60s"]).unwrap();
    disk.resize(disk.used_bytes().unwrap() + (1 << 20)).unwrap();
    farm.pod("default", "more", "team/more:1", "");
    shows(node, "default", "more", &["Failed to pull image", "bytes are needed and"]);
    until("the image goes", LIMIT, || {
        if farm.has(&machine.name, "team/app:1") { Err("it is there".into()) } else { Ok(()) }
    })
    .unwrap();
    disk.resize(64 << 20).unwrap();
    runs(node, "default", "more");
    drop(registry);
    drop(farm);
}
