//! A call of a plug-in: what is asked in its environment, the configuration on its input, the answer on its output (CNI 1.0, section 2).
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::{DEVICE, Error, Pod};

/// A plug-in that asks a server for an address may need a while.
const WITHIN: Duration = Duration::from_secs(60);
/// A result is a few hundred bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// What a plug-in says that refuses.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    msg: String,
    details: String,
}

pub(crate) async fn call(
    program: &Path,
    command: &'static str,
    programs: &[PathBuf],
    pod: &Pod,
    input: Vec<u8>,
) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Run { program: program.to_owned(), command, source };
    let path = std::env::join_paths(programs).map_err(|e| failed(io::Error::other(e)))?;
    let mut process = Command::new(program);
    // Plug-ins call programs of the machine themselves (iptables); nothing else of ours is their business.
    process.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", &pod.uid).env("CNI_IFNAME", DEVICE);
    process.env("CNI_PATH", path).env("CNI_ARGS", arguments(pod));
    // A namespace that is gone has no name; what else there is of the pod is to be taken away all the same.
    process.env("CNI_NETNS", if pod.netns.exists() { pod.netns.as_os_str() } else { Default::default() });
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = process.spawn().map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async {
        if let Some(mut stdin) = stdin {
            // Who does not read says by its end what it thinks of it.
            let _ = stdin.write_all(&input).await;
        }
        Ok(())
    };
    let whole = async {
        let ((), answer, words) = tokio::try_join!(tell, read(stdout), read(stderr))?;
        Ok((child.wait().await?, answer, words))
    };
    let (status, answer, words) = match tokio::time::timeout(WITHIN, whole).await {
        Ok(done) => done.map_err(failed)?,
        Err(_) => return Err(Error::Late { program: program.to_owned(), command, within: WITHIN }),
    };
    if status.success() {
        return Ok(answer);
    }
    Err(Error::Refused { program: program.to_owned(), command, why: why(&answer, &words, &status.to_string()) })
}

/// `CNI_ARGS` as every container runtime of Kubernetes gives them. None of these has a `;`: they are names of the API.
fn arguments(pod: &Pod) -> String {
    let Pod { uid, namespace, name, .. } = pod;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
    )
}

/// To the end; what is beyond the bound is read and thrown away, so that nobody waits for a reader.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let mut bounded = stream.take(ANSWER_MAX);
        bounded.read_to_end(&mut bytes).await?;
        tokio::io::copy(bounded.get_mut(), &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// In its own words if it has some.
fn why(answer: &[u8], words: &[u8], status: &str) -> String {
    let said: Refusal = serde_json::from_slice(answer).unwrap_or_default();
    let words = String::from_utf8_lossy(words);
    let parts = [said.msg.as_str(), said.details.as_str(), words.trim()];
    let all: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let text = if all.is_empty() { status.to_owned() } else { all.join("; ") };
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}
