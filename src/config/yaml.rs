//! YAML as a tree whose nodes know their lines. Anchors are resolved; nesting and the expansion of aliases are limited.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Tag};

/// How many lists and maps may be open at a time: deeper than any file needs, and shallow enough for the stack.
const DEEPEST: usize = 100;
/// The largest tree, in bytes of text plus [`NODE_BYTES`] per node: aliases could double it with every line.
const LARGEST: usize = 16 * 1024 * 1024;
/// What a node counts for besides its text: about what it takes in memory.
const NODE_BYTES: usize = 32;

/// A value and the line on which it begins, from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// The content of a node.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A text, number, boolean or null, as it is written but without quotes and escapes.
    Scalar(Kind, String),
    List(Vec<Node>),
    Map(Vec<(Name, Node)>),
}

/// The type of a scalar by YAML 1.2's core schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    /// A whole number.
    Int,
    Float,
    Text,
}

/// The name of a field of a map.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Why a text is not one YAML document: the line, from 1, and the problem.
pub(super) type SyntaxError = (usize, String);

/// Parses one document; `None` if there is none.
///
/// # Errors
/// The first error of syntax, or a limit that the document exceeds.
pub(super) fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut options = Options::default();
    options.flow_nesting_limit = DEEPEST;
    options.block_nesting_limit = DEEPEST;
    options.set_emit_comments(false);
    let mut builder = Builder { open: Vec::new(), root: None, anchors: HashMap::new(), left: LARGEST };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| scan_error(&error, text))?;
        builder.take(event, span.start.line().max(1))?;
    }
    Ok(builder.root)
}

/// Returns the line and the problem of a parser's error in this text.
fn scan_error(error: &ScanError, text: &str) -> SyntaxError {
    let line = error.marker().line().max(1);
    // The parser reports a tab at the beginning of the text before it.
    let has_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    if error.info().contains("tab")
        && let Some(offset) = text.lines().skip(line - 1).position(has_tab)
    {
        return (line + offset, "YAML is indented with blanks, and this line begins with a tab".into());
    }
    let why = match error.kind() {
        ErrorKind::RecursionLimitExceeded => format!("lists and maps nest deeper than {DEEPEST} levels"),
        _ => error.info(),
    };
    (line, why)
}

/// A list or map whose end is not read yet.
struct Open {
    node: Node,
    /// Its anchor; 0 for none.
    anchor: usize,
    /// In a map: the name whose value comes next.
    name: Option<Name>,
}

/// Builds the tree from the parser's events.
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    /// The nodes with an anchor, by its number.
    anchors: HashMap<usize, Node>,
    /// How large the tree may still grow.
    left: usize,
}

impl Builder {
    /// Takes one event of the parser.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err((line, "more than one YAML document; keep all services in one".into()))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = scalar_kind(&text, style, tag.as_deref()).map_err(|why| (line, why))?;
                self.spend(line, text.len())?;
                self.add(Node { line, value: Value::Scalar(kind, text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(Value::List(Vec::new()), line, anchor, tag.as_deref()),
            Event::MappingStart(_, anchor, tag) => self.begin(Value::Map(Vec::new()), line, anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.add(node, anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor);
                let node = node.ok_or_else(|| (line, "an alias inside the value that it stands for".to_owned()))?;
                let (node, size) = (node.clone(), size_of_tree(node));
                self.spend(line, size)?;
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    /// Begins a list or map.
    fn begin(&mut self, value: Value, line: usize, anchor: usize, tag: Option<&Tag>) -> Result<(), SyntaxError> {
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
            return Err((line, UNKNOWN_TAG.into()));
        }
        self.spend(line, 0)?;
        self.open.push(Open { node: Node { line, value }, anchor, name: None });
        Ok(())
    }

    /// Adds a complete node to what is open.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.spend(node.line, size_of_tree(&node))?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.node.value, open.name.take()) {
            (Value::Map(fields), Some(name)) => fields.push((name, node)),
            (Value::Map(_), None) => match node.value {
                Value::Scalar(_, text) => open.name = Some(Name { line: node.line, text }),
                _ => return Err((node.line, "the name of a field is a list or a map".into())),
            },
            (Value::List(items), _) => items.push(node),
            (Value::Scalar(..), _) => {}
        }
        Ok(())
    }

    /// Counts a node with this much text.
    fn spend(&mut self, line: usize, text: usize) -> Result<(), SyntaxError> {
        let left = self.left.checked_sub(text.saturating_add(NODE_BYTES));
        self.left = left.ok_or_else(|| (line, "up to this line, aliases expand to more than 16 MiB".to_owned()))?;
        Ok(())
    }
}

/// The error for a tag such as `!include`.
const UNKNOWN_TAG: &str = "a YAML tag that devport does not know; put quotes around a text that begins with !";

/// Returns what a node and all below it count for.
fn size_of_tree(node: &Node) -> usize {
    NODE_BYTES
        + match &node.value {
            Value::Scalar(_, text) => text.len(),
            Value::List(items) => items.iter().map(size_of_tree).sum(),
            Value::Map(fields) => fields.iter().map(|(name, node)| name.text.len() + size_of_tree(node)).sum(),
        }
}

/// Returns the type of a scalar.
fn scalar_kind(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Kind, String> {
    match tag.map(Tag::core_suffix) {
        Some(Some("str")) => return Ok(Kind::Text),
        Some(None) => return Err(UNKNOWN_TAG.into()),
        _ => {}
    }
    if style != ScalarStyle::Plain {
        return Ok(Kind::Text);
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
        _ if whole_number(text.trim_start_matches(['+', '-'])).is_some() => Kind::Int,
        _ if is_float(text) => Kind::Float,
        _ => Kind::Text,
    })
}

/// Parses a whole number: decimal without leading zeros, or with the prefix `0x`, `0o` or `0b`. One that is too large
/// is `u64::MAX`.
fn whole_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.get(..2) {
        Some("0x") => (&text[2..], 16),
        Some("0o") => (&text[2..], 8),
        Some("0b") => (&text[2..], 2),
        _ => (text, 10),
    };
    let is_padded = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    (all_digits && !is_padded).then(|| u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}

/// Returns whether a plain text is a number with a fraction or an exponent.
fn is_float(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']);
    let begins = unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") || (begins && is_decimal(text))
}

/// Returns whether a text is a decimal number in YAML's notation.
fn is_decimal(text: &str) -> bool {
    let padded = text.trim_start_matches(['+', '-']);
    let is_padded = padded.len() > 1 && padded.starts_with('0') && padded.as_bytes()[1].is_ascii_digit();
    !is_padded && text.parse::<f64>().is_ok()
}

impl Node {
    /// Returns the number; `None` if it is none, or negative. One that is too large is `u64::MAX`.
    pub(super) fn whole_number(&self) -> Option<u64> {
        match &self.value {
            Value::Scalar(Kind::Int, text) => whole_number(text.trim_start_matches('+')),
            _ => None,
        }
    }

