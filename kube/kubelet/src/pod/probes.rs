//! Probes: asking a container whether it is well.
//!
//! ```text
//! startup ──succeeded──▶ liveness  ──failed──▶ the run is stopped
//!    └──failed──▶ stop   readiness ──────────▶ Ready, or not
//! ```
//!
//! Until a container was ready for the first time it is asked more often than its period says (from 50 ms on, doubling):
//! a failure then changes nothing, and a success is known sooner.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::sync::mpsc;

use super::ask::{Subject, ask};

const EAGER_FIRST: Duration = Duration::from_millis(50);

/// What became known about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The startup probe succeeded, or there is none.
    Started,
    /// The readiness probe's answer changed.
    Ready(bool),
    /// A probe succeeded, with its name and what was odd about it.
    Warned(&'static str, String),
    /// A probe failed, with its name and the reason; not yet often enough to act.
    Failed(&'static str, String),
    /// The liveness or startup probe failed often enough: the run must end.
    Unhealthy(&'static str),
    /// Its `preStop` hook came to an end.
    Hooked(Result<(), String>),
}

/// Asks until it is dropped; every answer that matters goes to `verdicts`.
pub(super) async fn probe(subject: Subject, verdicts: mpsc::Sender<(String, Verdict)>) {
    let say = async |verdict| verdicts.send((subject.run.clone(), verdict)).await.is_ok();
    if let Some(startup) = &subject.container.startup_probe
        && !until_started(&subject, startup, &verdicts).await
    {
        return;
    }
    if !say(Verdict::Started).await {
        return;
    }
    let ready = async {
        match &subject.container.readiness_probe {
            Some(probe) => readiness(&subject, probe, &verdicts).await,
            None => drop(say(Verdict::Ready(true)).await),
        }
    };
    let live = async {
        if let Some(probe) = &subject.container.liveness_probe {
            liveness(&subject, probe, &verdicts).await;
        }
    };
    tokio::join!(ready, live);
}

/// `false` when the run must end.
async fn until_started(subject: &Subject, probe: &Probe, verdicts: &mpsc::Sender<(String, Verdict)>) -> bool {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let (mut good, mut bad) = (0, 0);
    loop {
        match ask(subject, probe, timing.timeout).await {
            Ok(odd) => {
                (good, bad) = (good + 1, 0);
                warn(subject, "Startup", odd, verdicts).await;
            }
            Err(why) => {
                (good, bad) = (0, bad + 1);
                let _ = verdicts.send((subject.run.clone(), Verdict::Failed("Startup", why))).await; // the worker is gone, and we soon
            }
        }
        if good >= timing.successes {
            return true;
        }
        if bad >= timing.failures {
            let _ = verdicts.send((subject.run.clone(), Verdict::Unhealthy("startup"))).await; // as above
            return false;
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn warn(subject: &Subject, name: &'static str, odd: Option<String>, verdicts: &mpsc::Sender<(String, Verdict)>) {
    if let Some(what) = odd {
        let _ = verdicts.send((subject.run.clone(), Verdict::Warned(name, what))).await; // as above
    }
}

async fn liveness(subject: &Subject, probe: &Probe, verdicts: &mpsc::Sender<(String, Verdict)>) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let mut bad = 0;
    loop {
        match ask(subject, probe, timing.timeout).await {
            Ok(odd) => {
                bad = 0;
                warn(subject, "Liveness", odd, verdicts).await;
            }
            Err(why) => {
                bad += 1;
                if verdicts.send((subject.run.clone(), Verdict::Failed("Liveness", why))).await.is_err() {
                    return;
                }
            }
        }
        if bad >= timing.failures {
            let _ = verdicts.send((subject.run.clone(), Verdict::Unhealthy("liveness"))).await; // as above
            return;
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn readiness(subject: &Subject, probe: &Probe, verdicts: &mpsc::Sender<(String, Verdict)>) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let (mut ready, mut was_ready, mut good, mut bad) = (false, false, 0, 0);
    let mut eager = EAGER_FIRST;
    let mut since_said = Duration::MAX;
    loop {
        let wait = if was_ready { timing.period } else { eager.min(timing.period) };
        let mut news = Vec::new();
        match ask(subject, probe, timing.timeout).await {
            Ok(odd) => {
                (good, bad) = (good + 1, 0);
                news.extend(odd.map(|what| Verdict::Warned("Readiness", what)));
                if !ready && good >= timing.successes {
                    (ready, was_ready) = (true, true);
                    news.push(Verdict::Ready(true));
                }
            }
            Err(why) => {
                (good, bad) = (0, bad + 1);
                // Eager questions are ours: their failures are said once a period, as the user expects them.
                if since_said >= timing.period {
                    since_said = Duration::ZERO;
                    news.push(Verdict::Failed("Readiness", why));
                }
                if ready && bad >= timing.failures {
                    ready = false;
                    news.push(Verdict::Ready(false));
                }
            }
        }
        for verdict in news {
            if verdicts.send((subject.run.clone(), verdict)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
        since_said = since_said.saturating_add(wait);
        eager = eager.saturating_mul(2);
    }
}

struct Timing {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: i32,
    failures: i32,
}

impl Timing {
    /// With the API's defaults.
    fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: probe.success_threshold.unwrap_or(1).max(1),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }
}
