//! Addresses of names that the allow-list needs. A name service that is dead must hold up neither start nor reload: each
//! question has a thread of its own, and whoever asks waits for a bounded time.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a name is resolved.
type Ask = dyn Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync;

/// Questions under way, one a name at most, and their last answers.
#[derive(Clone)]
pub(super) struct Names {
    state: Arc<(Mutex<Questions>, Condvar)>,
    ask: Arc<Ask>,
}

#[derive(Default)]
struct Questions {
    of: BTreeMap<String, Question>,
    /// Nobody waits any more.
    closed: bool,
}

struct Question {
    begun: Instant,
    under_way: bool,
    answer: Option<Vec<IpAddr>>,
}

impl Names {
    /// Asks the system: files, DNS and whatever else `nsswitch.conf` names.
    pub(super) fn of_system() -> Self {
        Self::new(|host| Some((host, 0).to_socket_addrs().ok()?.map(|address| address.ip().to_canonical()).collect()))
    }

    fn new(ask: impl Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { state: Arc::default(), ask: Arc::new(ask) }
    }

    /// Addresses of a host; an address is its own. `None`: it has none, or no answer came within `patience` of the
    /// question's begin. A question that is under way goes on, and no second one is asked beside it.
    pub(super) fn of(&self, host: &str, patience: Duration) -> Option<Vec<IpAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(vec![address.to_canonical()]);
        }
        self.begin(host);
        let (_, answered) = &*self.state;
        let mut questions = self.questions();
        loop {
            let question = questions.of.get(host).filter(|_| !questions.closed)?;
            if !question.under_way {
                return question.answer.clone();
            }
            let left = patience.checked_sub(question.begun.elapsed()).filter(|left| !left.is_zero())?;
            questions = answered.wait_timeout(questions, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The agent ends: whoever waits goes without an answer.
    pub(super) fn close(&self) {
        self.questions().closed = true;
        self.state.1.notify_all();
    }

    fn begin(&self, host: &str) {
        let mut questions = self.questions();
        if questions.closed || questions.of.get(host).is_some_and(|question| question.under_way) {
            return;
        }
        let (names, owned) = (self.clone(), host.to_owned());
        let started = std::thread::Builder::new().name("weir-names".into()).spawn(move || {
            let answer = (names.ask)(&owned);
            let (_, answered) = &*names.state;
            if let Some(question) = names.questions().of.get_mut(&owned) {
                (question.under_way, question.answer) = (false, answer);
            }
            answered.notify_all();
        });
        if let Err(error) = &started {
            tracing::debug!(%error, host, "nobody asks for its address");
        }
        let question = Question { begun: Instant::now(), under_way: started.is_ok(), answer: None };
        questions.of.insert(host.to_owned(), question);
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// A name service that answers when it is told to.
    fn slow() -> (Names, Sender<()>, Arc<Mutex<usize>>) {
        let (answer, answers) = channel();
        let (answers, asked) = (Mutex::new(answers), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&asked);
        let names = Names::new(move |_| {
            *count.lock().unwrap() += 1;
            answers.lock().unwrap().recv().ok().map(|()| vec!["192.0.2.1".parse().unwrap()])
        });
        (names, answer, asked)
    }

    #[test]
    fn an_address_needs_nobody() {
        let names = Names::new(|_| panic!("asked"));
        assert_eq!(names.of("::ffff:192.0.2.7", Duration::ZERO), Some(vec!["192.0.2.7".parse().unwrap()]));
    }

    #[test]
    fn a_dead_name_service_is_not_waited_for_and_asked_once() {
        let (names, answer, asked) = slow();
        assert_eq!(names.of("collector", Duration::ZERO), None);
        assert_eq!(names.of("collector", Duration::from_millis(1)), None);
        answer.send(()).unwrap();
        // Not asked for by `of`: where the answer is there before it, that is a second question.
        let begun = Instant::now();
        while names.questions().of["collector"].under_way && begun.elapsed() < LONG {
            std::thread::yield_now();
        }
        assert_eq!(names.questions().of["collector"].answer, Some(vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(*asked.lock().unwrap(), 1);
    }

    #[test]
    fn whoever_waits_is_told_the_answer() {
        let names = Names::new(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Some(vec!["192.0.2.1".parse().unwrap()])
        });
        assert_eq!(names.of("collector", LONG), Some(vec!["192.0.2.1".parse().unwrap()]));
    }

    #[test]
    fn whoever_waits_when_the_agent_ends_goes_without() {
        let (names, _answer, _) = slow();
        let waiting = names.clone();
        let waiter = std::thread::spawn(move || waiting.of("collector", LONG));
        while names.questions().of.is_empty() {
            std::thread::yield_now();
        }
        names.close();
        assert_eq!(waiter.join().unwrap(), None);
    }

    #[test]
    fn a_name_without_an_address_has_none() {
        let names = Names::new(|_| None);
        assert_eq!(names.of("nowhere.invalid", LONG), None);
    }
}
