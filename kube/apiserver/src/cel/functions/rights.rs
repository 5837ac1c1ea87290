//! Questions about rights: a chain says what is asked for, its last link decides (KEP-3488).
//!
//! ```text
//! authorizer ─┬─ path ────────────────────────────────────────────┬─ check(verb) ─▶ allowed, reason, errored, error
//!             ├─ group ─ resource ─ subresource, namespace, name ─┘
//!             ├─ serviceAccount(namespace, name): the same of another
//!             └─ requestResource: what the request itself is about
//! ```

use std::sync::Arc;

use super::super::evaluate::{Run, no_overload};
use super::super::fail;
use super::super::value::Value;
use super::{Answer, Row};
use crate::auth::{User, account_tokens};
use crate::authorization::{Attributes, decide};
use crate::kinds::NameRule;
use crate::server::ApiServer;

/// What a decision costs (as upstream: an expression can afford two).
const COST: u64 = 350_000;

/// A link of the chain: who is asked about, and what is known of the question.
#[derive(Clone)]
pub struct Check<'a> {
    server: &'a ApiServer,
    user: User,
    stage: Stage,
    asked: Attributes,
    /// What the request is about, at the begin of a chain.
    request: Option<Arc<Attributes>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Path,
    Group,
    Resource,
}

/// Why it is allowed; nothing if it is not, or what went wrong.
pub type Decision = Result<Option<String>, String>;

impl std::fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Check").field(&self.asked).finish()
    }
}

impl<'a> Check<'a> {
    /// `authorizer`, for an expression about what `user` does, which is `request` but for its verb.
    pub fn begin(server: &'a ApiServer, user: &User, request: Attributes) -> Value<'a> {
        let (user, request) = (user.clone(), Some(Arc::new(request)));
        Value::Check(Arc::new(Self { server, user, stage: Stage::Begin, asked: Attributes::default(), request }))
    }

    /// The one field that it has.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        let asked = self.request.as_ref().filter(|_| name == "requestResource")?;
        Some(self.next(Stage::Resource, |of| of.clone_from(asked)))
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Begin => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
        }
    }

    fn next(&self, stage: Stage, ask: impl FnOnce(&mut Attributes)) -> Value<'a> {
        let mut next = Self { stage, request: None, ..self.clone() };
        ask(&mut next.asked);
        Value::Check(Arc::new(next))
    }
}

pub(super) const TABLE: &[Row] = &[
    (".path", 1, 1, |_, a| on(a, Stage::Begin, Stage::Path, |asked, path| asked.path = path)),
    (".group", 1, 1, |_, a| on(a, Stage::Begin, Stage::Group, |asked, group| asked.group = group)),
    (".resource", 1, 1, |_, a| on(a, Stage::Group, Stage::Resource, |asked, resource| asked.resource = resource)),
    (".subresource", 1, 1, |_, a| {
        on(a, Stage::Resource, Stage::Resource, |asked, sub| {
            let plural = asked.resource.split('/').next().unwrap_or_default();
            asked.resource = if sub.is_empty() { plural.to_owned() } else { format!("{plural}/{sub}") };
        })
    }),
    (".namespace", 1, 1, |_, a| {
        on(a, Stage::Resource, Stage::Resource, |asked, namespace| asked.namespace = namespace)
    }),
    (".name", 1, 1, |_, a| on(a, Stage::Resource, Stage::Resource, |asked, name| asked.name = name)),
    // Roles do not look at what is selected.
    (".fieldSelector", 1, 1, |_, a| on(a, Stage::Resource, Stage::Resource, |_, _| {})),
    (".labelSelector", 1, 1, |_, a| on(a, Stage::Resource, Stage::Resource, |_, _| {})),
    (".serviceAccount", 2, 2, |_, a| {
        let [Value::Check(check), Value::Text(namespace), Value::Text(name)] = a else { return no_overload() };
        match check.stage {
            _ if !NameRule::Subdomain.judge(name).is_empty() => fail("Invalid service account name"),
            _ if !NameRule::Label.judge(namespace).is_empty() => fail("Invalid service account namespace"),
            Stage::Begin => Ok(Value::Check(Arc::new(Check {
                user: account_tokens::account(namespace, name),
                request: None,
                ..(**check).clone()
            }))),
            _ => no_overload(),
        }
    }),
    (".check", 1, 1, check),
    (".allowed", 0, 0, |_, a| of(a, |decision| Value::Bool(matches!(decision, Ok(Some(_)))))),
    (".reason", 0, 0, |_, a| of(a, |decision| Value::text(decision.clone().ok().flatten().unwrap_or_default()))),
    (".errored", 0, 0, |_, a| of(a, |decision| Value::Bool(decision.is_err()))),
    (".error", 0, 0, |_, a| of(a, |decision| Value::text(decision.clone().err().unwrap_or_default()))),
];

/// The link after one of `from`, with what a text says of the question.
fn on<'a>(a: &[Value<'a>], from: Stage, to: Stage, ask: impl FnOnce(&mut Attributes, String)) -> Answer<'a> {
    match a {
        [Value::Check(check), Value::Text(text)] if check.stage == from => {
            Ok(check.next(to, |asked| ask(asked, text.to_string())))
        }
        _ => no_overload(),
    }
}

fn check<'a>(run: &mut Run<'a, '_>, a: &[Value<'a>]) -> Answer<'a> {
    let [Value::Check(check), Value::Text(verb)] = a else { return no_overload() };
    if !matches!(check.stage, Stage::Path | Stage::Resource) {
        return no_overload();
    }
    run.budget.spend(COST)?;
    let asked = Attributes { verb: verb.to_string(), ..check.asked.clone() };
    let decision = decide(check.server, &check.user, &asked).map_err(|status| status.message);
    Ok(Value::Decision(Arc::new(decision)))
}

fn of<'a>(a: &[Value<'a>], told: impl FnOnce(&Decision) -> Value<'a>) -> Answer<'a> {
    match a {
        [Value::Decision(decision)] => Ok(told(decision)),
        _ => no_overload(),
    }
}
