//! Kills at any instant: a fuse counts the moments before and after each write and each message, and burns at one of them.
//! Whoever comes to it then waits for ever, as a process that was killed there would never go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use fluidos_identity::{NodeId, Signed};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode, Seller};
use kube::Client;
use tokio::sync::Notify;

#[derive(Clone)]
pub struct Fuse {
    left: Arc<AtomicI64>,
    burnt: Arc<Notify>,
}

impl Fuse {
    /// Burns at the moment of this number.
    pub fn at(moment: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(moment)), burnt: Arc::default() }
    }

    /// From now on it burns at the moment of this number. Returns whether it has burnt before.
    pub fn arm(&self, moment: i64) -> bool {
        self.left.swap(moment, Ordering::SeqCst) < 0
    }

    /// One moment.
    pub async fn moment(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.burnt.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub async fn burnt(&self) {
        self.burnt.notified().await;
    }

    pub fn is_burnt(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

/// A client whose writes pass the fuse.
pub fn fused(client: &Client, fuse: &Fuse) -> Client {
    let (client, fuse) = (client.clone(), fuse.clone());
    substrate_client::in_process(tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, fuse) = (client.clone(), fuse.clone());
        async move {
            let writes = request.method() != http::Method::GET;
            if writes {
                fuse.moment().await;
            }
            let answer = client.send(request).await;
            if writes {
                fuse.moment().await;
            }
            answer
        }
    }))
}

/// A seller whose messages pass the fuse on their way there and back, and that may refuse to sell what it has held.
pub struct Fused<S> {
    pub seller: Arc<S>,
    pub fuse: Fuse,
    pub sells: bool,
}

impl<S> Fused<S> {
    async fn pass<T>(&self, answer: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        self.fuse.moment().await;
        let answer = answer.await;
        self.fuse.moment().await;
        answer
    }
}

#[async_trait]
impl<S: Seller> Seller for Fused<S> {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        self.seller.list_flavors(selector, peer).await
    }

    async fn request(&self, request: rear::ResourceRequest, buyer: NodeId) -> Result<rear::ResourceAnswer, Refusal> {
        self.seller.request(request, buyer).await
    }

    async fn reserve(&self, request: rear::ReserveRequest, buyer: NodeId) -> Result<rear::Transaction, Refusal> {
        self.pass(self.seller.reserve(request, buyer)).await
    }

    async fn purchase(
        &self,
        transaction: &str,
        request: rear::PurchaseRequest,
        terms: Signed<rear::ContractTerms>,
        buyer: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        if !self.sells {
            return Err(Refusal::new(RefusalCode::Forbidden, "it is not sold after all"));
        }
        self.pass(self.seller.purchase(transaction, request, terms, buyer)).await
    }

    async fn cancel(&self, transaction: &str, buyer: NodeId) -> Result<(), Refusal> {
        self.pass(self.seller.cancel(transaction, buyer)).await
    }

    async fn renew(
        &self,
        id: &str,
        renewal: Signed<rear::RenewalTerms>,
        party: NodeId,
    ) -> Result<Signed<rear::RenewalTerms>, Refusal> {
        self.pass(self.seller.renew(id, renewal, party)).await
    }

    async fn release(&self, id: &str, release: Signed<rear::ReleaseTerms>, party: NodeId) -> Result<(), Refusal> {
        self.pass(self.seller.release(id, release, party)).await
    }
}
