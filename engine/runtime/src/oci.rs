//! The built-in runtime: OCI images as containers, one [supervisor] process per pod. With more fences it is the handler `process`.
//!
//! ```text
//! DIR/PODUID/sandbox.json  socket  containers/ID/{status.json, upper, work, root}
//! ```
//!
//! Limits: no user namespaces, cgroup version 1 is not shown inside.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use engine_session::{ExecOptions, ExecSession};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use self::protocol::{MESSAGE_SIZE_MAX, Request, Response};
use self::remains::{CONTAINERS_DIR, remains};
use self::supervisor::{SANDBOX_FILE, SOCKET};
use crate::{ContainerConfig, ContainerStatus, Error, Observed, Runtime, SandboxConfig};

mod attach;
mod exec;
mod protocol;
mod remains;
pub mod supervisor;

pub use supervisor::runner;

/// A supervisor that starts a container answers within the 60 s it gives a child, and a little.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// Killing takes the kernel milliseconds; a supervisor that takes longer is killed itself.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs containers with supervisors below one directory.
#[derive(Clone, Debug)]
pub struct OciRuntime {
    dir: PathBuf,
    supervisor: Vec<OsString>,
    fenced: bool,
}

impl OciRuntime {
    /// `supervisor` is the command line that leads to [`crate::oci::supervisor::main`]; the directory is added to it.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn new(dir: impl Into<PathBuf>, supervisor: Vec<OsString>) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt;
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(io_error("protect", &dir))?;
        // Loads the kernel's module while nobody else asks for it: of several containers that start at once after a boot, some would be told
        // that there is no such file system while another's request is under way. A kernel without it says so where it is mounted.
        let _ = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
        Ok(Self { dir, supervisor, fenced: false })
    }

    /// The handler [`process`](crate::process): all sandboxes that this one makes are fenced. They may be below the directory of one that
    /// makes others.
    #[must_use]
    pub fn fenced(self) -> Self {
        Self { fenced: true, ..self }
    }

    fn pod_dir(&self, pod_uid: &str) -> PathBuf {
        self.dir.join(pod_uid)
    }

    /// A connection to the living supervisor of a pod.
    fn connect(&self, pod_uid: &str) -> Result<std::os::unix::net::UnixStream, Error> {
        let gone = |source| Error::Gone { pod_uid: pod_uid.to_owned(), source };
        let dir = fs::File::open(self.pod_dir(pod_uid)).map_err(gone)?;
        // A socket's name has 107 bytes at most; this one is short wherever the data directory is.
        let name = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
        std::os::unix::net::UnixStream::connect(name).map_err(gone)
    }

    async fn ask(&self, pod_uid: &str, request: &Request) -> Result<Response, Error> {
        let gone = |source| Error::Gone { pod_uid: pod_uid.to_owned(), source };
        let stream = self.connect(pod_uid)?;
        stream.set_nonblocking(true).map_err(gone)?;
        let stream = UnixStream::from_std(stream).map_err(gone)?;
        match tokio::time::timeout(ANSWER_TIMEOUT, conversation(stream, request)).await {
            Ok(answer) => answer.map_err(gone),
            Err(_) => Err(gone(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn done(&self, pod_uid: &str, request: &Request) -> Result<(), Error> {
        match self.ask(pod_uid, request).await? {
            Response::Done => Ok(()),
            Response::Failed(why) => Err(Error::Refused(why)),
            other => Err(unexpected(&other)),
        }
    }

    async fn spawn(&self, dir: &Path, config: &SandboxConfig) -> Result<(), Error> {
        let failed = |why: String| Error::Sandbox { pod_uid: config.pod_uid.clone(), why };
        let Some((program, args)) = self.supervisor.split_first() else {
            return Err(failed("no command line is configured".to_owned()));
        };
        let output = tokio::process::Command::new(program)
            .args(args)
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .await
            .map_err(|e| failed(format!("{}: {e}", program.display())))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
}

#[async_trait]
impl Runtime for OciRuntime {
    async fn sandbox(&self, config: &SandboxConfig) -> Result<(), Error> {
        if self.connect(&config.pod_uid).is_ok() {
            return Ok(());
        }
        let dir = self.pod_dir(&config.pod_uid);
        let containers = dir.join(CONTAINERS_DIR);
        fs::create_dir_all(&containers).map_err(io_error("create", &containers))?;
        let path = dir.join(SANDBOX_FILE);
        let config = &SandboxConfig { fenced: self.fenced, ..config.clone() };
        let bytes = serde_json::to_vec(config).map_err(|e| io_error("write", &path)(e.into()))?;
        engine_host::files::write_durably(&path, &bytes, 0o600).map_err(io_error("write", &path))?;
        self.spawn(&dir, config).await
    }

    async fn start(&self, pod_uid: &str, container: &ContainerConfig) -> Result<ContainerStatus, Error> {
        match self.ask(pod_uid, &Request::Start(Box::new(container.clone()))).await? {
            Response::Started(status) => Ok(status),
            Response::Failed(why) => Err(Error::Refused(why)),
            other => Err(unexpected(&other)),
        }
    }

    async fn signal(&self, pod_uid: &str, id: &str, signal: i32) -> Result<(), Error> {
        self.done(pod_uid, &Request::Signal { id: id.to_owned(), signal }).await
    }

    async fn exec(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        exec::exec(self.connect(pod_uid)?, pod_uid, id, options).await
    }

    async fn attach(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        attach::attach(self.connect(pod_uid)?, pod_uid, id, options).await
    }

    async fn forget(&self, pod_uid: &str, id: &str) -> Result<(), Error> {
        match self.done(pod_uid, &Request::Forget { id: id.to_owned() }).await {
            Err(Error::Gone { .. }) => {}
            other => return other,
        }
        // Without a supervisor nothing of it runs.
        let dir = self.pod_dir(pod_uid).join(CONTAINERS_DIR).join(id);
        remove_dir(&dir)
    }

    async fn watch(&self, pod_uid: &str) -> watch::Receiver<Observed> {
        let dir = self.pod_dir(pod_uid);
        let first = match self.connect(pod_uid) {
            Ok(stream) => watch_first(stream).await.ok(),
            Err(_) => None,
        };
        let Some((stream, containers)) = first else {
            return watch::channel(dead(&dir)).1;
        };
        let (send, receive) = watch::channel(Observed { alive: true, containers });
        // Ends with the supervisor, or at its next word after the last receiver is gone.
        tokio::spawn(async move {
            let mut stream = stream;
            loop {
                tokio::select! {
                    // read_response may be dropped between bytes of a line, but then nobody reads on.
                    next = read_response(&mut stream) => match next {
                        Ok(Response::Status(containers)) => {
                            send.send_replace(Observed { alive: true, containers });
                        }
                        Ok(other) => tracing::warn!(?other, "unexpected word of a supervisor"),
                        Err(_) => break,
                    },
                    () = send.closed() => return,
                }
            }
            send.send_replace(dead(&dir));
        });
        receive
    }

    async fn remove(&self, pod_uid: &str) -> Result<(), Error> {
        if let Ok(stream) = self.connect(pod_uid) {
            let pid =
                nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).map(|c| c.pid());
            let ended = tokio::time::timeout(SHUTDOWN_TIMEOUT, shut_down(stream)).await;
            if !matches!(ended, Ok(Ok(())))
                && let Ok(pid) = pid
            {
                tracing::warn!(pod_uid, pid, "the supervisor does not end; killing it");
                // The connection is still open, so the process behind it has not been replaced by another.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        remove_dir(&self.pod_dir(pod_uid))
    }

    async fn writable_layer(&self, pod_uid: &str, id: &str) -> Option<PathBuf> {
        Some(self.pod_dir(pod_uid).join(CONTAINERS_DIR).join(id).join("upper"))
    }

    async fn list(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let entry = entry.map_err(io_error("list", &self.dir))?;
            if let Ok(name) = entry.file_name().into_string() {
                found.push(name);
            }
        }
        Ok(found)
    }
}

async fn conversation(mut stream: UnixStream, request: &Request) -> io::Result<Response> {
    write_request(&mut stream, request).await?;
    read_response(&mut BufReader::new(stream)).await
}

async fn write_request(stream: &mut UnixStream, request: &Request) -> io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_response(stream: &mut BufReader<UnixStream>) -> io::Result<Response> {
    let mut line = Vec::new();
    stream.take(MESSAGE_SIZE_MAX as u64).read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok(serde_json::from_slice(&line)?),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn watch_first(
    stream: std::os::unix::net::UnixStream,
) -> io::Result<(BufReader<UnixStream>, Vec<ContainerStatus>)> {
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    write_request(&mut stream, &Request::Watch).await?;
    let mut stream = BufReader::new(stream);
    match read_response(&mut stream).await? {
        Response::Status(containers) => Ok((stream, containers)),
        other => Err(io::Error::other(format!("unexpected {other:?}"))),
    }
}

/// Asks the supervisor to end and waits until it has.
async fn shut_down(stream: std::os::unix::net::UnixStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    write_request(&mut stream, &Request::Shutdown).await?;
    let mut rest = Vec::new();
    stream.take(MESSAGE_SIZE_MAX as u64).read_to_end(&mut rest).await.map(drop)
}

fn dead(dir: &Path) -> Observed {
    Observed { alive: false, containers: remains(dir) }
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir)(e)),
        _ => Ok(()),
    }
}

fn unexpected(response: &Response) -> Error {
    Error::Refused(format!("the supervisor answered {response:?}"))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
