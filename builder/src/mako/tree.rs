//! The structure of a Mako template: what stands in what.

use super::lexer::{Code, Piece, Tag, Wrong, pieces};

/// The deepest nesting of blocks and tags. People write five; the limit keeps recursion off the stack's end.
const NESTING_MAX: usize = 32;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    Expression {
        code: Code,
        filters: Vec<Code>,
    },
    /// `% if`, with its `% elif` and `% else`, or `% for`: the lines that begin the branches, and what is in them.
    Group(Vec<(Code, Vec<Node>)>),
    Block {
        code: Code,
        module: bool,
    },
    Tag(Tag, Vec<Node>),
}

/// What is open, and the end that it waits for.
enum Open {
    Group(Vec<(Code, Vec<Node>)>, &'static str),
    Tag(Tag),
}

/// Parses a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Wrong> {
    let mut open: Vec<(Open, Vec<Node>)> = Vec::new();
    let mut nodes: Vec<Node> = Vec::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) => nodes.push(Node::Text(text)),
            Piece::Expression { code, filters } => nodes.push(Node::Expression { code, filters }),
            Piece::Block { code, module } => nodes.push(Node::Block { code, module }),
            Piece::Open { tag, closed: true } => nodes.push(Node::Tag(tag, Vec::new())),
            Piece::Open { tag, closed: false } => {
                check_depth(open.len(), tag.offset)?;
                open.push((Open::Tag(tag), std::mem::take(&mut nodes)));
            }
            Piece::Close { name, offset } => match open.pop() {
                Some((Open::Tag(tag), outer)) if tag.name == name => {
                    let inner = std::mem::replace(&mut nodes, outer);
                    nodes.push(Node::Tag(tag, inner));
                }
                Some((other, _)) => return Err(Wrong::new(offset, format!("`</%{name}>` stands where {} is open", describe(&other)))),
                None => return Err(Wrong::new(offset, format!("`</%{name}>` closes nothing"))),
            },
            Piece::Control(code) => control(code, &mut open, &mut nodes)?,
        }
    }
    match open.pop() {
        Some((Open::Tag(tag), _)) => Err(Wrong::new(tag.offset, format!("`<%{}>` is not closed by `</%{}>`", tag.name, tag.name))),
        Some((Open::Group(branches, end), _)) => {
            let offset = branches.first().map_or(0, |(code, _)| code.offset);
            Err(Wrong::new(offset, format!("this is not closed by `% {end}`")))
        }
        None => Ok(nodes),
    }
}

fn describe(open: &Open) -> String {
    match open {
        Open::Tag(tag) => format!("`<%{}>`", tag.name),
        Open::Group(branches, _) => format!("`% {}`", branches.first().map_or("", |(code, _)| code.text.as_str())),
    }
}

fn check_depth(depth: usize, offset: usize) -> Result<(), Wrong> {
    if depth >= NESTING_MAX { Err(Wrong::new(offset, "this is nested too deeply")) } else { Ok(()) }
}

fn control(code: Code, open: &mut Vec<(Open, Vec<Node>)>, nodes: &mut Vec<Node>) -> Result<(), Wrong> {
    let word: String = code.text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let offset = code.offset;
    match word.as_str() {
        "if" | "for" => {
            check_depth(open.len(), offset)?;
            let end = if word == "if" { "endif" } else { "endfor" };
            open.push((Open::Group(vec![(code, Vec::new())], end), std::mem::take(nodes)));
            Ok(())
        }
        "elif" | "else" => match open.last_mut() {
            Some((Open::Group(branches, "endif"), _)) => {
                if let Some((_, inner)) = branches.last_mut() {
                    *inner = std::mem::take(nodes);
                }
                branches.push((code, Vec::new()));
                Ok(())
            }
            _ => Err(Wrong::new(offset, format!("`% {word}` belongs to no `% if`"))),
        },
        "endif" | "endfor" => match open.pop() {
            Some((Open::Group(mut branches, end), outer)) if end == word => {
                let inner = std::mem::replace(nodes, outer);
                if let Some(last) = branches.last_mut() {
                    last.1 = inner;
                }
                nodes.push(Node::Group(branches));
                Ok(())
            }
            Some((other, _)) => Err(Wrong::new(offset, format!("`% {word}` stands where {} is open", describe(&other)))),
            None => Err(Wrong::new(offset, format!("`% {word}` closes nothing"))),
        },
        "while" | "endwhile" => Err(Wrong::new(offset, "`% while` does not exist: Starlark has no loops without end").hint("use `% for`")),
        "try" | "except" | "finally" | "endtry" | "with" | "endwith" => {
            Err(Wrong::new(offset, format!("`% {word}` does not exist: Starlark has no exceptions")).hint("ask before, with `% if`"))
        }
        _ => {
            Err(Wrong::new(offset, format!("`% {word}` is no control line"))
                .hint("a line of text that begins with `%` is written with `%%`"))
        }
    }
}
