//! Named formats of texts: `format.dns1123Label().validate(x)` is absent, or says what is wrong.

use super::super::evaluate::no_overload;
use super::super::fail;
use super::super::value::Value;
use super::{Row, net, some};
use crate::kinds::{NameRule, is_label_value, is_qualified_name};

const NAMES: [&str; 12] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
    "ipv4",
    "ipv6",
];

pub(super) const TABLE: &[Row] = &[
    ("format.named", 1, 1, |_, a| match &a[0] {
        Value::Text(name) => Ok(NAMES
            .iter()
            .find(|known| ***known == **name)
            .map_or(Value::Optional(None), |known| some(Value::Format(known)))),
        _ => no_overload(),
    }),
    ("format.dns1123Label", 0, 0, |_, _| Ok(Value::Format("dns1123Label"))),
    ("format.dns1123Subdomain", 0, 0, |_, _| Ok(Value::Format("dns1123Subdomain"))),
    ("format.dns1035Label", 0, 0, |_, _| Ok(Value::Format("dns1035Label"))),
    ("format.qualifiedName", 0, 0, |_, _| Ok(Value::Format("qualifiedName"))),
    ("format.labelValue", 0, 0, |_, _| Ok(Value::Format("labelValue"))),
    ("format.uri", 0, 0, |_, _| Ok(Value::Format("uri"))),
    ("format.uuid", 0, 0, |_, _| Ok(Value::Format("uuid"))),
    ("format.byte", 0, 0, |_, _| Ok(Value::Format("byte"))),
    ("format.date", 0, 0, |_, _| Ok(Value::Format("date"))),
    ("format.datetime", 0, 0, |_, _| Ok(Value::Format("datetime"))),
    (".validate", 1, 1, |_, a| match a {
        [Value::Format(name), Value::Text(text)] => {
            let wrong = judge(name, text);
            let wrong: Vec<Value<'_>> = wrong.into_iter().map(Value::text).collect();
            Ok(if wrong.is_empty() { Value::Optional(None) } else { some(Value::list(wrong)) })
        }
        [Value::Format(_), _] => fail("no such overload"),
        _ => no_overload(),
    }),
];

fn judge(name: &str, text: &str) -> Vec<String> {
    let fits = match name {
        "dns1123Label" => return NameRule::Label.judge(text),
        "dns1123Subdomain" => return NameRule::Subdomain.judge(text),
        "dns1035Label" => return NameRule::Dns1035.judge(text),
        "qualifiedName" => is_qualified_name(text),
        "labelValue" => is_label_value(text),
        "uri" => url::Url::parse(text).is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "byte" => base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        _ => net::ip(text).is_some_and(|ip| ip.is_ipv4() == (name == "ipv4")),
    };
    if fits { Vec::new() } else { vec![format!("invalid {name}")] }
}
