//! The client of Python plays `story.py`.

use fluidos_e2e::clients::Client;
use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;

#[test]
fn python_lists_watches_applies_and_goes_into_pods() {
    let mut stage = Stage::new("pyth").unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let python = Client::new(&node.setup, "python-kubernetes/bin/python").unwrap();
    let story = fluidos_e2e::root().join("e2e/tests/clients/story.py");
    let told = python.ok(&story.display().to_string()).unwrap();
    assert!(told.ends_with("the story is told\n"), "{told}");
}
