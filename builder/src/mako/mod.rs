//! Mako templates, for those who bring them along: translated into Starlark, which evaluates their expressions and blocks.
//!
//! This is the translation, which is pure; `eval/mako.rs` evaluates what comes out. Every template becomes a function: `<%def>`s are
//! functions in it, what is included is another function, and whatever gives text calls `__write`. Each generated line knows the
//! template's line that it comes from, so that errors point there.
//!
//! Left out are `<%inherit>`, `<%call>` and calls with content (`<%self:x>`), buffering, caching, and Python.

mod lexer;
mod source;
mod tree;

use std::collections::BTreeMap;

use lexer::{Code, Tag, Wrong};
pub(crate) use source::Source;
use source::quote;
use tree::Node;

/// The filters that Mako itself has; `n` and `unicode` do nothing here.
const OWN_FILTERS: [&str; 6] = ["h", "x", "u", "entity", "trim", "str"];

/// The most templates that one template may be made of.
const FILES_MAX: usize = 200;

/// How a template is found by the name that another one includes: its path and its text, or why there is none.
pub(crate) type Find<'a> = &'a dyn Fn(&str) -> Result<(String, String), String>;

/// One template file.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path below the project directory, or the name that inline texts have.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A template with all that it includes, as one Starlark module that writes its text.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) source: Source,
    pub(crate) files: Vec<File>,
}

/// What is wrong with a template, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The file's path and text.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) offset: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Whether it is a file that does not exist.
    pub(crate) missing: bool,
}

/// Translates a template. `find` gives the path and text of a template by the name that an `<%include>` has.
pub(crate) fn translate(path: &str, text: &str, is_filter: &dyn Fn(&str) -> bool, find: Find<'_>) -> Result<Program, Box<Fault>> {
    let files = vec![File { path: path.to_owned(), text: text.to_owned() }];
    let mut translator =
        Translator { source: Source::default(), files, is_filter, find, loops: 0, page_filters: Vec::new(), missing: false };
    let mut next = 0;
    while next < translator.files.len() {
        if let Err(Wrong { message, offset, hint }) = translator.file(next) {
            let File { path, text } = translator.files.swap_remove(next);
            return Err(Box::new(Fault { path, text, offset, message, hint, missing: translator.missing }));
        }
        next += 1;
    }
    translator.source.line("__template_0()");
    Ok(Program { source: translator.source, files: translator.files })
}

struct Translator<'a> {
    source: Source,
    files: Vec<File>,
    is_filter: &'a dyn Fn(&str) -> bool,
    find: Find<'a>,
    /// How many loops that are counted are around.
    loops: usize,
    /// What `<%page expression_filter="...">` says.
    page_filters: Vec<Code>,
    missing: bool,
}

fn attribute<'t>(tag: &'t Tag, name: &str) -> Option<&'t Code> {
    tag.attributes.iter().find(|(known, _)| known == name).map(|(_, code)| code)
}

fn required<'t>(tag: &'t Tag, name: &str) -> Result<&'t Code, Wrong> {
    attribute(tag, name).ok_or_else(|| Wrong::new(tag.offset, format!("`<%{}>` has no `{name}`", tag.name)))
}

fn split_filters(code: Option<&Code>) -> Vec<Code> {
    let Some(code) = code else { return Vec::new() };
    code.text.split(',').map(|name| Code { text: name.trim().to_owned(), offset: code.offset }).collect()
}

/// A name that a tag gives to a function or a variable.
fn identifier(code: &Code) -> Result<&str, Wrong> {
    let name = code.text.trim();
    let good = name.chars().enumerate().all(|(index, c)| c == '_' || c.is_ascii_alphabetic() || index > 0 && c.is_ascii_digit());
    if good && !name.is_empty() { Ok(name) } else { Err(Wrong::new(code.offset, format!("`{name}` cannot be a name"))) }
}

/// All tags of that name that do not stand in a `<%def>` of their own.
fn collect<'n>(nodes: &'n [Node], name: &str, found: &mut Vec<(&'n Tag, &'n [Node])>) {
    for node in nodes {
        match node {
            Node::Tag(tag, inner) if tag.name == name => found.push((tag, inner)),
            Node::Tag(tag, inner) if tag.name == "block" => collect(inner, name, found),
            Node::Group(branches) => branches.iter().for_each(|(_, inner)| collect(inner, name, found)),
            Node::Text(_) | Node::Expression { .. } | Node::Block { .. } | Node::Tag(..) => {}
        }
    }
}

