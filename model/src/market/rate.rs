//! How much a seller wants, as its owner wrote it: a decimal, or a rule in CEL (Common Expression Language) over the moment.
//!
//! | name | is |
//! |---|---|
//! | `utilisation` | per cent of what is sold that is promised: of the resource of which most is |
//! | `hour`, `weekday`, `month` | of UTC; the weekday is 1 on Monday |
//! | `buyer` | DID of who asks; empty for somebody who has proven none |
//! | `contracts` | how many contracts run with this buyer |
//! | `rated` | whether something was seen of this buyer |
//! | `rating` | what was seen of it, 0 to 100; while nothing was, a rule that needs it answers nothing, so: `rated && rating > 80 ? …` |
//! | `micro(n)` | n millionths, as a decimal |
//!
//! A rule answers a text (`"0.02"`), a whole number, or `micro(…)`; floating-point numbers are refused, for they are not what was
//! written. *Bounded*: a rule is short and flat, has no loops (CEL's macros are refused) and sees nothing but these names, so it
//! ends after a few steps.

use std::sync::Arc;

use cel::common::ast::Expr;
use cel::parser::{Expression, PrattParser};
use cel::{Context, Value};
use jiff::Timestamp;
use jiff::tz::Offset;

use super::{Decimal, MoneyError};

/// Half a screen of conditions; the parser's work grows with it.
const RULE_LENGTH_MAX: usize = 512;
/// Signs such as `+` and `(`: the parser descends at most so often. A condition with its two answers has about ten.
const RULE_SIGNS_MAX: usize = 64;
/// Computing descends once for each level, and takes some forty kilobytes of stack for it in a debug build; a thread has two
/// mebibytes.
const RULE_DEPTH_MAX: usize = 12;
const NAMES: [&str; 8] = ["utilisation", "hour", "weekday", "month", "buyer", "contracts", "rated", "rating"];

/// How much is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rate {
    /// Always the same.
    Fixed(Decimal),
    /// What this rule says.
    Rule(String),
}

/// What a rule sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Situation<'a> {
    /// Per cent, 0 to 100.
    pub utilisation: u8,
    /// Now.
    pub now: Timestamp,
    /// DID of who asks, empty for somebody who has proven none.
    pub buyer: &'a str,
    /// How many contracts run with this buyer.
    pub contracts: usize,
    /// What was seen of this buyer, 0 to 100; `None` is nothing yet.
    pub rating: Option<u8>,
}

/// Why a rate is none. Its owner must correct it; nothing is sold at it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum RateError {
    /// Longer than a rule may be.
    #[error("price rule has {observed} bytes, needed at most {RULE_LENGTH_MAX}")]
    TooLong {
        /// How long it is.
        observed: usize,
    },
    /// More deeply made than a rule may be.
    #[error(
        "price rule is nested too deeply: needed at most {RULE_SIGNS_MAX} signs such as `+` and `(`, {RULE_DEPTH_MAX} levels"
    )]
    TooDeep,
    /// It uses more of the language than a price needs.
    #[error("price rule uses lists, maps, fields or macros, needed only names, numbers, texts, operators and micro()")]
    NotPlain,
    /// Neither a decimal nor an expression.
    #[error("price rule is no decimal and no CEL expression: {reason}")]
    Syntax {
        /// What the parser says.
        reason: String,
    },
    /// It uses a name that there is not.
    #[error("price rule uses `{observed}`, needed only {}", NAMES.join(", "))]
    Unknown {
        /// Which.
        observed: String,
    },
    /// It asks for what nobody has seen.
    #[error("price rule needs the buyer's rating, which is ?: needed `rated && …` before it")]
    Unrated,
    /// It cannot be computed now.
    #[error("price rule cannot be computed: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// It answers something that is no amount.
    #[error("price rule answers {observed}, needed a text such as \"0.02\", a whole number or micro(20000)")]
    Answer {
        /// The beginning of what it answers.
        observed: String,
    },
    /// It answers an amount that is none.
    #[error("price rule: {0}")]
    Amount(#[from] MoneyError),
}

