//! Keeps the connection by which the API server looks into the pods of this machine (`substrate_apiserver::node_tunnel`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{StatusCode, header};
use kube::client::Body;
use substrate_apiserver::node_proxy::NodeProxy;
use substrate_apiserver::node_tunnel::{PATH, PROTOCOL, serve};

use super::member::Current;

/// A server that was started again is there soon.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// One that is away is asked now and then.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Opens it, and again whenever it ends.
pub async fn keep(current: Current, proxy: Arc<dyn NodeProxy>) {
    let mut pause = PAUSE_MIN;
    loop {
        match once(&current, proxy.clone()).await {
            Ok(()) => pause = PAUSE_MIN,
            Err(error) => {
                tracing::debug!("no tunnel to the API server: {error:#}");
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn once(current: &Current, proxy: Arc<dyn NodeProxy>) -> Result<()> {
    let request = http::Request::get(PATH).header(header::CONNECTION, "Upgrade").header(header::UPGRADE, PROTOCOL);
    let response = current.now().send(request.body(Body::empty())?).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        bail!("the API server answers {}", response.status());
    }
    let turned = hyper::upgrade::on(response).await.context("turn the connection round")?;
    tracing::info!("the API server reaches this machine");
    if let Err(error) = serve(turned, proxy).await {
        tracing::info!(%error, "the tunnel to the API server has ended");
    }
    Ok(())
}
