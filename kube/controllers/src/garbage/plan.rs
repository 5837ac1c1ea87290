//! What is garbage, and what waits for what. No effects.
use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::graph::{Graph, Object};

/// What the API server writes for `propagationPolicy: Foreground`.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// What it writes for `propagationPolicy: Orphan`.
pub(crate) const ORPHAN: &str = "orphan";

/// How the dependents of a deleted object are to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Owners that are not in the graph, with the namespace of who names them: do they exist?
    pub ask: Vec<(OwnerReference, String)>,
    pub delete: Vec<(Object, Propagation)>,
    /// Owners to strike from an object.
    pub strip: Vec<(Object, BTreeSet<String>)>,
    /// A finalizer whose wish is met.
    pub release: Vec<(Object, &'static str)>,
}

/// The plan for the whole graph. `absent` are identities that the API server has said do not exist (any more). `complete`
/// says that every kind has been listed, without which nobody can know that nothing blocks a deletion any more.
pub(crate) fn plan(graph: &Graph, absent: &BTreeSet<String>, complete: bool) -> Plan {
    let mut plan = Plan::default();
    let mut asked = BTreeSet::new();
    for object in graph.objects() {
        if object.leaving {
            finish(graph, object, complete, &mut plan);
        }
        if !object.owners.is_empty() {
            judge(graph, object, absent, &mut asked, &mut plan);
        }
    }
    // Of one view one plan, whatever order the graph is kept in.
    plan.ask.sort_by(|a, b| a.0.uid.cmp(&b.0.uid));
    plan.delete.sort_by(|a, b| a.0.uid.cmp(&b.0.uid));
    plan.strip.sort_by(|a, b| a.0.uid.cmp(&b.0.uid));
    plan.release.sort_by(|a, b| a.0.uid.cmp(&b.0.uid));
    plan
}

/// An object that is being deleted with a wish for its dependents.
fn finish(graph: &Graph, object: &Object, complete: bool, plan: &mut Plan) {
    if object.has_finalizer(ORPHAN) {
        let mut clear = complete;
        for dependent in graph.dependents(&object.uid) {
            clear = false;
            plan.strip.push((dependent.clone(), BTreeSet::from([object.uid.clone()])));
        }
        if clear {
            plan.release.push((object.clone(), ORPHAN));
        }
    } else if object.has_finalizer(FOREGROUND) {
        let blocked = graph.dependents(&object.uid).any(|dependent| blocks(dependent, &object.uid));
        if complete && !blocked {
            plan.release.push((object.clone(), FOREGROUND));
        }
    }
}

fn blocks(dependent: &Object, owner: &str) -> bool {
    dependent.owners.iter().any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}

/// What an owner is to one that names it.
#[derive(PartialEq, Eq)]
enum Owner {
    Solid,
    /// Is being deleted and waits for the dependent.
    Waiting,
    Absent,
    Unknown,
}

