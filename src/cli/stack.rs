//! `Located`: the stack of the current directory, with the names and ports of its services in this checkout.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::context::Context;
use crate::cli::foreign_values;
use crate::cli::output::note;
use crate::config::{
    CheckoutNames, ConfigFile, EnvSource, FileContext, Order, PortRequest, Reference, Request, ServiceSpec, Stack,
    StackService, load_config, local_url, nearest_file, object_form,
};
use crate::error::{Error, Result};
use crate::identity::{Key, ServiceHash};
use crate::project::{self, Checkout, CheckoutKind, Place, StackUser};
use crate::registry::{FileLock, Reservation};

/// The stack of a file, in a checkout.
#[derive(Debug)]
pub(super) struct Located {
    /// The canonical path of its file.
    file: PathBuf,
    pub(super) stack: Stack,
    checkout: Checkout,
    /// `None` for a list, whose keys are the same in all checkouts.
    names: Option<Names>,
}

/// The names of a stack in a checkout.
#[derive(Debug)]
struct Names {
    stack: project::Stack,
    /// The stack in the main checkout of the same repository, which has the shared services.
    main: project::Stack,
    /// The values of `${checkout.…}`.
    values: CheckoutNames,
}

/// The ports of a stack's services, by name.
pub(super) type Ports<'a> = HashMap<&'a str, u16>;

impl Located {
    /// Finds and reads the file of the stack: `file`, or else the nearest one from the current directory up to the root
    /// of the checkout.
    ///
    /// # Errors
    /// If there is no file, it is not valid, or the checkout is broken.
    pub(super) fn find(context: &Context, file: Option<&Path>) -> Result<Self> {
        Self::read(context, file, true)
    }

