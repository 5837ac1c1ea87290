//! What several stories sell, and what they buy.

/// The prices of who sells.
pub const SELLS: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: SharingPolicy
metadata: {name: standard, namespace: fluidos}
spec: {price: {amount: "0.02", currency: EUR, period: hour, unit: cpu}}
"#;
/// Of who sells on what it has not itself.
pub const SELLS_ON: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: SharingPolicy
metadata: {name: standard, namespace: fluidos}
spec:
  price: {amount: "0.05", currency: EUR, period: hour, unit: cpu}
  reselling: {margin: 10%}
"#;
/// What may be paid, also for what is sold on and by somebody who does.
pub const PAYS: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: AcquisitionPolicy
metadata: {name: household, namespace: fluidos}
spec:
  ceilings: [{currency: EUR, perHour: "1"}]
  accepts: {resold: true}
"#;

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

/// A redis that is bought as a service, for a namespace, which is made.
pub fn cache(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Solver
metadata:
  name: cache
  namespace: fluidos
  annotations: {{fluidos.eu/namespace: {namespace}, fluidos.eu/service-name: cache}}
spec:
  intentID: cache
  findCandidate: true
  reserveAndBuy: true
  establishPeering: true
  selector:
    flavorType: Service
    filters:
      categoryFilter: {{name: Match, data: {{value: database}}}}
      tagsFilter: {{name: Match, data: {{value: redis}}}}
  configuration: {{type: Service, data: {{configurationData: {{memory: 24mb}}}}}}
"#
    )
}

/// A pod of that namespace which runs a command of the shell and then counts its visits in the redis, once a second.
pub fn visitor(namespace: &str, first: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: client
    image: redis-client:7
    command:
    - sh
    - -c
    - |
      {first}
      while :; do echo "visits: $(timeout 2 redis-cli -h "$HOST" -p "$PORT" incr visits 2>&1)"; sleep 1; done
    env:
    - {{name: HOST, valueFrom: {{secretKeyRef: {{name: cache, key: host}}}}}}
    - {{name: PORT, valueFrom: {{secretKeyRef: {{name: cache, key: port}}}}}}
    - {{name: REDISCLI_AUTH, valueFrom: {{secretKeyRef: {{name: cache, key: password}}}}}}
    resources: {{requests: {{cpu: 50m, memory: 16Mi}}, limits: {{cpu: 50m, memory: 16Mi}}}}
"#
    )
}