fn judge(graph: &Graph, object: &Object, absent: &BTreeSet<String>, asked: &mut BTreeSet<String>, plan: &mut Plan) {
    // One that is going anyway is only looked at if it holds up its owner.
    if object.leaving && !object.has_finalizer(FOREGROUND) {
        return;
    }
    let state = |reference: &OwnerReference| match graph.get(&reference.uid) {
        // An owner in another namespace is none: names do not reach that far.
        Some(owner) if !owner.namespace.is_empty() && owner.namespace != object.namespace => Owner::Absent,
        Some(owner) if owner.leaving && owner.has_finalizer(FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Solid,
        None if absent.contains(&reference.uid) => Owner::Absent,
        None => Owner::Unknown,
    };
    let states: Vec<(&OwnerReference, Owner)> = object.owners.iter().map(|owner| (owner, state(owner))).collect();
    for (reference, state) in &states {
        if *state == Owner::Unknown && asked.insert(reference.uid.clone()) {
            plan.ask.push(((*reference).clone(), object.namespace.clone()));
        }
    }
    if object.leaving || states.iter().any(|(_, state)| *state == Owner::Unknown) {
        return;
    }
    let of = |wanted: Owner| {
        let matching = states.iter().filter(move |(_, state)| *state == wanted);
        matching.map(|(reference, _)| reference.uid.clone()).collect::<BTreeSet<String>>()
    };
    let (waiting, gone) = (of(Owner::Waiting), of(Owner::Absent));
    if states.iter().any(|(_, state)| *state == Owner::Solid) {
        // Somebody still needs it; those who do not must not have to wait for it.
        let strip: BTreeSet<String> = waiting.union(&gone).cloned().collect();
        if !strip.is_empty() {
            plan.strip.push((object.clone(), strip));
        }
        return;
    }
    let has_dependents = graph.dependents(&object.uid).next().is_some();
    let propagation = if object.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if !waiting.is_empty() && has_dependents {
        // The owner waits for all of the tree.
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    plan.delete.push((object.clone(), propagation));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use expect_test::{Expect, expect};

    use super::*;

    /// `name < owner! owner2 @namespace ~finalizer -` : owned by, `!` blocks; `-` being deleted.
    fn object(text: &str) -> Object {
        let mut words = text.split(' ');
        let name = words.next().unwrap().to_owned();
        let mut object = Object {
            kind: ("v1".into(), "Thing".into()),
            namespace: "d".into(),
            uid: name.clone(),
            name,
            version: None,
            owners: vec![],
            finalizers: vec![],
            leaving: false,
        };
        for word in words {
            match word.split_at(1) {
                ("<", _) => {}
                ("@", namespace) => object.namespace = namespace.to_owned(),
                ("~", finalizer) => object.finalizers.push(finalizer.to_owned()),
                ("-", _) => object.leaving = true,
                _ => object.owners.push(OwnerReference {
                    uid: word.trim_end_matches('!').to_owned(),
                    block_owner_deletion: Some(word.ends_with('!')),
                    ..OwnerReference::default()
                }),
            }
        }
        object
    }

    fn check(objects: &[&str], absent: &[&str], expected: Expect) {
        let mut graph = Graph::default();
        objects.iter().for_each(|text| graph.apply(object(text)));
        let plan = plan(&graph, &absent.iter().map(|uid| (*uid).to_owned()).collect(), true);
        let mut words: Vec<String> = plan.ask.iter().map(|(owner, _)| format!("ask {}", owner.uid)).collect();
        words.extend(plan.delete.iter().map(|(object, how)| format!("delete {} {how:?}", object.name)));
        words.extend(plan.strip.iter().map(|(object, owners)| format!("strip {} of {owners:?}", object.name)));
        words
            .extend(plan.release.iter().map(|(object, finalizer)| format!("release {} from {finalizer}", object.name)));
        expected.assert_eq(&words.join("\n"));
    }

    #[test]
    fn what_has_an_owner_stays_and_what_has_none_goes() {
        check(&["set", "pod < set!"], &[], expect![""]);
        check(&["pod < set!", "pod2 < set!"], &[], expect!["ask set"]);
        check(&["pod < set!", "free"], &["set"], expect!["delete pod Background"]);
        check(&["pod < set!", "child < pod"], &["set"], expect!["delete pod Background"]);
        check(&["pod < set! other", "other"], &["set"], expect![[r#"strip pod of {"set"}"#]]);
        check(&["pod < set! unknown"], &["set"], expect!["ask unknown"]);
        check(&["pod < set! -"], &["set"], expect![""]);
        check(&["pod < set! ~orphan"], &["set"], expect!["delete pod Orphan"]);
        check(&["set @elsewhere", "pod < set"], &[], expect!["delete pod Background"]);
        check(&["node @", "pod < node"], &[], expect![""]);
    }

    #[test]
    fn a_foreground_deletion_goes_down_and_comes_up() {
        let deployment = "deployment - ~foregroundDeletion";
        check(&[deployment, "set < deployment!", "pod < set!"], &[], expect!["delete set Foreground"]);
        check(
            &[deployment, "set < deployment! - ~foregroundDeletion", "pod < set!"],
            &[],
            expect!["delete pod Background"],
        );
        check(&[deployment, "set < deployment! - ~foregroundDeletion", "pod < set! -"], &[], expect![""]);
        check(
            &[deployment, "set < deployment! - ~foregroundDeletion"],
            &[],
            expect!["release set from foregroundDeletion"],
        );
        check(&[deployment], &[], expect!["release deployment from foregroundDeletion"]);
        check(
            &[deployment, "weak < deployment"],
            &[],
            expect![[r#"
            delete weak Background
            release deployment from foregroundDeletion"#]],
        );
        check(
            &[deployment, "shared < deployment! other", "other"],
            &[],
            expect![[r#"strip shared of {"deployment"}"#]],
        );
    }

    #[test]
    fn orphans_are_struck_before_their_owner_goes() {
        check(&["set - ~orphan", "pod < set!"], &[], expect![[r#"strip pod of {"set"}"#]]);
        check(&["set - ~orphan", "pod"], &[], expect!["release set from orphan"]);
    }

    #[test]
    fn nothing_is_released_before_everything_is_known() {
        let mut graph = Graph::default();
        ["a - ~orphan", "b - ~foregroundDeletion"].into_iter().for_each(|text| graph.apply(object(text)));
        assert!(plan(&graph, &BTreeSet::new(), false).release.is_empty());
        assert_eq!(plan(&graph, &BTreeSet::new(), true).release.len(), 2);
    }

    #[test]
    fn the_graph_forgets() {
        let mut graph = Graph::default();
        graph.apply(object("pod < set!"));
        graph.apply(object("pod < other"));
        assert_eq!((graph.dependents("set").count(), graph.dependents("other").count()), (0, 1));
        graph.apply(object("pod2 < other"));
        graph.reset(&("v1".into(), "Thing".into()), vec![object("pod2 < other")]);
        assert_eq!(graph.dependents("other").map(|o| o.name.as_str()).collect::<Vec<_>>(), ["pod2"]);
        graph.delete("pod2");
        assert_eq!(graph.objects().count(), 0);
    }
}
