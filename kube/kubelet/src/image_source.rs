//! An *image source* is somewhere images can come from: a registry, a peer over its link.

use async_trait::async_trait;
use engine_images::{Caller, Error, ImageStore, Reference, Registry};
use k8s_openapi::api::core::v1::Pod;

/// Asked, in order, when an image that a pod needs is not in the store.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// What events and errors call it.
    fn name(&self) -> &str;

    /// Brings the image `reference` of `pod` into `store` for `caller` ([`ImageStore::incoming`]) and answers `true`; `false` when this source
    /// does not serve such a pod or image.
    ///
    /// # Errors
    /// It should have it but could not deliver: the next source is asked, and the error is reported when none has it.
    async fn fetch(&self, reference: &Reference, pod: &Pod, caller: &Caller, store: &ImageStore)
    -> Result<bool, Error>;
}

#[async_trait]
impl ImageSource for Registry {
    fn name(&self) -> &str {
        "registry"
    }

    async fn fetch(
        &self,
        reference: &Reference,
        _pod: &Pod,
        caller: &Caller,
        store: &ImageStore,
    ) -> Result<bool, Error> {
        self.pull(reference, caller, store).await.map(|()| true)
    }
}
