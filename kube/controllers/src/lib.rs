//! What kube-controller-manager does.
mod deployment;
mod expectations;
mod objects;
mod recorder;
mod replica_set;
mod work;

/// Temporary.
pub async fn run(client: kube::Client) {
    let caches = work::Caches::start(&client);
    tokio::join!(deployment::run(client.clone(), caches.clone()), replica_set::run(client, caches));
}
