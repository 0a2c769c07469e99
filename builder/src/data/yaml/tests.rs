use proptest::prelude::*;

use super::super::json;
use super::*;

#[test]
fn written_for_people_and_for_every_reader() {
    let data = json::parse(
        r#"{"name":"shop","port":8080,"ratio":0.5,"big":1e21,"yes":"yes","Norway":"no","octal":"0755","time":"12:30","day":"2024-01-01",
            "empty":"","list":[1,"a b",[],{"x":1,"y":[2,3]},[4,5]],"none":null,"deep":{"on":true,"dict":{}},
            "text":"one\n  two\n\nthree\n","rest":"a\nb","more":"a\n\n","blank":" a\nb","ip":"192.0.2.1","url":"http://x:80/y","colon":"a: b",
            "quote":"it's","escape":"a\u0007\"b\u2028","tag":"!x","hash":"a #b"}"#,
    )
    .unwrap();
    let expected = "name: shop\nport: 8080\nratio: 0.5\nbig: 1.0e+21\n'yes': 'yes'\nNorway: 'no'\noctal: '0755'\ntime: '12:30'\n\
        day: '2024-01-01'\nempty: ''\nlist:\n  - 1\n  - a b\n  - []\n  - x: 1\n    'y':\n      - 2\n      - 3\n  - - 4\n    - 5\nnone: null\n\
        deep:\n  'on': true\n  dict: {}\ntext: |\n  one\n    two\n\n  three\nrest: |-\n  a\n  b\nmore: |+\n  a\n\nblank: \" a\\nb\"\n\
        ip: '192.0.2.1'\nurl: http://x:80/y\ncolon: 'a: b'\nquote: 'it''s'\nescape: \"a\\u0007\\\"b\\u2028\"\ntag: '!x'\nhash: 'a #b'\n";
    assert_eq!(write(&data), expected);
    assert_eq!(parse(expected).unwrap(), data);
}

#[test]
fn read_by_the_core_schema() {
    for (text, expected) in [
        ("", "null"),
        (
            "a: yes\nb: ~\nc: 0x1f\nd: 0o17\ne: 017\nf: -1.5e3\ng: '1'\nh: !!str 1\n",
            r#"{"a":"yes","b":null,"c":31,"d":15,"e":17,"f":-1500.0,"g":"1","h":"1"}"#,
        ),
        ("a: &x {p: 1, q: 2}\nb: *x\nc:\n  <<: *x\n  q: 3\n", r#"{"a":{"p":1,"q":2},"b":{"p":1,"q":2},"c":{"p":1,"q":3}}"#),
        ("- a\n- [b, {c: d}]\n- >\n  folded\n  text\n", r#"["a",["b",{"c":"d"}],"folded text\n"]"#),
        ("\u{feff}1: x\ntrue: y\n", r#"{"1":"x","true":"y"}"#),
    ] {
        assert_eq!(parse(text).unwrap().to_canonical_json(), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_has_a_place() {
    let deep = "[".repeat(70);
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let names = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{text}a{level}: &a{level} [{names}]\n")
    });
    for (text, expected) in [
        ("a: 1\nb: [1\nc: 2\n", "3:2 illegal placement of ':' indicator"),
        ("a: 1\na: 2\n", "2:1 the key `a` stands twice"),
        ("a: !secret x\n", "1:4 the tag `!secret` is not known"),
        ("a\n---\nb\n", "2:1 a second document: one file holds one value"),
        ("a: .inf\n", "1:4 a float that is no number"),
        ("[1]: 2\n", "1:3 a key that is no text"),
        (deep.as_str(), "1:65 nested too deeply"),
        (bomb.as_str(), "7:"),
    ] {
        let error = parse(text).unwrap_err();
        let said = format!("{}:{} {}", error.line, error.column, error.message);
        assert!(said.starts_with(expected), "{said}, expected {expected}");
    }
}

fn data() -> impl Strategy<Value = Data> {
    let text = prop_oneof![".*", "[ -~\n]{0,20}", "(yes|no|~|null|0x1|1e3|-|---|a:|- a|#|\\? x|\n a|a\n|<<)"];
    let leaf = prop_oneof![
        Just(Data::None),
        any::<bool>().prop_map(Data::Bool),
        any::<i64>().prop_map(Data::Int),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Data::Float),
        text.prop_map(Data::Text),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Data::List),
            prop::collection::btree_map("[^<]*", inner, 0..5).prop_map(|entries| Data::Dict(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(data in data()) {
        let text = write(&data);
        prop_assert_eq!(parse(&text), Ok(data), "{}", text);
    }
}
