use super::*;
use crate::data::json;

const FILES: [(&str, &str); 5] = [
    ("part.mako", "[${host.name}]\n"),
    ("args.mako", "<%page args=\"a, b=2\"/>${a}+${b}"),
    ("lib.mako", "<%! BASE = 10 %>\n<%def name=\"twice(x)\">${x * 2}</%def>\n<%def name=\"add(x)\">${x + BASE}</%def>"),
    ("self.mako", "x<%include file=\"self.mako\"/>"),
    ("wrong.mako", "fine\n${nothing}\n"),
];

fn find(name: &str) -> Result<(String, String), String> {
    let found = FILES.iter().find(|(file, _)| *file == name);
    found.map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).ok_or_else(|| format!("there is no file `{name}`"))
}

fn rendered(text: &str) -> Result<String, Box<Diagnostic>> {
    let context = json::parse(
        r#"{"component":{"port":80,"none":null,"names":["a","b"],"table":{"x":1,"y":2}},"host":{"name":"web1"},"greeting":"<hi>"}"#,
    );
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(super::super::STACK_BYTES);
        let context = context.unwrap();
        thread.spawn_scoped(scope, move || render("t.mako", text, &context, &find)).unwrap().join().unwrap()
    })
}

/// The texts on the right are those of Mako 1.4 with the same values.
#[test]
fn like_mako() {
    for (text, expected) in [
        ("", ""),
        ("plain $ { } <b> 100%\n", "plain $ { } <b> 100%\n"),
        ("port = ${component.port}, ${ host.name }\n", "port = 80, web1\n"),
        ("% for name in component.names:\n  - ${name}\n% endfor\nend", "  - a\n  - b\nend"),
        ("  % if component.port == 80:\nyes\n  % elif component.port:\nother\n% else:\nno\n% endif\n", "yes\n"),
        ("% if not component.names:\nno\n% endif\n", ""),
        ("## a comment\n  ## another\na ## none\n", "a ## none\n"),
        ("%% not control\n  %%x\n", "% not control\n  %x\n"),
        ("one \\\ntwo\\\n\nthree", "one two\nthree"),
        ("<%doc>\n nothing\n</%doc>a<%text>${b} % c</%text>", "a${b} % c"),
        ("<%\n    x = 1\n    if x:\n        y = 'z'\n%>${x}${y}", "1z"),
        ("<% x = [n.upper() for n in component.names] %>${', '.join(x)}", "A, B"),
        ("<%! LIMIT = 5 %>${LIMIT}", "5"),
        ("<%def name=\"line(a, b=2)\">${a}=${b}\n</%def>${line(1)}${line(3, b=4)}", "1=2\n3=4\n"),
        ("${later()}<%def name=\"later()\">works</%def>", "works"),
        ("<%def name=\"outer()\"><%def name=\"inner()\">i</%def>o${inner()}</%def>${outer()}", "oi"),
        ("<%def name=\"loud(x)\" filter=\"trim\">  ${x}  </%def>[${loud('a')}]", "[a]"),
        ("${capture(f, 1).strip()}<%def name=\"f(x)\"> ${x} </%def>", "1"),
        ("a<%include file=\"part.mako\"/>b", "a[web1]\nb"),
        ("<%include file=\"args.mako\" args=\"a=1\"/>", "1+2"),
        ("<%namespace name=\"lib\" file=\"lib.mako\"/>${lib.twice(4)} ${lib.add(1)}", "8 11"),
        ("<%namespace file=\"lib.mako\" import=\"twice, add\"/>${twice(2)}${add(2)}", "412"),
        ("${greeting | h}${greeting | h,trim}", "&lt;hi&gt;&lt;hi&gt;"),
        ("${'a b/c' | u}", "a+b%2Fc"),
        ("<%page expression_filter=\"h\"/>${greeting}${greeting | n}", "&lt;hi&gt;<hi>"),
        ("${{'a': 1}['a']}${'}' + \"|\"}", "1}|"),
        ("% for k, v in sorted(component.table.items()):\n${k}${v}${'' if loop.last else ','}\\\n% endfor\n", "x1,y2"),
        (
            "% for a in [1, 2]:\n% for b in [3, 4]:\n${loop.parent.index}${loop.index}${a}${b} \\\n% endfor\n${loop.index};\\\n% endfor\n",
            "0013 0114 0;1023 1124 1;",
        ),
        ("% for x in [1, 2, 3]:\n<% if x == 2: break %>\\\n${x}\n% endfor\n", "1\n"),
        ("<%block name=\"head\">h</%block><%block filter=\"trim\"> t </%block>", "ht"),
        ("% if component.none is None and component.port is not None:\nok\n% endif\n", "ok\n"),
        ("% if 2 in [1, \\\n    2]:\ny\n% endif\n", "y\n"),
        ("${context.get('nothing', 'other')}", "other"),
        ("${component.names | to_json}${'a b' | quote}${b64encode('x')}", "[\"a\",\"b\"]'a b'eA=="),
        ("line\r\n% if True:\r\nx\r\n% endif\r\ny", "line\r\nx\r\ny"),
    ] {
        match rendered(text) {
            Ok(found) => assert_eq!(found, expected, "{text}"),
            Err(error) => panic!("{text}\n{error:#?}"),
        }
    }
}

