//! Texts: what CEL, its extension of strings (version 2) and Kubernetes' regex library do with them.

use super::super::evaluate::{Run, no_overload};
use super::super::value::Value;
use super::super::{Fail, PATTERNS_MAX, fail};
use super::{Answer, Row, shown, time};

/// What compiling a pattern costs that was not compiled for this program before.
const PATTERN: u64 = 50_000;
/// Bytes of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 18;

pub(super) const TABLE: &[Row] = &[
    (".contains", 1, 1, |_, a| two(a, |text, part| Ok(Value::Bool(text.contains(part))))),
    (".startsWith", 1, 1, |_, a| two(a, |text, part| Ok(Value::Bool(text.starts_with(part))))),
    (".endsWith", 1, 1, |_, a| two(a, |text, part| Ok(Value::Bool(text.ends_with(part))))),
    (".matches", 1, 1, |run, a| {
        let [Value::Text(text), Value::Text(pattern)] = a else { return no_overload() };
        with_pattern(run, pattern, text.len(), |regex| Value::Bool(regex.is_match(text)))
    }),
    ("matches", 2, 2, |run, a| {
        let [Value::Text(text), Value::Text(pattern)] = a else { return no_overload() };
        with_pattern(run, pattern, text.len(), |regex| Value::Bool(regex.is_match(text)))
    }),
    (".find", 1, 1, |run, a| {
        let [Value::Text(text), Value::Text(pattern)] = a else { return no_overload() };
        with_pattern(run, pattern, text.len(), |regex| Value::text(regex.find(text).map_or("", |found| found.as_str())))
    }),
    (".findAll", 1, 2, |run, a| {
        let (Some(Value::Text(text)), Some(Value::Text(pattern))) = (a.first(), a.get(1)) else { return no_overload() };
        let most = match a.get(2) {
            None => usize::MAX,
            Some(Value::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
            Some(_) => return no_overload(),
        };
        run.budget.spend(text.len() as u64)?;
        with_pattern(run, pattern, text.len(), |regex| {
            Value::list(regex.find_iter(text).take(most).map(|found| Value::text(found.as_str())).collect())
        })
    }),
    (".charAt", 1, 1, |_, a| match a {
        [Value::Text(text), Value::Int(at)] => {
            let length = text.chars().count();
            match usize::try_from(*at) {
                Ok(at) if at <= length => Ok(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default())),
                _ => fail(format!("index out of range: {at}")),
            }
        }
        _ => no_overload(),
    }),
    (".lowerAscii", 0, 0, |_, a| one(a, |text| text.to_ascii_lowercase())),
    (".upperAscii", 0, 0, |_, a| one(a, |text| text.to_ascii_uppercase())),
    (".trim", 0, 0, |_, a| one(a, |text| text.trim().to_owned())),
    (".reverse", 0, 0, |_, a| one(a, |text| text.chars().rev().collect())),
    ("strings.quote", 1, 1, |_, a| one(a, |text| format!("{text:?}"))),
    (".replace", 2, 3, |run, a| {
        let [Value::Text(text), Value::Text(old), Value::Text(new), ..] = a else { return no_overload() };
        let most = match a.get(3) {
            None => usize::MAX,
            Some(Value::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
            Some(_) => return no_overload(),
        };
        let hits = text.matches(&**old).take(most).count() as u64;
        run.budget.spend(hits * (1 + new.len() as u64 / 10))?;
        Ok(Value::text(text.replacen(&**old, new, most)))
    }),
    (".split", 1, 2, |run, a| {
        let [Value::Text(text), Value::Text(by), ..] = a else { return no_overload() };
        run.budget.spend(text.len() as u64)?;
        let most = match a.get(2) {
            None => usize::MAX,
            Some(Value::Int(0)) => return Ok(Value::list(Vec::new())),
            Some(Value::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
            Some(_) => return no_overload(),
        };
        if by.is_empty() {
            return Ok(Value::list(text.chars().map(Value::text).collect()));
        }
        Ok(Value::list(text.splitn(most, &**by).map(Value::text).collect()))
    }),
    (".substring", 1, 2, |_, a| {
        let (text, from, to) = match a {
            [Value::Text(text), Value::Int(from)] => (text, *from, text.chars().count() as i64),
            [Value::Text(text), Value::Int(from), Value::Int(to)] => (text, *from, *to),
            _ => return no_overload(),
        };
        if from < 0 || to < from || to > text.chars().count() as i64 {
            return fail(format!("index out of range: {from}"));
        }
        Ok(Value::text(text.chars().skip(from as usize).take((to - from) as usize).collect::<String>()))
    }),
    (".join", 0, 1, |run, a| {
        let Some(items) = a.first().and_then(Value::items) else { return no_overload() };
        let by = match a.get(1) {
            None => "",
            Some(Value::Text(by)) => by,
            Some(_) => return no_overload(),
        };
        let mut joined = String::new();
        for (i, item) in items.iter().enumerate() {
            let Value::Text(text) = item else { return no_overload() };
            run.budget.spend(1 + (text.len() + by.len()) as u64 / 10)?;
            joined.push_str(if i == 0 { "" } else { by });
            joined.push_str(&text);
        }
        Ok(Value::text(joined))
    }),
    (".format", 1, 1, |run, a| {
        let (Some(Value::Text(form)), Some(items)) = (a.first(), a.get(1).and_then(Value::items)) else {
            return no_overload();
        };
        let (mut out, mut rest, mut next) = (String::new(), &**form, 0);
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            let verb = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let precision = after[..after.len() - verb.len()].trim_start_matches('.').parse::<usize>().ok();
            let mut characters = verb.chars();
            match characters.next() {
                Some('%') => out.push('%'),
                Some(verb) => {
                    let Some(item) = items.get(next) else { return fail(format!("index {next} out of range")) };
                    next += 1;
                    run.budget.spend(item.weight())?;
                    out.push_str(&formatted(verb, precision.map(|digits| digits.min(64)), &item)?);
                }
                None => return fail("unexpected end of string"),
            }
            rest = characters.as_str();
        }
        out.push_str(rest);
        run.budget.spend(out.len() as u64 / 10)?;
        Ok(Value::text(out))
    }),
];

fn one<'a>(a: &[Value<'a>], of: impl Fn(&str) -> String) -> Answer<'a> {
    match a {
        [Value::Text(text)] => Ok(Value::text(of(text))),
        _ => no_overload(),
    }
}