impl Translator<'_> {
    /// Writes the functions of one file.
    fn file(&mut self, file: usize) -> Result<(), Wrong> {
        let nodes = tree::parse(&self.files[file].text.clone())?;
        let mut pages = Vec::new();
        collect(&nodes, "page", &mut pages);
        let page = pages.first().map(|(tag, _)| *tag);
        self.page_filters = split_filters(page.and_then(|tag| attribute(tag, "expression_filter")));
        let parameters = page.and_then(|tag| attribute(tag, "args")).cloned().unwrap_or(Code { text: String::new(), offset: 0 });
        self.source.code(file, &format!("def __template_{file}("), &parameters, "):");
        self.function(file, &nodes)?;
        let mut defs = Vec::new();
        collect(&nodes, "def", &mut defs);
        self.source.line(&format!("def __namespace_{file}():"));
        self.begin();
        self.preamble(file, &nodes)?;
        let names = defs.iter().map(|(tag, _)| Ok(required(tag, "name")?.text.split('(').next().unwrap_or_default().trim().to_owned()));
        let names: Vec<String> = names.collect::<Result<_, Wrong>>()?;
        let fields: Vec<String> = names.iter().map(|name| format!("{name} = {name}")).collect();
        self.source.line(&format!("return struct({})", fields.join(", ")));
        self.end();
        Ok(())
    }

    fn begin(&mut self) {
        self.source.indent();
    }

    fn end(&mut self) {
        self.source.outdent();
    }

    /// The body of a function: what its template needs first, then its nodes.
    fn function(&mut self, file: usize, nodes: &[Node]) -> Result<(), Wrong> {
        self.begin();
        self.preamble(file, nodes)?;
        self.nodes(file, nodes)?;
        self.source.line("return \"\"");
        self.end();
        Ok(())
    }

    /// `<%! %>`, `<%namespace>` and `<%def>`, which can be used before they are written.
    fn preamble(&mut self, file: usize, nodes: &[Node]) -> Result<(), Wrong> {
        for node in nodes {
            if let Node::Block { code, module: true } = node {
                self.source.statements(file, code);
            }
        }
        let mut namespaces = Vec::new();
        collect(nodes, "namespace", &mut namespaces);
        for (tag, _) in namespaces {
            let other = self.reference(required(tag, "file")?)?;
            if let Some(name) = attribute(tag, "name") {
                self.source.line(&format!("{} = __namespace_{other}()", identifier(name)?));
            }
            for name in split_filters(attribute(tag, "import")) {
                let name = identifier(&name)?.to_owned();
                self.source.line(&format!("{name} = __namespace_{other}().{name}"));
            }
        }
        let mut defs = Vec::new();
        collect(nodes, "def", &mut defs);
        for (tag, inner) in defs {
            let name = required(tag, "name")?;
            if !name.text.contains('(') {
                return Err(Wrong::new(name.offset, format!("`{}` has no parentheses", name.text))
                    .hint(format!("write `name=\"{}()\"`", name.text)));
            }
            self.source.code(file, "def ", name, ":");
            self.begin();
            let filters = self.filters(&split_filters(attribute(tag, "filter")));
            if !filters.is_empty() {
                self.source.line("__push()");
            }
            self.preamble(file, inner)?;
            self.nodes(file, inner)?;
            if !filters.is_empty() {
                self.source.line(&format!("__write({})", wrap(&filters, "__pop()")));
            }
            self.source.line("return \"\"");
            self.end();
        }
        Ok(())
    }

    fn nodes(&mut self, file: usize, nodes: &[Node]) -> Result<(), Wrong> {
        for node in nodes {
            match node {
                Node::Text(text) => self.source.line(&format!("__write({})", quote(text))),
                Node::Expression { code, filters } => {
                    let none = filters.iter().any(|filter| filter.text == "n");
                    let mut all = if none { Vec::new() } else { self.page_filters.clone() };
                    all.extend(filters.iter().cloned());
                    let names = self.filters(&all);
                    let open: String = names.iter().rev().fold(String::new(), |open, name| open + name + "(");
                    self.source.code(file, &format!("__write({open}"), code, &format!("{})", ")".repeat(names.len())));
                }
                Node::Block { module: true, .. } => {}
                Node::Block { code, module: false } => self.source.statements(file, code),
                Node::Group(branches) => self.group(file, branches)?,
                Node::Tag(tag, inner) => self.tag(file, tag, inner)?,
            }
        }
        Ok(())
    }

    fn group(&mut self, file: usize, branches: &[(Code, Vec<Node>)]) -> Result<(), Wrong> {
        for (line, inner) in branches {
            let counted = line.text.starts_with("for ") && uses_loop(inner);
            let parts = line.text.strip_prefix("for ").and_then(|rest| rest.split_once(" in ")).filter(|_| counted);
            let Some((target, items)) = parts.and_then(|(target, items)| Some((target, items.trim_end().strip_suffix(':')?))) else {
                self.source.code(file, "", line, "");
                self.inside(file, inner)?;
                continue;
            };
            let outer = if self.loops > 0 { format!("__outer_{}", self.loops) } else { "None".to_owned() };
            if self.loops > 0 {
                self.source.line(&format!("{outer} = loop"));
            }
            let offset = line.offset + "for ".len() + target.len() + " in ".len();
            self.source.code(file, &format!("for loop in __loop({outer}, "), &Code { text: items.to_owned(), offset }, "):");
            self.begin();
            self.source.code(file, "", &Code { text: target.to_owned(), offset: line.offset + "for ".len() }, " = loop.item");
            self.end();
            self.loops += 1;
            let result = self.inside(file, inner);
            self.loops -= 1;
            result?;
            if self.loops > 0 {
                self.source.line(&format!("loop = {outer}"));
            }
        }
        Ok(())
    }

    fn inside(&mut self, file: usize, nodes: &[Node]) -> Result<(), Wrong> {
        self.begin();
        self.source.line("pass");
        self.nodes(file, nodes)?;
        self.end();
        Ok(())
    }

    fn tag(&mut self, file: usize, tag: &Tag, inner: &[Node]) -> Result<(), Wrong> {
        match tag.name.as_str() {
            // Written before.
            "def" | "namespace" | "page" => Ok(()),
            "block" => {
                let filters = self.filters(&split_filters(attribute(tag, "filter")));
                if !filters.is_empty() {
                    self.source.line("__push()");
                }
                self.nodes(file, inner)?;
                if !filters.is_empty() {
                    self.source.line(&format!("__write({})", wrap(&filters, "__pop()")));
                }
                Ok(())
            }
            "include" => {
                let other = self.reference(required(tag, "file")?)?;
                let none = Code { text: String::new(), offset: tag.offset };
                self.source.code(file, &format!("__template_{other}("), attribute(tag, "args").unwrap_or(&none), ")");
                Ok(())
            }
            other => Err(Wrong::new(tag.offset, format!("`<%{other}>` is not available"))
                .hint("there are `<%def>`, `<%include>`, `<%namespace>`, `<%block>`, `<%page>`, `<%text>` and `<%doc>`; `{% extends %}` is for Jinja templates")),
        }
    }

    /// The number of a file that a tag names.
    fn reference(&mut self, name: &Code) -> Result<usize, Wrong> {
        if name.text.contains("${") {
            return Err(Wrong::new(name.offset, "the name of a template is written out, so that it is known beforehand"));
        }
        let (path, text) = (self.find)(&name.text).map_err(|message| {
            self.missing = true;
            Wrong::new(name.offset, message)
        })?;
        if let Some(known) = self.files.iter().position(|file| file.path == path) {
            return Ok(known);
        }
        if self.files.len() >= FILES_MAX {
            return Err(Wrong::new(name.offset, format!("more than {FILES_MAX} templates in one")));
        }
        self.files.push(File { path, text });
        Ok(self.files.len() - 1)
    }

    /// The functions that filters stand for.
    fn filters(&self, filters: &[Code]) -> Vec<String> {
        let names = filters
            .iter()
            .map(|filter| filter.text.as_str())
            .filter(|name| !matches!(*name, "n" | "unicode" | "") && !name.starts_with("decode."));
        names
            .map(|name| if OWN_FILTERS.contains(&name) || (self.is_filter)(name) { format!("__filter_{name}") } else { name.to_owned() })
            .collect()
    }
}

/// A value through filters, the first one innermost.
fn wrap(filters: &[String], value: &str) -> String {
    filters.iter().fold(value.to_owned(), |value, filter| format!("{filter}({value})"))
}

/// Whether something in a loop asks for `loop`.
fn uses_loop(nodes: &[Node]) -> bool {
    let asks = |code: &Code| code.text.contains("loop.");
    nodes.iter().any(|node| match node {
        Node::Text(_) => false,
        Node::Expression { code, .. } | Node::Block { code, .. } => asks(code),
        Node::Group(branches) => branches.iter().any(|(line, inner)| asks(line) || uses_loop(inner)),
        Node::Tag(_, inner) => uses_loop(inner),
    })
}

/// Names by which a module sees Mako's own filters.
pub(crate) fn own_filters() -> BTreeMap<String, &'static str> {
    OWN_FILTERS.iter().map(|name| (format!("__filter_{name}"), *name)).collect()
}
