//! Another implementation of multicast DNS on the LAN: avahi, with a message bus of its own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fluidos_discovery::Trust;

use crate::stage::{DEADLINE, Machine, PORT, key, on_lan};

/// `avahi-daemon` on a machine of the LAN, and what is published through it. All of it ends with this, without a good-bye.
#[must_use]
pub struct Avahi {
    directory: tempfile::TempDir,
    running: Vec<Child>,
}

impl Avahi {
    /// Starts it in the network of the thread that calls, and waits until it answers.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("flt-avahi-").tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let bus = directory.path().join("bus");
        let anybody = r#"<policy context="default"><allow user="*"/><allow own="*"/><allow eavesdrop="true"/>
            <allow send_destination="*" eavesdrop="true"/></policy>"#;
        let listens = format!("<listen>unix:path={}</listen><auth>EXTERNAL</auth>", bus.display());
        let bus_conf = file("bus.conf", &format!("<busconfig><type>system</type>{listens}{anybody}</busconfig>"));
        let conf = "[server]\nhost-name=flt-avahi\nallow-interfaces=lan0\nenable-dbus=yes\nratelimit-burst=1000\n\
                    [publish]\npublish-hinfo=no\npublish-workstation=no\n[wide-area]\nenable-wide-area=no\n";
        let conf = file("avahi.conf", conf);
        let mut started = Self { directory, running: Vec::new() };
        started.spawn(Command::new("dbus-daemon").arg("--nofork").arg("--config-file").arg(&bus_conf));
        started.until("the bus", || bus.exists());
        // Its files in /run are its own, also where another one runs.
        let daemon = "mount -t tmpfs flt /run && mkdir /run/avahi-daemon && exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f \"$0\"";
        let mut command = started.client("unshare");
        command.args(["--mount", "sh", "-c", daemon]).arg(&conf);
        started.spawn(&mut command);
        started.until("avahi-daemon", || started.client("avahi-browse").arg("-at").output().unwrap().status.success());
        started
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let bus = self.directory.path().join("bus");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", bus.display())).stdin(Stdio::null());
        command
    }

    fn spawn(&mut self, command: &mut Command) {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running.push(child.unwrap_or_else(|error| panic!("{command:?}: {error}; cargo xtask test brings it")));
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let start = Instant::now();
        while !is() {
            assert!(start.elapsed() < DEADLINE, "{what} is not there; {}", self.directory.path().display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Announces an instance of our service at this machine.
    pub fn publish(&mut self, instance: &str, text: &[String]) {
        let mut command = self.client("avahi-publish");
        command.args(["-s", instance, "_fluidos._udp", &PORT.to_string()]).args(text);
        self.spawn(&mut command);
    }

    /// Takes back what was published last: it says good-bye.
    pub fn withdraw(&mut self) {
        end(&mut self.running.pop().unwrap());
    }

    /// What it resolves an instance to: its address and its text.
    fn resolves(&self, instance: &str) -> Option<(String, Vec<String>)> {
        let output = self.client("avahi-browse").args(["-rpt", "_fluidos._udp"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| {
            let parts: Vec<&str> = line.splitn(10, ';').collect();
            let [event, _, version, name, _, _, _, address, _, text] = parts[..] else { return None };
            let words = text.trim_matches('"').split("\" \"").map(str::to_owned).collect();
            ((event, version, name) == ("=", "IPv4", instance)).then(|| (address.to_owned(), words))
        })
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Avahi {
    fn drop(&mut self) {
        self.running.iter_mut().rev().for_each(end);
    }
}

#[test]
fn avahi_sees_a_node_with_all_that_it_says_and_a_node_sees_what_avahi_announces() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let avahi = three.here(async { Avahi::start() }).await;
        let a = one.node(Trust { known: true, ..Trust::default() }).await;
        let b = two.node(Trust { known: true, ..Trust::default() }).await;
        let tag = key(2).id().tag();
        let (mut avahi, (address, text)) = {
            let tag = tag.clone();
            three
                .here(async move {
                    avahi.until("node 2", || avahi.resolves(&tag).is_some());
                    let resolved = avahi.resolves(&tag).unwrap();
                    (avahi, resolved)
                })
                .await
        };
        assert_eq!(address, "192.0.2.2");
        for needed in
            ["v=1".to_owned(), "name=node2".into(), format!("did={}", b.id), "features=country=Italy,rack=r2".into()]
        {
            assert!(text.contains(&needed), "{needed} is not in {text:?}");
        }
        // B goes, with a good-bye. What it had signed is announced by avahi: where it is, is another's word.
        a.tells("A finds B", "node2 grid.example 192.0.2.2:7300 Multicast Untrusted Up\n").await;
        b.running.abort();
        let links = b.links.clone();
        two.here(async move { links.stop().await }).await;
        a.tells("B is forgotten", "").await;
        let mut avahi = three
            .here(async move {
                avahi.until("the good-bye of node 2", || avahi.resolves(&tag).is_none());
                avahi.publish(&tag, &text);
                avahi
            })
            .await;
        a.finds("A finds what avahi announces", "node2 grid.example 192.0.2.3:7300 Multicast Untrusted").await;
        // Until its good-bye was heard it must not end.
        let avahi = three
            .here(async move {
                avahi.withdraw();
                avahi
            })
            .await;
        a.tells("and that it is gone", "").await;
        drop(avahi);
    });
}
