//! One Kubernetes client for all: in process or over TLS; one shared cache per kind.