    /// Returns the type for messages, with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Kind::Null, _) => "nothing",
            Value::Scalar(Kind::Bool, _) => "a boolean",
            Value::Scalar(Kind::Int | Kind::Float, _) => "a number",
            Value::Scalar(Kind::Text, _) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Returns whether there is no value, as in `web:`.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Kind::Null, _))
    }

    /// Calls `visit` with each text at or below this node, and its line.
    pub(super) fn each_text<'a>(&'a self, visit: &mut impl FnMut(usize, &'a str)) {
        match &self.value {
            Value::Scalar(_, text) => visit(self.line, text),
            Value::List(items) => items.iter().for_each(|item| item.each_text(visit)),
            Value::Map(fields) => fields.iter().for_each(|(_, node)| node.each_text(visit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        match parse(text).unwrap().unwrap().value {
            Value::Scalar(kind, _) => kind,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        for (texts, expected) in [
            (&["~", "null"][..], Kind::Null),
            (&["true", "False"], Kind::Bool),
            (&["0", "5432", "-1", "+7", "0x1F", "0o17", "99999999999999999999999"], Kind::Int),
            (&["1.5", "1e3", "-.5", ".inf", "1."], Kind::Float),
            (&["yes", "no", "'5'", "\"true\"", "!!str 5", "1.2.3", "0123", "00.5", "e1", "inf", "1_000"], Kind::Text),
        ] {
            for text in texts {
                assert_eq!(kind(text), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn nodes_and_names_know_their_lines() {
        let root = parse("# x\na:\n  b: 1\n  c:\n    - x\n    - |\n      y\n").unwrap().unwrap();
        let Value::Map(fields) = root.value else { panic!() };
        let Value::Map(inner) = &fields[0].1.value else { panic!() };
        assert_eq!((fields[0].0.line, inner[0].0.line, inner[0].1.line, inner[1].0.line), (2, 3, 3, 4));
        let mut texts = Vec::new();
        inner[1].1.each_text(&mut |line, text| texts.push((line, text)));
        assert_eq!(texts, [(5, "x"), (7, "y\n")]);
    }

    #[test]
    fn an_alias_is_its_value_and_never_itself() {
        let root = parse("- &a {x: 1}\n- *a\n").unwrap().unwrap();
        assert_eq!(size_of_tree(&root), 4 * NODE_BYTES + NODE_BYTES + 4);
        assert_eq!(parse("- &a [*a]\n").unwrap_err().0, 1);
        assert_eq!(parse("- 1\n- *b\n").unwrap_err().0, 2);
    }

    #[test]
    fn tags_and_second_documents_are_refused_with_their_line() {
        assert_eq!(parse("- 1\n- !include x\n").unwrap_err(), (2, UNKNOWN_TAG.into()));
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap_err().0, 2);
        assert!(parse("").unwrap().is_none());
    }
}