fn two<'a>(a: &[Value<'a>], of: impl Fn(&str, &str) -> Answer<'a>) -> Answer<'a> {
    match a {
        [Value::Text(text), Value::Text(part)] => of(text, part),
        _ => no_overload(),
    }
}

/// Asks a pattern; the engine is linear in the text.
fn with_pattern<'a>(
    run: &mut Run<'a, '_>,
    pattern: &str,
    length: usize,
    ask: impl Fn(&regex::Regex) -> Value<'a>,
) -> Answer<'a> {
    run.budget.spend((1 + length as u64 / 10) * (1 + pattern.len() as u64 / 4))?;
    let mut known = run.program.patterns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(regex) = known.get(pattern) {
        return Ok(ask(regex));
    }
    run.budget.spend(PATTERN)?;
    let regex = regex::RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| Fail::Error(format!("error parsing regexp: {error}")))?;
    let answer = ask(&regex);
    if known.len() < PATTERNS_MAX {
        known.insert(pattern.to_owned(), regex);
    }
    Ok(answer)
}

fn formatted(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, Fail> {
    let number = |value: &Value<'_>| match value {
        Value::Double(fraction) => Some(*fraction),
        Value::Int(whole) => Some(*whole as f64),
        Value::UInt(whole) => Some(*whole as f64),
        _ => None,
    };
    Ok(match (verb, value) {
        ('s', value) => said(value),
        ('d', Value::Int(_) | Value::UInt(_)) => shown(value),
        ('f', value) if number(value).is_some() => {
            format!("{:.*}", precision.unwrap_or(6), number(value).unwrap_or(0.0))
        }
        ('x', Value::Int(whole)) => format!("{whole:x}"),
        ('X', Value::Int(whole)) => format!("{whole:X}"),
        ('x', Value::UInt(whole)) => format!("{whole:x}"),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('b', Value::Int(whole)) => format!("{whole:b}"),
        ('b', Value::Bool(truth)) => u8::from(*truth).to_string(),
        ('o', Value::Int(whole)) => format!("{whole:o}"),
        _ => return fail(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\"")),
    })
}

/// A value as `%s` has it.
fn said(value: &Value<'_>) -> String {
    if let Some(items) = value.items() {
        return format!("[{}]", items.iter().map(|item| said(&item)).collect::<Vec<_>>().join(", "));
    }
    if let Some(fields) = value.fields() {
        let mut pairs: Vec<String> = fields
            .keys()
            .iter()
            .map(|key| format!("{}: {}", said(key), fields.get(key).map_or_else(String::new, |value| said(&value))))
            .collect();
        pairs.sort();
        return format!("{{{}}}", pairs.join(", "));
    }
    match value {
        Value::Null => "null".into(),
        Value::Duration(length) => time::seconds(*length),
        Value::Time(at) => at.to_string(),
        Value::Type(name) => (*name).to_owned(),
        other => shown(other),
    }
}