#[test]
fn what_is_wrong_has_a_place_in_the_template() {
    let deep = "% if 1:\n".repeat(40);
    for (text, expected) in [
        ("a\n${component.prot}\n", "E0606 t.mako:2:3 object of type `struct` has no attribute `prot`"),
        ("a\n\n  ${  nothing }", "E0601 t.mako:3:7 template variable `nothing` not found"),
        ("x\n% for a in 5:\n% endfor\n", "E0606 t.mako:2:"),
        ("${component.none}", "E0607 t.mako:1:3 this is None, not a text"),
        ("a\n<%\n  x = 1\n  y = x +\n%>", "E0602 t.mako:"),
        ("a\n<%\n  x = 1\n  y = x + 'a'\n%>", "E0606 t.mako:4:7 "),
        ("${'a' + 1}", "E0606 t.mako:1:3 "),
        ("a\n ${x", "E0602 t.mako:2:2 this `${` is not closed"),
        ("<% x", "E0602 t.mako:1:1 this `<%` is not closed by `%>`"),
        ("<%def name=\"f()\">", "E0602 t.mako:1:1 `<%def>` is not closed by `</%def>`"),
        ("% if 1:\n</%def>", "E0602 t.mako:2:1 `</%def>` stands where `% if 1:` is open"),
        ("% for x in y:\n% endif\n", "E0602 t.mako:2:3 `% endif` stands where `% for x in y:` is open"),
        ("% while True:\n% endwhile\n", "E0602 t.mako:1:3 `% while` does not exist"),
        ("% of all\n", "E0602 t.mako:1:3 `% of` is no control line"),
        ("<%inherit file=\"x\"/>", "E0602 t.mako:1:1 `<%inherit>` is not available"),
        ("<%include file=\"no.mako\"/>", "E0604 t.mako:1:17 there is no file `no.mako`"),
        ("<%include file=\"wrong.mako\"/>", "E0601 wrong.mako:2:3 template variable `nothing` not found"),
        ("<%include file=\"self.mako\"/>", "E0605 t.mako:1:1 calls are nested too deeply"),
        ("${'a' | nofilter}", "E0601 t.mako:1:"),
        ("${b64decode('x')}", "E0606 t.mako:1:3 `b64decode` found no base64"),
        ("% for a in range(100000):\n% for b in range(100000):\n% endfor\n% endfor\n", "E0605 t.mako:"),
        (deep.as_str(), "E0602 t.mako:33:3 this is nested too deeply"),
    ] {
        let diagnostic = rendered(text).expect_err(text);
        let said = format!("{} {} {}", diagnostic.code, diagnostic.location.as_ref().unwrap(), diagnostic.message);
        assert!(said.starts_with(expected), "{text}\n{said}\nexpected {expected}");
    }
}

#[test]
fn what_is_given_is_bounded() {
    let diagnostic = rendered("% for a in range(100000):\n${'a' * 1000000}\n% endfor\n").unwrap_err();
    assert_eq!((diagnostic.code, diagnostic.message.as_str()), ("E0605", "rendering gives more than 64 MiB"));
}
