//! A client of protobuf that is not ours plays `protobuf.py`.

use fluidos_e2e::clients::Client;
use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;

#[test]
fn protobuf_of_others_reads_writes_and_watches() {
    let mut stage = Stage::new("prot").unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let python = Client::new(&node.setup, "python-kubernetes/bin/python").unwrap();
    let story = fluidos_e2e::root().join("e2e/tests/clients/protobuf.py");
    let told = python.ok(&story.display().to_string()).unwrap();
    assert!(told.ends_with("the story is told\n"), "{told}");
}
