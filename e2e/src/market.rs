//! What several stories buy.

/// A Solver that buys by hand, without a virtual node: the contract alone. `cpu` is a quantity.
pub fn solver(name: &str, cpu: &str) -> String {
    format!(
        r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Solver
metadata: {{name: {name}, namespace: fluidos}}
spec:
  selector:
    flavorType: K8Slice
    filters:
      cpuFilter: {{name: Range, data: {{min: "{cpu}"}}}}
      memoryFilter: {{name: Range, data: {{min: 256Mi}}}}
      podsFilter: {{name: Range, data: {{min: 3}}}}
  intentID: by-hand
  findCandidate: true
  reserveAndBuy: true
  establishPeering: false
"#
    )
}
