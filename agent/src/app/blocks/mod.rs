//! Drop decisions: the rules in force, what they met, who may be met at all, and the record of every change.

mod allow;
mod attempts;
mod book;
mod breaker;
mod change;
mod commit;
mod configure;
mod crowd;
mod document;
mod ends;
mod failures;
mod gate;
pub(super) mod groups;
mod health;
mod hits;
mod in_force;
mod judged;
mod list;
mod log;
mod mode;
mod names;
mod radius;
mod refused;
mod said;
mod session;
pub(super) mod sources;
mod tend;
mod verdict;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::config::Settings;
use crate::kernel::destroy::Destroyer;
use crate::policy::check::Arrival;
use crate::policy::rule::{Mode, Source};
use crate::policy::set::RuleSet;

use allow::Allowed;
use book::Book;
use breaker::Breaker;
use configure::{rise, threshold};
use crowd::Crowd;
use document::document;
use failures::Failures;
use in_force::InForce;
use log::Log;
use names::Names;
pub(super) use refused::Refused;

/// How long a rule holds that came by the control socket without a time.
const TTL: &str = "1h";
/// How long start and reload wait for the addresses of names on the allow-list; later ones come with the next look around.
const SOON: Duration = Duration::from_millis(500);
/// How long a look around waits for them.
const LATE: Duration = Duration::from_secs(10);

/// Drop decisions of this node.
pub(super) struct Blocks {
    book: Mutex<Book>,
    /// Changes that wait for the book.
    waiting: Mutex<VecDeque<commit::Waiting>>,
    /// What calls meet.
    in_force: Arc<InForce>,
    /// Some rule is in force.
    any: AtomicBool,
    /// Counts up whenever the identities that rules name may have changed.
    identities: AtomicU64,
    /// Up to which of these the capturing thread told them to the kernel half.
    told: AtomicU64,
    destroyer: Option<Destroyer>,
    /// Who is behind which address.
    crowd: Mutex<Crowd>,
    /// Who asked for a change last.
    asker: Mutex<session::Asker>,
    /// Which services fail.
    failures: Mutex<Failures>,
    /// The configuration, as far as the allow-list follows from it.
    settings: Mutex<Settings>,
    /// Addresses of the names in it.
    names: Names,
}

impl Blocks {
    /// Takes the configuration's rules, all of them or none.
    pub(super) fn new(settings: &Settings) -> Result<Self, Refused> {
        let set = RuleSet::new()?;
        let names = Names::of_system();
        let allowed = Allowed::gather(settings, &names, SOON);
        let in_force = Arc::new(InForce::new(set, allowed, Breaker::new(threshold(settings))));
        let book = Book {
            in_force: Arc::clone(&in_force),
            log: Log::new(settings.audit.clone()),
            made: 0,
            tripped: BTreeMap::new(),
            attempts: attempts::Attempts::default(),
            ends: ends::Ends::of(settings.state.as_deref()),
            configured: Mode::Monitor,
            refused: None,
            beaten: false,
        };
        let destroyer = Destroyer::start();
        if let Err(error) = &destroyer {
            tracing::warn!(%error, "refused connections are not ended; what they send is dropped");
        }
        let blocks = Self {
            book: Mutex::new(book),
            waiting: Mutex::default(),
            in_force,
            any: false.into(),
            identities: 0.into(),
            told: 0.into(),
            destroyer: destroyer.ok(),
            crowd: Mutex::default(),
            asker: Mutex::default(),
            failures: Mutex::new(Failures::new(rise(settings))),
            settings: Mutex::new(settings.clone()),
            names,
        };
        blocks.configure("config", settings)?;
        Ok(blocks)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent ends: nobody waits for names any more.
    pub(super) fn stop(&self) {
        self.names.close();
    }

    /// Rules have changed: it is told to those who look.
    fn note(&self, book: &Book) {
        self.any.store(book.set().rules().len() > 0, Ordering::Release);
        self.identities.fetch_add(1, Ordering::AcqRel);
    }
}

fn arrival(source: Source, author: Arc<str>, id: Arc<str>) -> Arrival {
    Arrival { source, author, monotonic_ns: clock::monotonic_ns(), unix_ns: clock::unix_ns(), id }
}
