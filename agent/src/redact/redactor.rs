//! The redactor: one for the process, shared.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Exchange, Http, Kind, Method, Operation, Service};

use super::learned::Learned;
use super::patterns::{BadTemplate, Patterns};
use super::target;

/// How much of a call may be kept and exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No path, query, header value or command line.
    #[default]
    Strict,
    /// As strict, and the path, allowed query values and headers, host, command line.
    Standard,
    /// As standard; bodies may be read in bounded windows, and are never exported.
    Inspect,
}

/// Settings of a [`Redactor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much may leave.
    pub level: Level,
    /// Query keys whose values may be shown at [`Level::Standard`] and above, to the letter. Keys that name a
    /// credential (`token`, `signature`, …) stay hidden even so.
    pub query: Vec<String>,
    /// The `User-Agent` header may be shown at [`Level::Standard`] and above.
    pub user_agent: bool,
    /// Known templates, in the order in which they are tried.
    pub templates: Vec<String>,
    /// Further templates kept for each service and method.
    pub limit: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: Level::Strict, query: Vec::new(), user_agent: false, templates: Vec::new(), limit: 200 }
    }
}

/// Paths whose template is remembered, and services whose command line was removed. Powers of two.
const REMEMBERED: usize = 4096;

#[derive(Clone, Debug)]
struct Remembered {
    path: u64,
    root: u64,
    route: Arc<str>,
}

#[derive(Debug)]
struct Memory {
    learned: Learned,
    routes: Vec<Option<Remembered>>,
    /// A service, and the same without its command line.
    services: Vec<Option<(Arc<Service>, Arc<Service>)>>,
}

/// Takes out of calls what must not leave the process, and names their endpoints.
#[derive(Debug)]
pub struct Redactor {
    level: Level,
    query: Vec<String>,
    user_agent: bool,
    patterns: Patterns,
    hasher: RandomState,
    memory: Mutex<Memory>,
}

impl Redactor {
    /// A redactor with nothing learned. Fails on a template that can't be used.
    pub fn new(settings: &Settings) -> Result<Self, BadTemplate> {
        Ok(Self {
            level: settings.level,
            query: settings.query.clone(),
            user_agent: settings.user_agent,
            patterns: Patterns::new(&settings.templates)?,
            hasher: RandomState::new(),
            memory: Mutex::new(Memory {
                learned: Learned::new(settings.limit),
                routes: vec![None; REMEMBERED],
                services: vec![None; REMEMBERED / 16],
            }),
        })
    }

    /// Sets the call's route and takes out what the level does not let through.
    pub fn apply(&self, exchange: &mut Exchange) {
        let memory = &mut *self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Operation::Http(http) = &exchange.call.operation;
        let route = target::path(&http.target).map(|path| self.route(memory, exchange, http, path));
        let kind = exchange.kind;
        let Operation::Http(http) = &mut exchange.call.operation;
        http.route = route;
        http.forwarded = None;
        http.sent = None;
        if self.level == Level::Strict || !self.user_agent {
            http.user_agent = None;
        }
        if self.level == Level::Strict {
            http.target = Box::default();
            // A client's host names its peer. A server's is what somebody wrote in a header.
            if kind == Kind::Server || !http.host.as_deref().is_some_and(target::is_host) {
                http.host = None;
            }
            memory.strip(&mut exchange.service);
            for peer in exchange.peer.iter_mut().chain(&mut exchange.via) {
                memory.strip(peer);
            }
        } else {
            http.target = target::shown(&http.target, &self.query);
            if let Some((_, host)) = http.host.as_deref().and_then(|host| host.rsplit_once('@')) {
                http.host = Some(host.into());
            }
        }
    }

    /// A service as it may be shown where it stands without a call.
    #[must_use]
    pub fn service(&self, service: &Arc<Service>) -> Arc<Service> {
        let mut shown = Arc::clone(service);
        if self.level == Level::Strict {
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).strip(&mut shown);
        }
        shown
    }

    fn route(&self, memory: &mut Memory, exchange: &Exchange, http: &Http, path: &str) -> Arc<str> {
        let mut root = self.hasher.build_hasher();
        match (&exchange.peer, exchange.kind) {
            (_, Kind::Server) => exchange.service.name.hash(&mut root),
            (Some(peer), Kind::Client) => peer.name.hash(&mut root),
            (None, Kind::Client) => match &http.host {
                Some(host) => host.hash(&mut root),
                None => exchange.connection.remote.hash(&mut root),
            },
        }
        match &http.method {
            Method::Known(name) => root.write(name.as_bytes()),
            // Unknown methods are told as one (semconv `_OTHER`).
            Method::Other(_) => root.write_u8(0),
        }
        let root = root.finish();
        let path_hash = self.hasher.hash_one(path);
        let at = (path_hash ^ root) as usize % REMEMBERED;
        if let Some(Some(known)) = memory.routes.get(at)
            && known.path == path_hash
            && known.root == root
        {
            return Arc::clone(&known.route);
        }
        let route = self.patterns.find(path).unwrap_or_else(|| {
            let (route, changed) = memory.learned.template(root, path);
            if changed {
                memory.routes.fill(None);
            }
            route
        });
        if let Some(slot) = memory.routes.get_mut(at) {
            *slot = Some(Remembered { path: path_hash, root, route: Arc::clone(&route) });
        }
        route
    }
}

impl Memory {
    /// Takes the command line off.
    fn strip(&mut self, service: &mut Arc<Service>) {
        if service.process.as_ref().is_none_or(|process| process.command_line.is_none()) {
            return;
        }
        // The address lies at a multiple of the allocator's alignment.
        let at = (Arc::as_ptr(service) as usize >> 4) % (REMEMBERED / 16);
        let Some(slot) = self.services.get_mut(at) else { return };
        match slot {
            Some((from, to)) if Arc::ptr_eq(from, service) => *service = Arc::clone(to),
            _ => {
                let mut bare = Service::clone(service);
                if let Some(process) = &mut bare.process {
                    process.command_line = None;
                }
                let bare = Arc::new(bare);
                let from = std::mem::replace(service, Arc::clone(&bare));
                *slot = Some((from, bare));
            }
        }
    }
}
