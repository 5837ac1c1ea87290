//! What kube-scheduler does; its filters and scores are a library.
