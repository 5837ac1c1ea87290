//! REAR: messages, client, server. Names no Kubernetes type.
