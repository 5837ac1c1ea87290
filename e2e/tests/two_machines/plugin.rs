//! The binary under the name `kubectl-fluidos` on the PATH: kubectl calls it, and it answers as kubectl would.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fluidos_e2e::node::Node;
use serde_json::Value;

/// `kubectl fluidos` at a node that knows one peer, has one contract, and runs `deploy/hello` at the peer.
pub struct Plugin<'a> {
    node: &'a Node,
    directory: PathBuf,
    kubeconfig: String,
}

impl<'a> Plugin<'a> {
    pub fn new(node: &'a Node, directory: &Path) -> Self {
        std::fs::create_dir(directory).unwrap();
        std::os::unix::fs::symlink(&node.setup.program, directory.join("kubectl-fluidos")).unwrap();
        let kubeconfig = node.setup.kubeconfig().display().to_string();
        Self { node, directory: directory.to_owned(), kubeconfig }
    }

    /// Only the words say where the API is: no variable does, and no file at its usual place.
    fn ask(&self, words: &[&str]) -> Output {
        let path = format!("{}:{}", self.directory.display(), std::env::var("PATH").unwrap());
        let mut command = self.node.setup.kubectl_command(&["fluidos"]);
        command.args(words).env("PATH", path).env("HOME", &self.directory);
        command.env_remove("KUBECONFIG").env_remove("FLUIDOS_DATA_DIR").output().unwrap()
    }

    fn told(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl fluidos {}: {}: {err}", words.join(" "), output.status);
        out.into_owned()
    }

    /// What a verb prints with `-o`.
    fn printed(&self, words: &[&str], form: &str) -> String {
        self.told(&[words, &["-o", form, "--kubeconfig", &self.kubeconfig]].concat())
    }

    fn json(&self, words: &[&str]) -> Value {
        let text = self.printed(words, "json");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?} -o json ({error}): {text}"))
    }

    pub fn lists_what_there_is(&self) {
        for verb in ["peers", "contracts"] {
            let before = self.told(&["--kubeconfig", &self.kubeconfig, "-n", "fluidos", verb]);
            let after =
                self.told(&[verb, "--kubeconfig", &self.kubeconfig, "--namespace", "fluidos", "--context", "farm"]);
            let names = |table: &str| table.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect();
            let (before, after): (Vec<String>, Vec<String>) = (names(&before), names(&after));
            assert_eq!(before, after, "{verb}: flags before and after the verb");
            let [_, name] = before.as_slice() else { panic!("{verb}: needed a heading and one line: {before:?}") };
            let json = self.json(&[verb]);
            assert!(json.to_string().contains(name), "{verb} -o json has no {name}: {json}");
            let yaml = self.printed(&[verb], "yaml");
            assert!(yaml.contains("apiVersion:") && yaml.contains(name), "{verb} -o yaml has no {name}: {yaml}");
            let lines = self.printed(&[verb], "name");
            assert_eq!(lines.lines().count(), 1, "{verb} -o name: one line each: {lines:?}");
            let (table, wide) = (self.printed(&[verb], "table"), self.printed(&[verb], "wide"));
            let columns = |table: &str| table.lines().next().unwrap_or_default().split_whitespace().count();
            assert!(columns(&wide) > columns(&table), "{verb} -o wide has more columns:\n{table}{wide}");
        }
        let findings = self.json(&["check"]);
        let link = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "link to grid");
        assert!(link.is_some_and(|link| link["ok"] == true), "check -o json: {findings}");
    }

    pub fn says_why(&self) {
        let kubeconfig = &self.kubeconfig;
        for words in [
            &["--kubeconfig", kubeconfig, "why", "deploy/hello"][..],
            &["why", "deploy/hello", "--kubeconfig", kubeconfig],
            &["why", "-n", "default", "deploy/hello", "--kubeconfig", kubeconfig],
        ] {
            let why = self.told(words);
            assert!(why.contains("is on grid") && why.contains("that node is contract"), "{words:?}: {why}");
        }
        let elsewhere = self.ask(&["why", "deploy/hello", "-n", "fluidos", "--kubeconfig", kubeconfig]);
        assert!(!elsewhere.status.success(), "why looks in another namespace than was said: {elsewhere:?}");
        for verb in ["why", "trace"] {
            let words = [verb, "deploy/hello"];
            let json = self.json(&words);
            assert!(json.as_array().is_some_and(|list| !list.is_empty()), "{verb} -o json: {json}");
            let yaml = self.printed(&words, "yaml");
            assert!(yaml.starts_with("- ") && yaml.contains("hello-"), "{verb} -o yaml: {yaml}");
            let name = self.printed(&words, "name");
            assert!(name.lines().any(|line| line.starts_with("pod/hello-")), "{verb} -o name: {name}");
            let wide = self.printed(&words, "wide");
            assert!(wide.contains("pod/hello-"), "{verb} -o wide: {wide}");
        }
    }

    /// An address, who must answer there, and who calls: flags are enough, and they are what counts.
    pub fn needs_no_kubeconfig(&self) {
        let file: Value = serde_json::from_slice(&std::fs::read(&self.kubeconfig).unwrap()).unwrap();
        let (cluster, user) = (&file["clusters"][0]["cluster"], &file["users"][0]["user"]);
        let authority = self.pem("authority.pem", &cluster["certificate-authority-data"]);
        let certificate = self.pem("certificate.pem", &user["client-certificate-data"]);
        let key = self.pem("key.pem", &user["client-key-data"]);
        let server = cluster["server"].as_str().unwrap();
        let secure = ["--server", server, "--certificate-authority", &authority, "--request-timeout", "10s"];
        let caller = ["--client-certificate", &certificate, "--client-key", &key];
        let peers = self.told(&[&secure[..], &["peers", "-o", "name"], &caller[..]].concat());
        assert_eq!(peers.lines().count(), 1, "with flags alone: {peers:?}");
        let nobody = self.ask(&[&["peers"], &secure[..], &["--token", "nobody's"]].concat());
        let said = String::from_utf8_lossy(&nobody.stderr);
        assert!(!nobody.status.success() && said.contains("Unauthorized"), "a token that nobody has: {said}");
    }

    /// A field of the kubeconfig as a file.
    fn pem(&self, name: &str, field: &Value) -> String {
        let path = self.directory.join(name);
        let mut decode = Command::new("base64");
        decode.arg("-d").stdin(Stdio::piped()).stdout(File::create(&path).unwrap());
        let mut decode = decode.spawn().unwrap();
        decode.stdin.take().unwrap().write_all(field.as_str().unwrap().as_bytes()).unwrap();
        assert!(decode.wait().unwrap().success(), "{name} from the kubeconfig: {field}");
        path.display().to_string()
    }

    pub fn leaves_the_machine_alone(&self) {
        for words in [
            &["up", "--name", "x", "--data-dir", "/nonexistent"][..],
            &["up"],
            &["image", "ls"],
            &["reset"],
            &["check", "--pre"],
        ] {
            let output = self.ask(words);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && said.contains("is about this machine, not about a cluster; run: fluidos"),
                "kubectl fluidos {}: {}: {said}",
                words.join(" "),
                output.status
            );
        }
    }
}
