#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use serde_json::json;

use super::{Budget, CALL, Program, Value};

/// What an expression over `self` comes to, or says.
fn said(text: &str) -> String {
    let object = json!({
        "n": 3, "half": 0.5, "name": "web-1", "on": true, "none": null, "list": [3, 1, 2], "texts": ["a", "b"],
        "map": {"a": 1, "b": 2}, "dash-ed": 7, "namespace": "x", "items": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
    });
    let run = |program: Program| {
        program
            .run(&[("self", Value::of(&object, None))], &mut Budget::default())
            .map(|v| shown(&v))
            .unwrap_or_else(|e| e.to_string())
    };
    Program::compile(text, &["self"]).map_or_else(|why| why, run)
}

fn shown(value: &Value<'_>) -> String {
    match (value.items(), value) {
        (Some(items), _) => format!("[{}]", items.iter().map(|item| shown(&item)).collect::<Vec<_>>().join(" ")),
        (_, Value::Optional(inner)) => inner.as_ref().map_or("none".into(), |inner| format!("some {}", shown(inner))),
        _ => super::functions::shown(value),
    }
}

#[test]
fn the_language() {
    for (text, expected) in [
        ("1 + 2 * 3 == 7 && !(5 % 3 == 1)", "true"),
        ("self.n > 2 ? 'big' : 'small'", "big"),
        ("self.n == 3.0 && self.n < 3.5 && 2u < 3", "true"),
        ("has(self.n) && !has(self.x) && has(self.none)", "true"),
        ("self.x == 1", "no such key: x"),
        ("self.x == 1 || self.on", "true"),
        ("self.x == 1 && false", "false"),
        ("self.on && self.x == 1", "no such key: x"),
        ("self.list[1] + self.list[-1]", "index out of bounds: -1"),
        ("1 in self.list && 'a' in self.map && !(4 in self.list)", "true"),
        ("self.list.map(x, x * 2)", "[6 2 4]"),
        ("self.list.filter(x, x > 1).map(x, x > 2, x + 1)", "[4]"),
        ("self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 2)", "true"),
        ("self.list.all(x, x > 1 || x / 0 > 1)", "division by zero"),
        ("self.list.exists(x, x / 0 > 1 || x == 2)", "true"),
        ("self.map.all(k, self.map[k] > 0) && self.map.exists(k, v, k == 'b' && v == 2)", "true"),
        ("self.list.all(i, x, i < 3)", "true"),
        ("self.items.exists(i, i.k == 'b' && i.v == 2)", "true"),
        ("[1, 2] + [3] == [1, 2, 3] && {'a': 1} == {'a': 1.0}", "true"),
        ("self.__namespace__ + string(self.dash__dash__ed)", "x7"),
        ("self.`dash-ed` == 7", "true"),
        ("self.?x.orValue(5) + self.?n.orValue(0)", "8"),
        ("self.?map.?a.optMap(v, v + 1)", "some 2"),
        ("self.?x.?y.hasValue() || optional.none().hasValue()", "false"),
        ("[1, ?self.?x, ?self.?n]", "[1 3]"),
        ("self.list[?5].orValue(9)", "9"),
        ("type(1) == int && type('a') == string && type(self.list) == list", "true"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1 + 'a'", "no such overload"),
        ("self.half / 2.0 == 0.25 && -self.n == -3", "true"),
        ("b'ab' + b'c' == bytes('abc') && size(b'abc') == 3", "true"),
    ] {
        assert_eq!(said(text), expected, "{text}");
    }
}

#[test]
fn functions() {
    for (text, expected) in [
        ("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true"),
        ("self.name.matches('^[a-z]+-[0-9]$') && matches('a', '.')", "true"),
        ("'a1b22'.find('[0-9]+') + '|' + 'a1b22'.findAll('[0-9]+').join('|')", "1|1|22"),
        ("'a1b22'.findAll('[0-9]+', 1)", "[1]"),
        ("'ä-B'.lowerAscii() + 'ä-b'.upperAscii() + ' x '.trim() + 'ab'.reverse()", "ä-bä-Bxba"),
        ("'hello'.substring(1, 3) + 'hello'.substring(3) + 'hello'.charAt(1)", "elloe"),
        ("'hello'.substring(4, 9)", "index out of range: 4"),
        ("'a,b,c'.split(',', 2)", "[a b,c]"),
        ("'a,b'.split(',') + 'ab'.split('')", "[a b a b]"),
        ("'aaa'.replace('a', 'b', 2) + string('hello'.indexOf('l')) + string('hello'.lastIndexOf('l'))", "bba23"),
        ("'%s is %d of %.2f, %x%%'.format(['a', 1, 2.0, 255])", "a is 1 of 2.00, ff%"),
        ("'%s'.format([[1, {'a': null}]])", "[1, {a: null}]"),
        ("size('äb') + 'äb'.size() + size(self.list)", "7"),
        ("self.list.sum() + self.list.min() + self.list.max()", "10"),
        (
            "[1, 2, 2].isSorted() && !self.list.isSorted() && [1, 2, 1].lastIndexOf(1) == 2 && self.list.indexOf(9) == -1",
            "true",
        ),
        (
            "sets.contains(self.list, [1, 2]) && sets.equivalent([1, 1, 2], [2, 1]) && !sets.intersects([1], [2])",
            "true",
        ),
        ("int('12') + int(3.9) + int(2u)", "17"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("string(1) + string(true) + string(1.5) + string(b'x')", "1true1.5x"),
        (
            "quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('1').add(quantity('500m')).compareTo(quantity('1500m')) == 0",
            "true",
        ),
        ("isQuantity('1Xi') || quantity('50k').asInteger() != 50000 || quantity('-1').sign() != -1", "false"),
        (
            "url('https://a.io:80/p?x=1&x=2').getHost() + url('https://a.io:80/p?x=1&x=2').getQuery()['x'][1]",
            "a.io:802",
        ),
        ("isURL('/p') && !isURL('p') && url('/p/q').getEscapedPath() == '/p/q' && url('/p').getHost() == ''", "true"),
        (
            "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP('::ffff:1.2.3.4')",
            "true",
        ),
        (
            "cidr('10.1.0.0/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && ip.isCanonical('::1')",
            "true",
        ),
        (
            "timestamp('2024-05-06T07:08:09Z').getHours('+02:00') == 9 && timestamp('2024-05-06T00:00:00Z').getDayOfWeek() == 1",
            "true",
        ),
        ("timestamp('2024-05-06T07:00:00Z') - timestamp('2024-05-06T06:00:00Z') == duration('1h')", "true"),
        (
            "string(duration('1m1.5s')) + string(timestamp('2024-01-01T00:00:00Z') + duration('36h'))",
            "61.5s2024-01-02T12:00:00Z",
        ),
        (
            "format.dns1123Label().validate('a-b').hasValue() || !format.named('uuid').value().validate('x').hasValue()",
            "false",
        ),
        ("self.list.map(x, string(x)).join('') + ['a'].join()", "312a"),
    ] {
        assert_eq!(said(text), expected, "{text}");
    }
}

#[test]
fn what_is_not_known_is_refused_before_it_runs() {
    for (text, expected) in [
        ("other == 1", "undeclared reference to 'other'"),
        ("self.list.all(x, y > 1)", "undeclared reference to 'y'"),
        ("self.list.all(x, true) && x", "undeclared reference to 'x'"),
        ("self.list.sortBy(x, x)", "undeclared reference to 'sortBy'"),
        ("authorizer.path('/')", "undeclared reference to 'authorizer'"),
        ("sets.union([1], [2])", "undeclared reference to 'sets.union'"),
        ("'a'.substring()", "found no matching overload for 'substring' applied to 0 arguments"),
        ("self.", "compilation failed: ERROR: <input>:1:"),
        ("Pod{}", "messages cannot be made"),
        ("", "compilation failed"),
    ] {
        let why = Program::compile(text, &["self"]).unwrap_err();
        assert!(why.contains(expected), "{text}: {why}");
    }
    for text in ["1 + 2", "'a'", "[true]", "size('a')"] {
        assert_eq!(Program::compile(text, &[]).unwrap().expect_bool().unwrap_err(), "must evaluate to a bool");
    }
}

#[test]
fn a_hostile_rule_ends_with_its_budget() {
    let numbers: Vec<u32> = (0..1000).collect();
    let object = json!({"list": numbers, "text": "x".repeat(100_000)});
    for text in [
        "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))",
        // An error in every step must not be what keeps it going.
        "self.list.exists(a, self.list.exists(b, self.list.exists(c, a / 0 == 1))) || true",
        "self.list.map(a, self.text + self.text).size() > 0",
        "self.list.all(a, self.text.matches('(x+x+)+y' + string(a)) || true)",
        "self.list.map(a, self.list).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a == a).size() > 0",
        "self.list.all(a, self.text.replace('', self.text).size() > 0)",
        "self.list.all(a, ('%s' + string(a)).format([self.list]).size() > 0)",
        "self.list.all(a, !self.text.contains('y'))",
        "self.list.all(a, sets.equivalent(self.list, self.list))",
    ] {
        let program = Program::compile(text, &["self"]).unwrap();
        let mut budget = Budget::default();
        let answer = program.holds(&[("self", Value::of(&object, None))], &mut budget);
        assert_eq!(
            answer.map_err(|e| e.to_string()),
            Err("operation cancelled: actual cost limit exceeded".into()),
            "{text}"
        );
        assert!(budget.all <= super::OBJECT - CALL, "{text}");
    }
}

#[test]
fn a_rule_without_end_is_refused_and_takes_no_stack() {
    for text in [
        "(".repeat(900) + "1" + &")".repeat(100),
        "[".repeat(1000),
        "self".to_owned() + &".a".repeat(1000),
        "1".to_owned() + &"+1".repeat(1000),
        "1".to_owned() + &"?1:1".repeat(300),
        "{1:".repeat(400),
        "self.a(".repeat(300),
        "x".repeat(20_000),
        "self.all(x, ".repeat(200),
    ] {
        assert!(Program::compile(&text, &["self"]).is_err(), "{}", &text[..40]);
    }
    let deep = "self.l.all(a, ".repeat(18) + "true" + &")".repeat(18);
    let mut object = json!({"l": []});
    for _ in 0..30 {
        object = json!({"l": [object]});
    }
    let program = Program::compile(&deep, &["self"]).unwrap();
    assert!(program.holds(&[("self", Value::of(&object, None))], &mut Budget::default()).unwrap());
    let long = vec!["self.n == 1"; 150].join(" || ");
    assert!(Program::compile(&long, &["self"]).is_ok(), "a list of alternatives is balanced");
}