    /// Finds and reads the file as [`Self::find`] does, for a command that only stops services: directories and dotenv
    /// files may be missing.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn find_to_stop(context: &Context, file: Option<&Path>) -> Result<Self> {
        Self::read(context, file, false)
    }

    fn read(context: &Context, file: Option<&Path>, checks_paths: bool) -> Result<Self> {
        let cwd = context.cwd()?;
        let file = match file {
            Some(file) => canonical(&cwd.join(file))?,
            None => {
                let place = Place::new(&cwd, None, context.environment().home());
                let none = || Error::NoStackFile { directory: cwd.clone(), root: place.root().to_owned() };
                canonical(&nearest_file(&place).ok_or_else(none)?)?
            }
        };
        let directory = file.parent().unwrap_or(Path::new("/"));
        let checkout = Checkout::of(&project::root_of(directory, context.environment().home()));
        if checkout.kind == CheckoutKind::Dangling {
            return Err(Error::DanglingCheckout { root: checkout.root });
        }
        let read = |values: Option<&CheckoutNames>| {
            load_config(&FileContext { path: &file, caller: context.environment(), checkout: values, checks_paths })
        };
        let unnamed = match read(None)? {
            ConfigFile::Stack(stack) => stack,
            ConfigFile::List(entries) => {
                return Ok(Self { file, stack: Stack::of_list(entries), checkout, names: None });
            }
        };
        let name = unnamed.name.unwrap_or_else(|| project::default_name(&checkout, directory));
        let listing = context.registry.list()?;
        let stack_in = |checkout: &Checkout| {
            let users = listing.reservations.iter().filter_map(user);
            project::Stack::new(name.clone(), checkout, users, Path::is_dir)
        };
        let stack = stack_in(&checkout);
        let main_root = checkout.main_root().filter(|root| *root != checkout.root);
        let home = context.environment().home();
        let main =
            main_root.map_or_else(|| stack.clone(), |root| stack_in(&Checkout::of(&project::root_of(&root, home))));
        let names = Names::new(stack, main, &checkout);
        // What the file means depends on the names, and the name of the stack stands in the file.
        let stack = match read(Some(&names.values))? {
            ConfigFile::Stack(stack) => stack,
            ConfigFile::List(entries) => Stack::of_list(entries),
        };
        Ok(Self { file, stack, checkout, names: Some(names) })
    }

    /// Returns the canonical path of its file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Takes the lock of the stack, under which its services are started and stopped together.
    ///
    /// # Errors
    /// If another command holds it for long, or the state directory cannot be written to.
    pub(super) fn lock(&self, context: &Context) -> Result<FileLock> {
        context.registry.prepare()?;
        context.registry.acquire_stack(&self.file)
    }

    /// Takes the lock of the stack as [`Self::lock`] does, if it is free; `None` if another command holds it.
    ///
    /// # Errors
    /// If the state directory cannot be written to.
    pub(super) fn try_lock(&self, context: &Context) -> Result<Option<FileLock>> {
        context.registry.try_acquire_stack(&self.file)
    }

    /// Takes the lock of the shared services of the repository: `down` holds it while it decides whether other checkouts
    /// need them, and `up` while it starts a service that needs one.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub(super) fn lock_shared(&self, context: &Context) -> Result<FileLock> {
        context.registry.acquire_stack(&self.shared_name())
    }

    /// Takes that lock if it is free; `None` if another command holds it.
    ///
    /// # Errors
    /// If the state directory cannot be written to.
    pub(super) fn try_lock_shared(&self, context: &Context) -> Result<Option<FileLock>> {
        context.registry.try_acquire_stack(&self.shared_name())
    }

    /// Returns the path that stands for the shared services: the same in all checkouts, and no file of a stack.
    fn shared_name(&self) -> PathBuf {
        let repository = self.checkout.repository.as_deref().unwrap_or(&self.checkout.root);
        repository.join(self.names.as_ref().map_or("", |names| names.stack.name.as_str()))
    }

    /// Returns whether this is the main checkout, or there are no checkouts.
    pub(super) fn is_main(&self) -> bool {
        self.names.as_ref().is_none_or(|names| names.stack == names.main)
    }

    /// Returns whether the file is a list, whose services do not know each other.
    pub(super) fn is_list(&self) -> bool {
        self.names.is_none()
    }

    /// Refuses keys of other checkouts before anything is changed.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`].
    pub(super) fn check_keys(&self, context: &Context) -> Result<()> {
        for service in &self.stack.services {
            let Some(key) = self.key(service)? else { continue };
            let directory = self.home_of(service)?.parent().unwrap_or(Path::new("/")).to_owned();
            let spec = ServiceSpec::port_alone(key, PortRequest::Any, directory, context.environment());
            context.launcher().check_checkout(&spec).map_err(|error| self.with_object_form(error))?;
        }
        Ok(())
    }

    /// Adds to the error that a key of a list belongs to another checkout how each checkout gets its own services.
    fn with_object_form(&self, error: Error) -> Error {
        match error {
            Error::KeyElsewhere { key, owner, state, here, hint } if self.names.is_none() => {
                let form = std::fs::read_to_string(&self.file).ok().and_then(|text| object_form(&text));
                let hint = form.map_or(hint, |form| {
                    let file = self.file.display();
                    format!("each checkout has its own services if {file} is in object form:\n{}", form.trim_end())
                });
                Error::KeyElsewhere { key, owner, state, here, hint }
            }
            error => error,
        }
    }

    /// Notes that another checkout already had the name that this one would have.
    pub(super) fn note_rival(&self) {
        if let Some(names) = &self.names
            && let Some(rival) = &names.stack.rival
        {
            let (name, checkout) = (&names.stack.name, &names.stack.checkout);
            note(&format!("{} already uses the name {name}; this checkout is {name}@{checkout}", rival.display()));
        }
    }

    /// Returns the key of a service in this checkout. All checkouts share a shared one. `None` for an entry of a list
    /// without a key.
    pub(super) fn key(&self, service: &StackService) -> Result<Option<Key>> {
        match &self.names {
            Some(names) => names.key(service).map(Some),
            None => Ok(service.request.key.clone()),
        }
    }

    /// Returns the name of a service of this stack in this checkout, by its key; `None` if it belongs to another stack or
    /// checkout.
    pub(super) fn service_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        let name = key.rsplit('/').next()?;
        (self.names.as_ref()?.stack.key(name) == key).then_some(name)
    }

    /// Returns the name of a service of this stack in another checkout of the repository; `None` if it is of this one, or
    /// of another stack.
    pub(super) fn service_elsewhere<'r>(&self, reservation: &'r Reservation) -> Option<&'r str> {
        let user = user(reservation)?;
        let (stack, name) = user.key.split_once('/')?;
        let is_ours = stack.split('@').next() == Some(self.names.as_ref()?.stack.name.as_str())
            && self.checkout.repository.as_ref() == Some(&user.repository());
        (is_ours && self.service_of(user.key).is_none()).then_some(name)
    }

    /// Returns the services of the stack in this checkout that its file no longer has.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub(super) fn unlisted(&self, context: &Context) -> Result<Vec<Reservation>> {
        let is_unlisted = |reservation: &Reservation| {
            let name = reservation.key.as_ref().and_then(|key| self.service_of(key.as_str()));
            // A shared one may stand in the file of another checkout.
            !reservation.shared
                && name.is_some_and(|name| self.stack.services.iter().all(|service| service.name != name))
        };
        Ok(context.registry.list()?.reservations.into_iter().filter(is_unlisted).collect())
    }

    /// Returns the ports of the services as they are registered, and 0 for one that is not reserved yet. Reserves none.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub(super) fn known_ports(&self, context: &Context) -> Result<Ports<'_>> {
        let mut ports = HashMap::new();
        if self.names.is_none() {
            return Ok(ports);
        }
        for service in self.stack.services.iter().filter(|service| service.request.port != PortRequest::NoPort) {
            let port = self.record(context, service)?.and_then(|reservation| reservation.service_port());
            ports.insert(service.name.as_str(), port.unwrap_or_default());
        }
        Ok(ports)
    }

    /// Returns the named services in their order, as [`Stack::order`].
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`] if the file has no service with a name.
    pub(super) fn order(&self, names: &[String], alone: bool) -> Result<Order<'_>> {
        self.stack.order(names, alone).map_err(|error| match error {
            Error::NoSuchService { target, nearest } => Error::NoSuchEntry {
                key: target,
                path: self.file.clone(),
                nearest,
                keys: self.stack.services.iter().map(|service| service.name.clone()).collect(),
            },
            error => error,
        })
    }

    /// Reserves the ports of all services, so that each gets those of its siblings, and notes values that would lead them
    /// to others. The services of a list know no siblings.
    ///
    /// # Errors
    /// If a key belongs to another checkout, or no port can be reserved.
    pub(super) fn reserve(&self, context: &Context) -> Result<Ports<'_>> {
        let mut ports = HashMap::new();
        let Some(names) = &self.names else { return Ok(ports) };
        // Ports that the file names come first: the hash of another service may select one of them.
        let (fixed, others): (Vec<_>, Vec<_>) =
            self.stack.services.iter().partition(|service| matches!(service.request.port, PortRequest::Exactly(_)));
        for service in fixed.into_iter().chain(others) {
            if service.request.port != PortRequest::NoPort {
                ports.insert(service.name.as_str(), self.reserve_port(context, names, service)?);
            }
        }
        self.note_foreign_values(context, names, &ports)?;
        Ok(ports)
    }

    /// Notes what could lead the services to those of another checkout, or does not reach them.
    fn note_foreign_values(&self, context: &Context, names: &Names, ports: &Ports<'_>) -> Result<()> {
        let home = context.environment().home();
        let mut files = vec![self.file.clone()];
        // A shared service has the files of the main checkout.
        for service in self.stack.services.iter().filter(|service| !service.shared || names.values.is_main()) {
            for source in service.request.clone().written_in(&self.file, home).env {
                files.extend(match source {
                    EnvSource::File(file) => Some(file),
                    EnvSource::Values(_) => None,
                });
            }
        }
        files.sort();
        files.dedup();
        let place = Place::new(self.file.parent().unwrap_or(Path::new("/")), None, home);
        foreign_values::warn_of_addresses(context, &place, &files)?;
        foreign_values::note_replaced_variables(context, &sibling_variables(&self.stack, ports, |_| true));
        Ok(())
    }

    /// Reserves the port of one service.
    fn reserve_port(&self, context: &Context, names: &Names, service: &StackService) -> Result<u16> {
        let reserve = |port| {
            let file = self.home_of(service)?;
            let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
            let mut spec = ServiceSpec::port_alone(names.key(service)?, port, directory, context.environment());
            spec.request.file = Some(file);
            spec.request.stack = Some(names.stack.name.clone());
            spec.request.shared = service.shared;
            context.launcher().reserve(&spec).map(|reservation| reservation.port)
        };
        let Some(port) = self.requested_port(service) else { return reserve(PortRequest::ByHash) };
        match reserve(PortRequest::Exactly(port)) {
            Err(error @ Error::PortReserved { .. }) => {
                note(&format!("{} does not get port {port}: {error}", service.name));
                reserve(PortRequest::ByHash)
            }
            // It keeps its port.
            Err(Error::PortFixed { .. }) => reserve(PortRequest::ByHash),
            result => result,
        }
    }

    /// Returns the port that the file requests for a service; `None` if it requests none. In a stack, the port is a
    /// preference of the main checkout.
    fn requested_port(&self, service: &StackService) -> Option<u16> {
        let applies = self.names.as_ref().is_none_or(|names| names.values.is_main() || service.shared);
        match service.request.port {
            PortRequest::Exactly(port) if applies => Some(port),
            _ => None,
        }
    }

    /// Returns the record of a service that has another port than the file requests, and the requested port; `None` if it
    /// has no other. The port of a service never changes.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub(super) fn kept_port(&self, context: &Context, service: &StackService) -> Result<Option<(Reservation, u16)>> {
        if self.requested_port(service).is_none() {
            return Ok(None);
        }
        let record = self.record(context, service)?;
        Ok(record.and_then(|record| self.other_port(service, &record).map(|requested| (record, requested))))
    }

    /// Returns the port that the file requests for a registered service that has another one; `None` if it has no other.
    pub(super) fn other_port(&self, service: &StackService, record: &Reservation) -> Option<u16> {
        self.requested_port(service).filter(|requested| record.port != 0 && record.port != *requested)
    }

    /// Returns the file as it is in the checkout that a service runs from: this one, or the main one if it is shared.
    fn home_of(&self, service: &StackService) -> Result<PathBuf> {
        if !service.shared {
            return Ok(self.file.clone());
        }
        let unknown = || Error::NoMainCheckout { service: service.name.clone(), root: self.checkout.root.clone() };
        let below = self.file.strip_prefix(&self.checkout.root).map_err(|_| unknown())?;
        Ok(self.checkout.main_root().ok_or_else(unknown)?.join(below))
    }

    /// Resolves what a service asks for: its key, references, variables of its siblings, paths and environment. A service
    /// that has another port than the file requests keeps that one.
    ///
    /// # Errors
    /// As [`ServiceSpec::resolve`], or if a record cannot be read.
    pub(super) fn spec(&self, context: &Context, service: &StackService, ports: &Ports<'_>) -> Result<ServiceSpec> {
        let mut spec = self.written_spec(context, service, ports)?;
        // The ports of a stack are reserved before.
        if self.names.is_none() && self.kept_port(context, service)?.is_some() {
            spec.request.port = PortRequest::Any;
        }
        Ok(spec)
    }

    /// Resolves what the file says of a service, as [`Self::spec`] does, with the port that it requests.
    fn written_spec(&self, context: &Context, service: &StackService, ports: &Ports<'_>) -> Result<ServiceSpec> {
        let request = match &self.names {
            Some(names) => names.request(&self.stack, service, ports)?,
            None => service.request.clone(),
        };
        let request = request.written_in(&self.home_of(service)?, context.environment().home());
        ServiceSpec::resolve(request, context.environment())
    }

    /// Returns the service with this key in this checkout; `None` if the file does not have it.
    pub(super) fn service_with_key(&self, key: &Key) -> Result<Option<&StackService>> {
        for service in &self.stack.services {
            if self.key(service)?.as_ref() == Some(key) {
                return Ok(Some(service));
            }
        }
        Ok(None)
    }

    /// Returns the record of a service; `None` if it was never registered.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub(super) fn record(&self, context: &Context, service: &StackService) -> Result<Option<Reservation>> {
        let hash = match self.key(service)? {
            Some(key) => ServiceHash::of_key(&key),
            None => self.written_spec(context, service, &Ports::new())?.hash,
        };
        context.registry.find(&hash)
    }
}

impl Names {
    fn new(stack: project::Stack, main: project::Stack, checkout: &Checkout) -> Self {
        let values = CheckoutNames {
            name: stack.checkout.to_string(),
            slug: stack.checkout.slug(),
            root: checkout.root.to_string_lossy().into_owned(),
        };
        Self { stack, main, values }
    }

    /// Returns the key of a service.
    fn key(&self, service: &StackService) -> Result<Key> {
        Key::new(if service.shared { &self.main } else { &self.stack }.key(&service.name))
    }

    /// Returns what a service asks for in this checkout: its key, its references with their values, and the variables of
    /// its siblings.
    fn request(&self, stack: &Stack, service: &StackService, ports: &Ports<'_>) -> Result<Request> {
        let scheme = |name: &str| stack.services.iter().find(|other| other.name == name)?.request.scheme.clone();
        let url = |name: &str| ports.get(name).map(|port| local_url(scheme(name).as_deref(), *port));
        let mut request = service.resolved(|reference| match reference {
            Reference::Port(name) => ports.get(name).map(u16::to_string),
            Reference::Url(name) => url(name),
            checkout => self.values.value_of(checkout),
        });
        // A shared service is the same for all checkouts, so it knows only services that are shared too.
        let mut values = sibling_variables(stack, ports, |other| other.shared || !service.shared);
        if !service.shared {
            values.push(("DEVPORT_SLUG".into(), self.values.slug.clone()));
        }
        if !service.shared && !self.values.is_main() {
            values.push(("COMPOSE_PROJECT_NAME".into(), format!("{}-{}", self.stack.name, self.values.name)));
        }
        request.env.insert(0, EnvSource::Values(values));
        request.key = Some(self.key(service)?);
        request.stack = Some(self.stack.name.clone());
        request.one_shot = service.one_shot;
        request.shared = service.shared;
        request.tmux_session.clone_from(&stack.tmux_session);
        if request.port != PortRequest::NoPort {
            request.port = PortRequest::ByHash;
        }
        Ok(request)
    }
}

/// Returns the variables with the ports and addresses of the services for which `is_sibling`.
fn sibling_variables(
    stack: &Stack,
    ports: &Ports<'_>,
    is_sibling: impl Fn(&StackService) -> bool,
) -> Vec<(String, String)> {
    let services = stack.services.iter().filter(|service| is_sibling(service));
    let with_port = services.filter_map(|service| Some((service, *ports.get(service.name.as_str())?)));
    let variables = |(service, port): (&StackService, u16)| {
        let url = local_url(service.request.scheme.as_deref(), port);
        [(service.port_variable(), port.to_string()), (service.url_variable(), url)]
    };
    with_port.flat_map(variables).collect()
}

/// Returns what a record says about the names of stacks; `None` if it cannot belong to one.
fn user(reservation: &Reservation) -> Option<StackUser<'_>> {
    let (key, root) = (reservation.key.as_ref()?, reservation.root.as_deref()?);
    Some(StackUser { key: key.as_str(), root, git_dir: reservation.git_dir.as_deref() })
}

/// Resolves the directory of a file, not the file: worktrees may share one file by symbolic links, and each has its own
/// services.
fn canonical(path: &Path) -> Result<PathBuf> {
    let failed = || Error::io("read", path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed()(io::ErrorKind::NotFound.into()));
    };
    Ok(directory.canonicalize().map_err(failed())?.join(name))
}
