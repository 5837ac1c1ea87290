//! Every manifest under `examples/` runs, here all of it on one node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use fluidos_e2e::command;
use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;

#[test]
fn the_shop_builds_its_page_from_three_programs() {
    let mut stage = Stage::new("shop").unwrap();
    let node = stage.start("farm", &["--no-mdns", "--location", "city=Milan"]).unwrap();
    for image in [Image::Nginx, Image::Redis, Image::RedisClient] {
        node.setup.load(&image.layout().unwrap()).unwrap();
    }
    // On one machine the database asks for what is left of it.
    let shop = std::fs::read_to_string(fluidos_e2e::root().join("examples/shop.yaml"))
        .unwrap()
        .replace("cpu: 1500m", "cpu: 100m");
    node.apply(&shop).unwrap();
    for part in ["web", "api", "db"] {
        node.kubectl(&["-n", "shop", "rollout", "status", &format!("deploy/{part}"), "--timeout=60s"]).unwrap();
    }
    let enter = node.setup.machine.as_ref().unwrap().enter();
    let address = format!("http://{}:30080/", node.setup.machine.as_ref().unwrap().address);
    let page = |number: u32| {
        until("the page", Duration::from_secs(20), || {
            let text = command::run(&enter[0], &[&enter[1], "busybox", "wget", "-q", "-O", "-", &address])
                .map_err(|e| e.to_string())?;
            if text.contains(&format!("visitor number {number}, counted by api-")) { Ok(()) } else { Err(text) }
        })
        .unwrap();
    };
    page(1);
    page(2);
    let why = node.get(&["pods", "-n", "shop", "-l", "app=api"]).unwrap();
    let decision = why["items"][0]["metadata"]["annotations"]["fluidos.eu/decision"].as_str().unwrap();
    assert_eq!(decision, "farm: an own node; satisfies every intent");
    node.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]).unwrap();
}
