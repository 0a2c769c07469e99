use super::super::data::json;
use super::*;

#[track_caller]
fn check(name: &str, arguments: &str, expected: Result<&str, &str>) {
    let Data::List(values) = json::parse(arguments).unwrap() else { panic!("{arguments}") };
    let result = find(name).unwrap().apply(&Arguments { values, named: BTreeMap::new() });
    assert_eq!(result.map(|data| data.to_canonical_json()), expected.map(str::to_owned).map_err(str::to_owned), "{name} {arguments}");
}

#[test]
fn the_table_is_sorted() {
    assert!(FILTERS.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn texts() {
    for text in ["", "a", "ab", "abc", "Straße"] {
        let encoded = find("b64encode").unwrap().apply(&Arguments { values: vec![Data::Text(text.to_owned())], ..Arguments::default() });
        let decoded = find("b64decode").unwrap().apply(&Arguments { values: vec![encoded.unwrap()], ..Arguments::default() });
        assert_eq!(decoded, Ok(Data::Text(text.to_owned())));
    }
    for (name, arguments, expected) in [
        ("b64encode", r#"["ab"]"#, Ok(r#""YWI=""#)),
        ("b64decode", r#"["YWI"]"#, Err("found no base64")),
        ("b64decode", r#"["/w=="]"#, Err("found base64 of bytes that are no text")),
        ("basename", r#"["/a/b.c"]"#, Ok(r#""b.c""#)),
        ("dirname", r#"["/b.c"]"#, Ok(r#""/""#)),
        ("splitext", r#"["a.d/.b"]"#, Ok(r#"["a.d/.b",""]"#)),
        ("splitext", r#"["b.tar.gz"]"#, Ok(r#"["b.tar",".gz"]"#)),
        ("comment", r#"["a\n\nb"]"#, Ok(r##""# a\n#\n# b""##)),
        ("comment", r#"["a", "; "]"#, Ok(r#""; a""#)),
        ("quote", r#"["it's"]"#, Ok(r#""'it'\"'\"'s'""#)),
        ("quote", r#"["/a-b"]"#, Ok(r#""/a-b""#)),
        ("quote", r#"[""]"#, Ok(r#""''""#)),
        ("quote", "[[1]]", Err("wants a text, not list")),
        ("sha256", r#"["a"]"#, Ok(r#""ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb""#)),
        ("urlencode", r#"["a b/ü"]"#, Ok(r#""a%20b/%C3%BC""#)),
        ("urlencode", r#"[{"a":"/","b":1}]"#, Ok(r#""a=%2F&b=1""#)),
        ("regex_replace", r#"["a1b2", "([a-z])(\\d)", "\\2$1"]"#, Ok(r#""1a2b""#)),
        ("regex_replace", r#"["a", "(", ""]"#, Err("cannot use the pattern `(`; it knows neither look-around nor backreferences")),
        ("regex_search", r#"["a12", "\\d+"]"#, Ok(r#""12""#)),
        ("regex_search", r#"["a", "\\d+"]"#, Ok("null")),
        ("regex_findall", r#"["a1b2", "\\d"]"#, Ok(r#"["1","2"]"#)),
        ("regex_search", r#"["a", "(?:a{1000}){1000}"]"#, Err("found the pattern `(?:a{1000}){1000}` too large")),
        ("regex_escape", r#"["a.b"]"#, Ok(r#""a\\.b""#)),
        ("b64encode", r#"["a", 1]"#, Err("takes at most 0 arguments")),
    ] {
        check(name, arguments, expected);
    }
    let long = Arguments {
        values: vec![Data::Text("a".repeat(1 << 20)), Data::Text("a".to_owned()), Data::Text("b".repeat(20))],
        ..Arguments::default()
    };
    assert_eq!(find("regex_replace").unwrap().apply(&long), Err("would give more than 16 MiB".to_owned()));
}

#[test]
fn values() {
    for (name, arguments, expected) in [
        ("to_json", r#"[{"b":1,"a":[true,null]}]"#, Ok(r#""{\"b\":1,\"a\":[true,null]}""#)),
        ("to_json", "[[1], 2]", Ok(r#""[\n  1\n]""#)),
        ("to_json", "[[1], 99]", Err("wants a number from 0 to 16 for `indent`")),
        ("to_yaml", r#"[{"a":[1]}]"#, Ok(r#""a:\n  - 1\n""#)),
        ("to_toml", r#"[{"a":null}]"#, Err("cannot write this: `a`: TOML has no `None`: leave the key out")),
        ("from_yaml", r#"["a: [1]"]"#, Ok(r#"{"a":[1]}"#)),
        ("from_json", r#"["{"]"#, Err("found no JSON: line 1: EOF while parsing an object")),
        ("combine", r#"[{"a":{"b":1}},{"a":{"c":2}}]"#, Ok(r#"{"a":{"c":2}}"#)),
        ("combine", r#"[{"a":{"b":1}},{"a":{"c":2}},true]"#, Ok(r#"{"a":{"b":1,"c":2}}"#)),
        ("dict2items", r#"[{"a":1}]"#, Ok(r#"[{"key":"a","value":1}]"#)),
        ("items2dict", r#"[[{"key":"a","value":1}]]"#, Ok(r#"{"a":1}"#)),
    ] {
        check(name, arguments, expected);
    }
}

#[test]
fn addresses() {
    for (name, arguments, expected) in [
        ("ipaddr", r#"["192.0.2.7"]"#, Ok(r#""192.0.2.7""#)),
        ("ipaddr", r#"["300.0.2.7"]"#, Ok("false")),
        ("ipaddr", r#"["192.0.2.7/33"]"#, Ok("false")),
        ("ipaddr", r#"["192.0.2.7/24", "network"]"#, Ok(r#""192.0.2.0""#)),
        ("ipaddr", r#"["192.0.2.7/255.255.255.0", "prefix"]"#, Ok("24")),
        ("ipaddr", r#"["192.0.2.7/24", "netmask"]"#, Ok(r#""255.255.255.0""#)),
        ("ipaddr", r#"["192.0.2.7/24", "broadcast"]"#, Ok(r#""192.0.2.255""#)),
        ("ipaddr", r#"["192.0.2.7/24", "cidr"]"#, Ok(r#""192.0.2.0/24""#)),
        ("ipaddr", r#"["192.0.2.7/24", 1]"#, Ok(r#""192.0.2.1/24""#)),
        ("ipaddr", r#"["192.0.2.7/24", -1]"#, Ok(r#""192.0.2.255/24""#)),
        ("ipaddr", r#"["192.0.2.7/24", 256]"#, Err("finds no address number 256 in `192.0.2.7/24`")),
        ("ipaddr", r#"["2001:db8::7/64", "network"]"#, Ok(r#""2001:db8::""#)),
        ("ipaddr", r#"["2001:db8::7/0", "cidr"]"#, Ok(r#""::/0""#)),
        ("ipaddr", r#"["::1", "version"]"#, Ok("6")),
        ("ipaddr", r#"[["a", "::1"]]"#, Ok(r#"["::1"]"#)),
        ("ipaddr", r#"["::1", "owner"]"#, Err("does not know the query `owner`")),
        ("ipv4", r#"[["192.0.2.7", "::1", 5]]"#, Ok(r#"["192.0.2.7"]"#)),
        ("ipv6", r#"["192.0.2.7"]"#, Ok("false")),
        ("ipwrap", r#"["::1"]"#, Ok(r#""[::1]""#)),
        ("ipwrap", r#"["www.example.net"]"#, Ok(r#""www.example.net""#)),
    ] {
        check(name, arguments, expected);
    }
}
