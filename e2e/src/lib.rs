//! Black-box stories: real processes, real containers, network namespaces, kubectl.
