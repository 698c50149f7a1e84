//! References to the services of a stack and to its checkout, such as `${services.db.port}`. Pure.

/// What a reference refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    /// The port of this service.
    Port(&'a str),
    /// The local address of this service.
    Url(&'a str),
    CheckoutName,
    CheckoutSlug,
    CheckoutRoot,
}

/// The values of `${checkout.name}`, `${checkout.slug}` and `${checkout.root}`.
#[derive(Debug, Clone)]
pub(crate) struct CheckoutNames {
    pub(crate) name: String,
    pub(crate) slug: String,
    /// The absolute path of the root.
    pub(crate) root: String,
}

impl CheckoutNames {
    /// Returns whether it is the main checkout.
    pub(crate) fn is_main(&self) -> bool {
        self.name == "main"
    }

    /// Returns the value of a reference; `None` if it refers to a service.
    pub(crate) fn value_of(&self, reference: Reference<'_>) -> Option<String> {
        match reference {
            Reference::Port(_) | Reference::Url(_) => None,
            Reference::CheckoutName => Some(self.name.clone()),
            Reference::CheckoutSlug => Some(self.slug.clone()),
            Reference::CheckoutRoot => Some(self.root.clone()),
        }
    }
}

/// Replaces every reference for which `value_of` returns a value, and keeps the rest: `$NAME`, `$$` and other
/// references. A `$` in a value is doubled, because [`expand`](crate::config::expand()) reads the result.
pub(super) fn substitute(text: &str, value_of: impl Fn(Reference<'_>) -> Option<String>) -> String {
    substitute_plain(text, |reference| value_of(reference).map(|value| value.replace('$', "$$")))
}

/// Does the same for a text that is not expanded later: a `$` in a value is kept.
pub(super) fn substitute_plain(text: &str, value_of: impl Fn(Reference<'_>) -> Option<String>) -> String {
    let mut substituted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = split_at_reference(rest) {
        let (found, tail) = parse(after);
        let value = found.ok().and_then(&value_of);
        substituted.push_str(before);
        substituted.push_str(value.as_deref().unwrap_or(&after[..after.len() - tail.len()]));
        rest = tail;
    }
    substituted.push_str(rest);
    substituted
}

/// Returns the references in a text. The error is the problem of one that means nothing.
pub(super) fn references(text: &str) -> Vec<Result<Reference<'_>, String>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = split_at_reference(rest) {
        let (reference, tail) = parse(after);
        found.push(reference);
        rest = tail;
    }
    found
}

/// Splits a text before its first reference. `$$` begins none.
fn split_at_reference(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('$').map(|at| from + at) {
        let after = &text[at + 1..];
        if after.starts_with('{') && has_path(&after[1..]) {
            return Some(text.split_at(at));
        }
        from = at + if after.starts_with('$') { 2 } else { 1 };
    }
    None
}

/// Returns whether a text begins with a path of two names whose first is, or should be, `services` or `checkout`.
fn has_path(text: &str) -> bool {
    let first = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    text[first.len()..].starts_with('.') && likely_root(first).is_some()
}

/// Returns the first name of a reference that was probably meant. Other names may be syntax of the command.
fn likely_root(name: &str) -> Option<&'static str> {
    let is_near = |root: &&str| name.len() <= 16 && strsim::damerau_levenshtein(name, root) <= 2;
    ROOTS.into_iter().find(is_near)
}

/// The first names of a reference.
const ROOTS: [&str; 2] = ["services", "checkout"];

/// Parses the `${…}` at the start of the text. Returns the reference, or its problem, and the rest of the text.
fn parse(text: &str) -> (Result<Reference<'_>, String>, &str) {
    let inner = &text[2..];
    let end = inner.find(|c: char| !is_part_of_path(c)).unwrap_or(inner.len());
    let (path, tail) = inner.split_at(end);
    match tail.strip_prefix('}') {
        Some(tail) => (meaning(path), tail),
        None => (Err(format!("`${{{path}` has no `}}` after the name; a reference has no default")), tail),
    }
}

/// Returns whether a character belongs to the path of a reference.
fn is_part_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Returns what a path means.
fn meaning(path: &str) -> Result<Reference<'_>, String> {
    let unknown = |meant: String| format!("`${{{path}}}` means nothing, did you mean `${{{meant}}}`?");
    let (root, rest) = path.split_once('.').unwrap_or((path, ""));
    match root {
        "checkout" => match rest {
            "name" => Ok(Reference::CheckoutName),
            "slug" => Ok(Reference::CheckoutSlug),
            "root" => Ok(Reference::CheckoutRoot),
            _ => Err(format!("`${{{path}}}` means nothing; a checkout has `name`, `slug` and `root`")),
        },
        "services" => match rest.rsplit_once('.') {
            Some((service, "port")) if !service.is_empty() => Ok(Reference::Port(service)),
            Some((service, "url")) if !service.is_empty() => Ok(Reference::Url(service)),
            Some((service, _)) if !service.is_empty() => Err(format!(
                "`${{{path}}}` means nothing; a service has `${{services.{service}.port}}` and `${{services.{service}.url}}`"
            )),
            _ => Err(unknown(format!("services.{}.port", if rest.is_empty() { "NAME" } else { rest }))),
        },
        _ => Err(unknown(format!("{}.{rest}", likely_root(root).unwrap_or("services")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value_of(reference: Reference<'_>) -> Option<String> {
        let checkout = CheckoutNames { name: "feat-1".into(), slug: "feat_1".into(), root: "/w/$x".into() };
        match reference {
            Reference::Port("db") => Some("5432".into()),
            Reference::Url("my-web") => Some("http://localhost:19000".into()),
            other => checkout.value_of(other),
        }
    }

    #[test]
    fn references_are_replaced_and_the_rest_is_kept() {
        for (text, expected) in [
            ("postgres://h:${services.db.port}/shop_${checkout.slug}", "postgres://h:5432/shop_feat_1"),
            ("${services.my-web.url}/a", "http://localhost:19000/a"),
            ("${checkout.name} ${checkout.root}", "feat-1 /w/$$x"),
            ("$PORT ${PORT} $$ ${A:-b} $", "$PORT ${PORT} $$ ${A:-b} $"),
            ("${DB:-h:${services.db.port}}", "${DB:-h:5432}"),
            ("$${services.db.port}", "$${services.db.port}"),
            ("$$${services.db.port}", "$$5432"),
            ("${services.other.port}x", "${services.other.port}x"),
            ("${nvm.dir} ${services} ${", "${nvm.dir} ${services} ${"),
        ] {
            assert_eq!(substitute(text, value_of), expected, "{text:?}");
        }
    }

    #[test]
    fn a_reference_that_means_nothing_is_a_problem_with_a_suggestion() {
        for (text, part) in [
            ("${services.db.prot}", "`${services.db.port}` and `${services.db.url}`"),
            ("${services.db}", "did you mean `${services.db.port}`?"),
            ("${service.db.port}", "did you mean `${services.db.port}`?"),
            ("${checkout.nam}", "has `name`, `slug` and `root`"),
            ("${checkout.slug:-x}", "has no default"),
            ("${services.db.port", "has no `}`"),
        ] {
            let found = references(text);
            let problem = found[0].as_ref().unwrap_err();
            assert!(found.len() == 1 && problem.contains(part), "{text:?}: {problem}");
        }
        assert_eq!(references("${services.a.port}${checkout.root}").len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\$|\\{|\\}|services|checkout|\\.|é|port|\\$\\{services\\.){0,20}") {
            prop_assert_eq!(substitute(&text, |_| None), text.clone());
            let _ = references(&text);
        }
    }
}
