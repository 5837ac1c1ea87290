//! Profiles that somebody else wrote: the `seccomp` object of the OCI runtime specification, as filters.
//!
//! ```text
//! default D, rules r1: ALLOW, r2: LOG, r3: KILL ──▶ filter "D but for r1 r2 r3" + filter "LOG for r2" + filter "KILL for r3"
//! ```
//!
//! One filter knows two answers, and of several the kernel takes the strictest: what is not listed gets the default from
//! the first, what is listed passes that and gets its own from another. A name that this kernel's table does not have is
//! left out, as every runtime does; any other word that is not known refuses the profile, for it may be a prohibition.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::BpfProgram;
use serde::Deserialize;
use serde_json::{Value, json};

use super::refused;

/// What a profile has that is written by hand or by a tool: ours, and that of all engines, names some 400 calls.
const RULES_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// The filters of a profile.
///
/// # Errors
/// It is no profile, or asks for what cannot be had.
pub fn compile(text: &str) -> io::Result<Vec<BpfProgram>> {
    let profile: Profile = serde_json::from_str(text).map_err(refused)?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let (mut all, mut by_action) = (Vec::new(), BTreeMap::<String, (Value, Vec<Value>)>::new());
    for rule in &profile.syscalls {
        let does = action(&rule.action, rule.errno_ret)?;
        for name in rule.names.iter().filter(|name| is_known(name)) {
            let rules = rules(name, &rule.args)?;
            all.extend(rules.iter().cloned());
            if does != "allow" {
                by_action.entry(does.to_string()).or_insert((does.clone(), Vec::new())).1.extend(rules);
            }
        }
    }
    if all.len() > RULES_MAX {
        return Err(refused(format!("more than {RULES_MAX} rules")));
    }
    let mut filters = Vec::new();
    if default != "allow" {
        filters.push(filter(&default, &json!("allow"), &all)?);
    }
    for (does, rules) in by_action.values() {
        // The same as the default needs no filter of its own, but must not be let through by the first.
        filters.push(filter(&json!("allow"), does, rules)?);
    }
    Ok(filters)
}

fn action(name: &str, errno: Option<u32>) -> io::Result<Value> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => json!("allow"),
        "SCMP_ACT_ERRNO" => json!({"errno": errno.unwrap_or(libc::EPERM as u32)}),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => json!("kill_thread"),
        "SCMP_ACT_KILL_PROCESS" => json!("kill_process"),
        "SCMP_ACT_LOG" => json!("log"),
        "SCMP_ACT_TRAP" => json!("trap"),
        "SCMP_ACT_TRACE" => json!({"trace": errno.unwrap_or(libc::EPERM as u32)}),
        other => return Err(refused(format!("the action {other:?} is not to be had"))),
    })
}

/// A condition on an argument that is said twice means either; on different ones, all of them (as libseccomp has it).
fn rules(name: &str, args: &[Argument]) -> io::Result<Vec<Value>> {
    let conditions = args.iter().map(condition).collect::<io::Result<Vec<_>>>()?;
    let twice = args.iter().enumerate().any(|(n, arg)| args[..n].iter().any(|before| before.index == arg.index));
    Ok(match conditions.as_slice() {
        [] => vec![json!({"syscall": name})],
        each if twice => each.iter().map(|one| json!({"syscall": name, "args": [one]})).collect(),
        all => vec![json!({"syscall": name, "args": all})],
    })
}

fn condition(arg: &Argument) -> io::Result<Value> {
    let (op, value) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (json!("ne"), arg.value),
        "SCMP_CMP_LT" => (json!("lt"), arg.value),
        "SCMP_CMP_LE" => (json!("le"), arg.value),
        "SCMP_CMP_EQ" => (json!("eq"), arg.value),
        "SCMP_CMP_GE" => (json!("ge"), arg.value),
        "SCMP_CMP_GT" => (json!("gt"), arg.value),
        // Here the first value is the mask.
        "SCMP_CMP_MASKED_EQ" => (json!({"masked_eq": arg.value}), arg.value_two),
        other => return Err(refused(format!("the comparison {other:?} is not known"))),
    };
    Ok(json!({"index": arg.index, "type": "qword", "op": op, "val": value}))
}

fn is_known(name: &str) -> bool {
    filter(&json!("allow"), &json!("log"), &[json!({"syscall": name})]).is_ok()
}

fn filter(otherwise: &Value, listed: &Value, rules: &[Value]) -> io::Result<BpfProgram> {
    let text = json!({"it": {"mismatch_action": otherwise, "match_action": listed, "filter": rules}}).to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(refused)?;
    let mut all = seccompiler::compile_from_json(text.as_bytes(), arch).map_err(refused)?;
    all.remove("it").ok_or_else(|| refused("no filter was made"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn check(profile: Value) -> String {
        match compile(&profile.to_string()) {
            Ok(filters) => format!("{} filters", filters.len()),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn words_of_a_profile() {
        let rule = |action: &str| json!({"names": ["mkdirat", "no_such_call"], "action": action});
        let with = |rules: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
        assert_eq!(check(with(json!([]))), "1 filters");
        assert_eq!(check(with(json!([rule("SCMP_ACT_ALLOW")]))), "1 filters");
        assert_eq!(
            check(with(json!([rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_LOG"), rule("SCMP_ACT_KILL")]))),
            "3 filters"
        );
        assert_eq!(check(json!({"defaultAction": "SCMP_ACT_ALLOW"})), "0 filters");
        assert_eq!(
            check(with(json!([rule("SCMP_ACT_NOTIFY")]))),
            "seccomp profile: the action \"SCMP_ACT_NOTIFY\" is not to be had"
        );
        assert!(check(json!({"syscalls": []})).contains("missing field `defaultAction`"));
        let odd = json!([{"names": ["mkdirat"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ODD"}]}]);
        assert_eq!(check(with(odd)), "seccomp profile: the comparison \"SCMP_CMP_ODD\" is not known");
    }
}
