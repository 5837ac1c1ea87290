//! What kube-controller-manager does.
