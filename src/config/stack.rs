//! `Stack`: the services of one file and how they depend on each other.

use std::collections::HashMap;

use crate::config::check::Check;
use crate::config::fields::nearest;
use crate::config::plan;
use crate::config::reference::{Reference, substitute, substitute_plain};
use crate::config::request::{EnvSource, Request};
use crate::error::{Error, Result};

/// The tmux session with the windows of services, unless their file names another one.
pub(crate) const DEFAULT_SESSION: &str = "devport";

/// The services of one file, in one checkout.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    /// `None` if the folder names it.
    pub(crate) name: Option<String>,
    /// The session with the windows of its services; `None` for the default one.
    pub(crate) tmux_session: Option<String>,
    /// In the order of the file.
    pub(crate) services: Vec<StackService>,
}

/// A service of a stack.
#[derive(Debug, Default)]
pub(crate) struct StackService {
    pub(crate) name: String,
    /// The line of its name, from 1.
    pub(crate) line: usize,
    /// The request, without a key; paths are relative to the file. References to services are not replaced yet.
    pub(crate) request: Request,
    /// The names of the services that it needs.
    pub(crate) depends_on: Vec<String>,
    /// Whether it runs to completion.
    pub(crate) one_shot: bool,
    /// Whether all checkouts share one instance.
    pub(crate) shared: bool,
}

/// Services of a stack, each after those that it needs.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) services: Vec<&'a StackService>,
    /// For each service, the positions of those of them that it needs.
    pub(crate) needs: Vec<Vec<usize>>,
}

impl StackService {
    /// Returns whether it has no command, and reserves a port only.
    pub(crate) fn is_port_only(&self) -> bool {
        self.request.cmd.is_empty()
    }

    /// Returns the variable in which its siblings find its port, such as `API_DEBUG_PORT` for `api-debug`.
    pub(crate) fn port_variable(&self) -> String {
        self.variable("PORT")
    }

    /// Returns the variable in which its siblings find its address.
    pub(crate) fn url_variable(&self) -> String {
        self.variable("URL")
    }

    /// Returns the name in upper case, other characters as `_`, and the suffix.
    fn variable(&self, suffix: &str) -> String {
        let part = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("{}_{suffix}", self.name.chars().map(part).collect::<String>())
    }

    /// Returns the request with all references replaced for which `value_of` returns a value.
    pub(crate) fn resolved(&self, value_of: impl Fn(Reference<'_>) -> Option<String>) -> Request {
        let mut request = self.request.clone();
        let replace = |text: &mut String| *text = substitute(text, &value_of);
        request.cmd.iter_mut().for_each(replace);
        for source in &mut request.env {
            if let EnvSource::Values(values) = source {
                for (_, value) in values {
                    replace(value);
                }
            }
        }
        for check in [&mut request.policy.ready, &mut request.policy.health].into_iter().flatten() {
            match check {
                Check::Exec(words) => words.iter_mut().for_each(replace),
                // Neither is expanded when the check runs.
                Check::Http { path: text, .. } | Check::Log(text) => *text = substitute_plain(text, &value_of),
                Check::Listen | Check::Alive | Check::Tcp | Check::None => {}
            }
        }
        request
    }
}

impl Stack {
    /// Makes a stack of the entries of a list, which do not depend on each other.
    pub(crate) fn of_list(entries: Vec<Request>) -> Self {
        let service = |request: Request| StackService { name: request.name(), request, ..StackService::default() };
        Self { services: entries.into_iter().map(service).collect(), ..Self::default() }
    }

    /// Returns the named services, or all without names: each after those that it needs. Unless `alone`, also what the
    /// named ones need.
    ///
    /// # Errors
    /// [`Error::NoSuchService`] if the stack lacks a name.
    pub(crate) fn order(&self, names: &[String], alone: bool) -> Result<Order<'_>> {
        let position = |name: &String| self.services.iter().position(|service| service.name == *name);
        let missing = |name: &String| Error::NoSuchService { target: name.clone(), nearest: self.nearest(name) };
        let mut wanted = Vec::with_capacity(names.len());
        for name in names {
            wanted.push(position(name).ok_or_else(|| missing(name))?);
        }
        let wanted = if names.is_empty() { (0..self.services.len()).collect() } else { wanted };
        let dependencies = self.dependencies();
        let chosen: Vec<usize> = plan::layers(&dependencies, &wanted, alone).into_iter().flatten().collect();
        let places: HashMap<usize, usize> = chosen.iter().copied().zip(0..).collect();
        let place = |service: usize| places.get(&service).copied();
        Ok(Order {
            services: chosen.iter().map(|service| &self.services[*service]).collect(),
            needs: chosen.iter().map(|service| plan::nearest(&dependencies, *service, place)).collect(),
        })
    }

    /// Returns the positions of the services that each service needs. The file was checked, so each name has one.
    fn dependencies(&self) -> Vec<Vec<usize>> {
        let positions: HashMap<&str, usize> =
            self.services.iter().enumerate().map(|(index, service)| (service.name.as_str(), index)).collect();
        let needed = |service: &StackService| {
            service.depends_on.iter().filter_map(|name| positions.get(name.as_str()).copied()).collect()
        };
        self.services.iter().map(needed).collect()
    }

    /// Returns the names that are similar to an unknown one.
    fn nearest(&self, name: &str) -> Vec<String> {
        nearest(name, self.services.iter().map(|service| service.name.as_str()))
            .map(str::to_owned)
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::stack_file::tests::{SHOP, checkout, read};

    #[test]
    fn references_are_replaced_when_the_ports_are_known() {
        let stack = read(SHOP).unwrap();
        let checkout = checkout("feat-1");
        let api = stack.services[2].resolved(|reference| match reference {
            Reference::Port("db") => Some("19005".into()),
            Reference::Url("db") => Some("postgres://localhost:19005".into()),
            other => checkout.value_of(other),
        });
        let url = ("DATABASE_URL".to_owned(), "postgres://localhost:19005/shop_feat_1".to_owned());
        assert_eq!(api.env, [EnvSource::Values(vec![url])]);
        assert_eq!(api.policy.ready.unwrap().to_string(), "exec:check postgres://localhost:19005");
        assert_eq!(stack.services[4].resolved(|_| None).cmd[5], "$PORT");
    }

    #[test]
    fn the_order_is_that_of_the_named_services() {
        let stack = read(SHOP).unwrap();
        let names = |names: &[&str], alone| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let order = stack.order(&names, alone)?;
            let names: Vec<&str> = order.services.iter().map(|service| service.name.as_str()).collect();
            crate::error::Result::Ok(names.join(" "))
        };
        assert_eq!(names(&["api"], false).unwrap(), "db migrate api");
        assert_eq!(names(&["web", "db"], true).unwrap(), "db web");
        let error = names(&["wbe"], false).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean web?"));
    }
}