impl Rate {
    /// Returns the rate that a text says.
    ///
    /// # Errors
    /// [`RateError`] if it is neither a decimal nor a rule over the known names.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        if text.len() > RULE_LENGTH_MAX {
            return Err(RateError::TooLong { observed: text.len() });
        }
        if let Ok(fixed) = Decimal::parse(text.trim()) {
            return Ok(Self::Fixed(fixed));
        }
        let signs =
            text.bytes().filter(|byte| byte.is_ascii_punctuation() && !matches!(byte, b'_' | b'"' | b'\'')).count();
        if signs > RULE_SIGNS_MAX {
            return Err(RateError::TooDeep);
        }
        let rule = compiled(text)?;
        check_plain(&rule, RULE_DEPTH_MAX)?;
        let references = rule.references();
        match references.variables().iter().find(|name| !NAMES.contains(name)) {
            Some(unknown) => Err(RateError::Unknown { observed: cut(unknown) }),
            None => Ok(Self::Rule(text.into())),
        }
    }

    /// Returns how much is wanted in a situation.
    ///
    /// # Errors
    /// [`RateError`] if the rule cannot be computed or answers no amount.
    pub fn at(&self, situation: &Situation) -> Result<Decimal, RateError> {
        let text = match self {
            Self::Fixed(amount) => return Ok(*amount),
            Self::Rule(text) => text,
        };
        let failed = |error: &dyn std::fmt::Display| RateError::Failed { reason: cut(&error.to_string()) };
        let rule = compiled(text)?;
        let date = Offset::UTC.to_datetime(situation.now);
        let contracts = i64::try_from(situation.contracts).unwrap_or(i64::MAX);
        let numbers = [
            ("utilisation", i64::from(situation.utilisation)),
            ("hour", i64::from(date.hour())),
            ("weekday", i64::from(date.date().weekday().to_monday_one_offset())),
            ("month", i64::from(date.month())),
            ("contracts", contracts),
        ];
        let mut context = Context::default();
        for (name, number) in numbers {
            context.add_variable_from_value(name, number);
        }
        context.add_variable_from_value("buyer", situation.buyer.to_owned());
        context.add_variable_from_value("rated", situation.rating.is_some());
        if let Some(rating) = situation.rating {
            context.add_variable_from_value("rating", i64::from(rating));
        }
        context.add_function("micro", |millionths: i64| Arc::new(micro(millionths))).map_err(|error| failed(&error))?;
        let value = Value::resolve(&rule, &context).map_err(|error| match error {
            // A name that is known and has no value now.
            cel::ExecutionError::UndeclaredReference(name) if name.as_str() == "rating" => RateError::Unrated,
            error => failed(&error),
        })?;
        match value {
            Value::String(text) => Ok(Decimal::parse(&text)?),
            Value::Int(whole) => Ok(Decimal::parse(&whole.to_string())?),
            Value::UInt(whole) => Ok(Decimal::parse(&whole.to_string())?),
            other => Err(RateError::Answer { observed: cut(&format!("{other:?}")) }),
        }
    }
}

/// Parsed each time: the guard of the wire lets few requests pass. With the parser that needs the least stack.
fn compiled(text: &str) -> Result<Expression, RateError> {
    PrattParser::new().parse(text).map_err(|error| RateError::Syntax { reason: cut(&error.to_string()) })
}

/// Checks that an expression has at most so many levels, and nothing that repeats or looks into something.
fn check_plain(expression: &Expression, levels: usize) -> Result<(), RateError> {
    let below = levels.checked_sub(1).ok_or(RateError::TooDeep)?;
    match &expression.expr {
        Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        Expr::Call(call) => {
            let target = call.target.iter().map(AsRef::as_ref);
            target.chain(&call.args).try_for_each(|part| check_plain(part, below))
        }
        _ => Err(RateError::NotPlain),
    }
}

fn micro(millionths: i64) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    let magnitude = millionths.unsigned_abs();
    format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000)
}

fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    const BUSY: Situation<'static> = Situation {
        utilisation: 85,
        now: Timestamp::UNIX_EPOCH,
        buyer: "did:key:zBuyer",
        contracts: 2,
        rating: Some(90),
    };

    fn answer(rule: &str) -> String {
        let rate = Rate::parse(rule).and_then(|rate| rate.at(&BUSY));
        rate.map_or_else(|error| error.to_string(), |amount| amount.to_string())
    }

    #[test]
    fn a_rule_sees_the_moment_and_answers_an_exact_amount() {
        for (rule, expected) in [
            ("0.02", "0.02"),
            (" 3 ", "3"),
            (r#"utilisation > 80 ? "0.03" : "0.02""#, "0.03"),
            ("micro(20000 + 200 * utilisation)", "0.037"),
            ("hour >= 22 || hour < 6 ? micro(10000) : micro(20000)", "0.01"),
            // The first of January 1970 was a Thursday.
            ("weekday == 4 && month == 1 ? 1 : 2", "1"),
            (r#"buyer == "did:key:zBuyer" ? 0 : 1"#, "0"),
            (r#"contracts > 1 ? "0.018" : "0.02""#, "0.018"),
            ("2u", "2"),
            (r#"rated && rating >= 90 ? "0.018" : "0.02""#, "0.018"),
            ("micro(20000 - 100 * rating)", "0.011"),
        ] {
            assert_eq!(answer(rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_rating_that_nobody_knows_is_no_number() {
        let unknown = Situation { rating: None, ..BUSY };
        let answer = |rule: &str| Rate::parse(rule).unwrap().at(&unknown).map(|amount| amount.to_string());
        assert_eq!(answer(r#"rated && rating >= 90 ? "0.018" : "0.02""#), Ok("0.02".into()));
        assert_eq!(answer(r#"rated ? micro(100 * rating) : micro(20000)"#), Ok("0.02".into()));
        for rule in [r#"rating >= 90 ? "0.018" : "0.02""#, "micro(100 * rating)", "0 * rating"] {
            assert_eq!(answer(rule), Err(RateError::Unrated), "{rule}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused_with_what_it_needs() {
        for (rule, expected) in [
            ("0.02 * 2.0", "price rule answers Float(0.04), needed a text"),
            ("1 > 0", "price rule answers Bool(true), needed a text"),
            ("micro(-1)", "amount is `-0.000001`, needed a decimal"),
            ("-5", "amount is `-5`, needed a decimal"),
            (r#""cheap""#, "amount is `cheap`, needed a decimal"),
            ("1 / 0", "price rule cannot be computed"),
            ("9223372036854775807 + utilisation", "price rule cannot be computed"),
            ("price * 2", "price rule uses `price`, needed only utilisation"),
            ("[1, 2].map(x, x * 2).size()", "price rule uses lists"),
            ("micro(", "price rule is no decimal and no CEL expression"),
            ("", "price rule is no decimal and no CEL expression"),
            ("nothing(1)", "price rule cannot be computed"),
            (&"(".repeat(250), "price rule is nested too deeply"),
            (&format!("{}1", "-".repeat(65)), "price rule is nested too deeply"),
            (&format!("{}1", "1+".repeat(12)), "price rule is nested too deeply"),
            ("buyer.size", "price rule uses lists"),
            (&"1+".repeat(300), "price rule has 600 bytes, needed at most 512"),
        ] {
            let observed = answer(rule);
            assert!(observed.contains(expected), "{rule}: {observed}");
        }
    }

    #[test]
    fn the_deepest_rule_fits_on_the_stack_of_a_thread() {
        for (rule, expected) in [
            (format!("{}1{}", "(1+".repeat(11), ")".repeat(11)), "12"),
            (format!("{}1", "1+".repeat(11)), "12"),
            (format!("{}1", "true ? 1 : ".repeat(11)), "1"),
            (format!("{}true", "!".repeat(11)), "price rule answers Bool(false)"),
            (format!("{}1{}", "(1+".repeat(21), ")".repeat(21)), "nested too deeply"),
            (format!("{}1", "1+".repeat(64)), "nested too deeply"),
            (format!("{}1", "true ? 1 : ".repeat(32)), "nested too deeply"),
            (format!("{}1", "[".repeat(64)), "price rule is no decimal"),
            (format!("buyer{}", ".x".repeat(64)), "price rule uses lists"),
        ] {
            // Half of what a thread of the runtime has.
            let small = std::thread::Builder::new().stack_size(1 << 20);
            let observed = small.spawn(move || (answer(&rule), rule)).unwrap().join().unwrap();
            assert!(observed.0.contains(expected), "{observed:?}");
        }
    }
}
