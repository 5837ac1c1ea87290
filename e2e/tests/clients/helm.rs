//! Helm plays the life of a release with a chart of everything: `chart/`.

use fluidos_e2e::clients::Client;
use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;

/// The versions in which Helm is played: 3 with the oldest kubectl, 4 with the newest.
struct Version {
    /// Where the tools are.
    tools: &'static str,
    /// How a release that does not become ready is given up.
    give_up: &'static str,
    /// The last write of a ConfigMap, as its managers note it: manager and operation.
    writes: &'static str,
}

#[test]
fn helm_3() {
    life(&Version { tools: "kubernetes-1.32", give_up: "--atomic", writes: "helm Update" }, "hlm3");
}

#[test]
fn helm_4_which_applies_on_the_server() {
    life(&Version { tools: "kubernetes-1.36", give_up: "--rollback-on-failure", writes: "helm Apply" }, "hlm4");
}

/// All kinds of the chart that belong to a release.
const KINDS: &str = "configmaps,secrets,orders,serviceaccounts,roles,rolebindings,deployments,replicasets,pods,services,\
                     horizontalpodautoscalers,poddisruptionbudgets";

fn life(version: &Version, stage: &str) {
    let mut stage = Stage::new(stage).unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let helm = Client::new(&node.setup, &format!("{}/helm", version.tools)).unwrap();
    let kubectl = Client::new(&node.setup, &format!("{}/kubectl", version.tools)).unwrap();
    let chart = fluidos_e2e::root().join("e2e/tests/clients/chart").display().to_string();
    let shop = "-n shop";
    let path = |object: &str, path: &str| kubectl.ok(&format!("{shop} get {object} -o jsonpath={path}")).unwrap();
    let has = |text: &str, words: &[&str]| words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    let greeting = || {
        let inside = kubectl.ok(&format!("{shop} exec deploy/a-web -- wget -q -O - http://a-web/")).unwrap();
        (path("configmap/a-settings", "{.data.greeting}"), inside.trim().to_owned())
    };
    let both = |word: &str| (word.to_owned(), word.to_owned());

    // Install: the definition first, then the hook, then all else, and it is ready when Helm says so.
    let told = helm.ok(&format!("install a {chart} {shop} --create-namespace --wait --timeout 60s")).unwrap();
    has(&told, &["STATUS: deployed", "REVISION: 1", "a says hello (revision 1)."]);
    assert_eq!(path("deployment/a-web", "{.status.readyReplicas}"), "2");
    assert_eq!(path("job/a-pre-install", "{.status.succeeded}"), "1");
    assert_eq!(kubectl.ok(&format!("{shop} logs job/a-pre-install")).unwrap(), "pre-install of 1\n");
    assert_eq!(path("order/a-first", "{.spec.greeting}"), "hello");
    let managers = "{range .metadata.managedFields[*]}{.manager}{\" \"}{.operation}{\"\\n\"}{end}";
    let managers = node.kubectl(&[
        "-n",
        "shop",
        "get",
        "configmap",
        "a-settings",
        "--show-managed-fields",
        "-o",
        &format!("jsonpath={managers}"),
    ]);
    assert_eq!(managers.unwrap(), format!("{}\n", version.writes));
    assert_eq!(greeting(), both("hello"));
    let robot = format!("auth can-i list orders.shop.example {shop} --as system:serviceaccount:shop:a");
    assert_eq!(kubectl.ok(&robot).unwrap(), "yes\n");
    let told = helm.refused(&format!("install a {chart} {shop}")).unwrap();
    has(&told, &["in use"]);

    // What Helm keeps of it.
    has(&helm.ok(&format!("status a {shop}")).unwrap(), &["STATUS: deployed", "NAMESPACE: shop"]);
    has(
        &helm.ok(&format!("get all a {shop}")).unwrap(),
        &["kind: Order", "helm.sh/hook: post-upgrade", "greeting: hello"],
    );
    has(&helm.ok("list -A").unwrap(), &["shop-1.0.0", "deployed"]);

    // Upgrade, and the test of the chart: a pod that asks the Service.
    let upgrade = format!("upgrade a {chart} {shop} --timeout 60s --wait --set");
    helm.ok(&format!("{upgrade} greeting=servus,replicas=1")).unwrap();
    assert_eq!(greeting(), both("servus"));
    assert_eq!(path("deployment/a-web", "{.spec.replicas}"), "1");
    assert_eq!(path("job/a-post-upgrade", "{.status.succeeded}"), "1");
    assert_eq!(path("order/a-first", "{.spec.greeting}"), "servus");
    has(&helm.ok(&format!("test a {shop} --timeout 60s")).unwrap(), &["Phase:", "Succeeded"]);

    // An upgrade that never becomes ready is taken back by Helm itself.
    let give_up =
        format!("upgrade a {chart} {shop} --timeout 6s --wait {} --set greeting=never,probe=1", version.give_up);
    let told = helm.refused(&give_up).unwrap();
    has(&told, &["release a failed, and has been rolled back"]);
    assert_eq!(greeting(), both("servus"));
    let history = helm.ok(&format!("history a {shop}")).unwrap();
    let states: Vec<_> =
        history.lines().skip(1).map(|line| line.split('\t').nth(2).unwrap_or_default().trim()).collect();
    assert_eq!(states, ["superseded", "superseded", "failed", "deployed"], "{history}");

    // Back to the first.
    helm.ok(&format!("rollback a 1 {shop} --wait --timeout 60s")).unwrap();
    assert_eq!(greeting(), both("hello"));
    assert_eq!(path("deployment/a-web", "{.status.readyReplicas}"), "2");

    // Nothing stays but what Helm leaves on purpose: the definition and the hooks' jobs.
    helm.ok(&format!("uninstall a {shop} --wait --timeout 60s")).unwrap();
    let left = kubectl.ok(&format!("{shop} get {KINDS} -l app.kubernetes.io/instance=a -o name")).unwrap();
    assert_eq!(left, "");
    has(&helm.refused(&format!("status a {shop}")).unwrap(), &["release: not found"]);
    assert_eq!(kubectl.ok("get crd -o name").unwrap().matches("orders.shop.example").count(), 1);

    // The same without Helm's help.
    let manifest = stage.directory().join("manifest.yaml");
    std::fs::write(&manifest, helm.ok(&format!("template a {chart} {shop} --no-hooks")).unwrap()).unwrap();
    let manifest = manifest.display().to_string();
    kubectl.ok(&format!("{shop} apply -f {manifest}")).unwrap();
    kubectl.ok(&format!("{shop} rollout status deployment/a-web --timeout=60s")).unwrap();
    assert_eq!(kubectl.ok(&format!("{shop} diff -f {manifest}")).unwrap(), "");
    kubectl.ok(&format!("{shop} delete -f {manifest} --timeout=60s")).unwrap();
}
