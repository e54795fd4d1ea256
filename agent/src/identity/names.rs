//! Names of addresses, as DNS told them to processes of this node.
//!
//! A name counts for its TTL, in the network namespace in which it was asked for. Where several names for an address are
//! alive at once, only the process that asked for one of them alone has a name for it: everybody else's connection there
//! could be meant for any of them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Addresses, Lookup};

/// Questions that may wait for their answers.
const QUESTIONS: usize = 4096;
/// How long a question waits, nanoseconds: resolvers give up earlier (glibc after 5 s, resolv.conf(5)).
const PATIENCE: u64 = 30_000_000_000;
/// Addresses that are known at once, and names with who asked for each. What would be more is not learned.
const PLACES: usize = 16 * 1024;
const CLAIMS: usize = 32;
/// Processes that are told apart.
const ASKERS: usize = 16 * 1024;
/// How long after its TTL a name still counts, nanoseconds: from the answer to the connection it takes its time.
const GRACE: u64 = 5_000_000_000;
/// Longest TTL that is believed, seconds: as resolvers cut it (RFC 8767 §4 speaks of days).
const LONGEST: u32 = 86_400;
const SECOND: u64 = 1_000_000_000;

/// Who asks: a process, told from others that have its number later. 0: unknown.
type Asker = u64;

/// Who is told by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// No name for the address is alive.
    No,
    /// This one alone could be meant.
    As(Arc<str>),
    /// Several could.
    Several,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is kept.
    Kept,
    /// Nobody asked so, or the answer came already.
    Unasked,
    /// There is no room for more addresses.
    Full,
}

#[derive(Debug)]
struct Question {
    lookup: Lookup,
    netns: u64,
    asker: Asker,
    at: u64,
}

#[derive(Debug)]
struct Claim {
    name: Arc<str>,
    asker: Asker,
    until: u64,
}

#[derive(Debug, Default)]
struct Place {
    claims: Vec<Claim>,
    /// Before then there are more names than are kept.
    crowded: u64,
}

/// Names by address. Bounded; what does not fit is not learned, and what is known is not forgotten for it before its
/// time: a name must not look like the only one because another had to leave.
#[derive(Debug, Default)]
pub(crate) struct Names {
    waiting: HashMap<(u64, u16), Question>,
    order: VecDeque<(u64, (u64, u16))>,
    places: HashMap<(u64, IpAddr), Place>,
    askers: HashMap<u32, Asker>,
    last_asker: Asker,
    swept: u64,
}

impl Names {
    /// A socket asked at `at` (`CLOCK_MONOTONIC` nanoseconds); `tgid` 0: by an unknown process.
    pub(crate) fn asked(&mut self, cookie: u64, netns: u64, tgid: u32, lookup: Lookup, at: u64) {
        while let Some(&(since, key)) = self.order.front()
            && (self.order.len() >= QUESTIONS || since.saturating_add(PATIENCE) < at)
        {
            self.order.pop_front();
            // It may have been asked anew since.
            if self.waiting.get(&key).is_some_and(|question| question.at == since) {
                self.waiting.remove(&key);
            }
        }
        let asker = self.asker(tgid);
        let key = (cookie, lookup.id);
        self.order.push_back((at, key));
        self.waiting.insert(key, Question { lookup, netns, asker, at });
    }

    /// A socket was answered.
    pub(crate) fn answered(&mut self, cookie: u64, told: &Addresses, at: u64) -> Heard {
        let key = (cookie, told.lookup.id);
        let fits = |question: &Question| question.lookup == told.lookup && at.saturating_sub(question.at) <= PATIENCE;
        if !self.waiting.get(&key).is_some_and(fits) {
            return Heard::Unasked;
        }
        let Some(question) = self.waiting.remove(&key) else { return Heard::Unasked };
        let name: Arc<str> = Arc::from(&*told.lookup.name);
        let mut heard = Heard::Kept;
        for (address, ttl) in &told.found {
            let until = at.saturating_add(u64::from((*ttl).min(LONGEST)) * SECOND).saturating_add(GRACE);
            let place = (question.netns, address.to_canonical());
            if !self.places.contains_key(&place) && !self.has_room(at) {
                heard = Heard::Full;
                continue;
            }
            self.places.entry(place).or_default().claim(&name, question.asker, until, at);
        }
        heard
    }

    /// A process ended: who has its number next is another.
    pub(crate) fn gone(&mut self, tgid: u32) {
        self.askers.remove(&tgid);
    }

    /// What the address of a connection goes by that `tgid` opened at `at`.
    pub(crate) fn of(&self, netns: u64, address: IpAddr, tgid: u32, at: u64) -> Named {
        let Some(place) = self.places.get(&(netns, address.to_canonical())) else { return Named::No };
        let alive = || place.claims.iter().filter(|claim| claim.until >= at);
        if let Some(asker) = self.askers.get(&tgid) {
            match only(alive().filter(|claim| claim.asker == *asker)) {
                Named::No => {}
                // Of a crowd it may be that this one asked for more.
                Named::As(_) if at < place.crowded => return Named::Several,
                named => return named,
            }
        }
        match only(alive()) {
            // Without namespaces told apart, somebody else's name may be for somebody else's address.
            Named::As(_) if netns == 0 => Named::No,
            Named::As(_) if at < place.crowded => Named::Several,
            named => named,
        }
    }

    fn asker(&mut self, tgid: u32) -> Asker {
        if tgid == 0 {
            return 0;
        }
        if let Some(asker) = self.askers.get(&tgid) {
            return *asker;
        }
        if self.askers.len() >= ASKERS {
            self.askers.clear();
        }
        self.last_asker += 1;
        self.askers.insert(tgid, self.last_asker);
        self.last_asker
    }

    fn has_room(&mut self, now: u64) -> bool {
        if self.places.len() < PLACES {
            return true;
        }
        // A look at all of them costs; once a second is enough.
        if self.swept.saturating_add(SECOND) <= now {
            self.swept = now;
            self.places.retain(|_, place| now < place.crowded || place.claims.iter().any(|it| it.until >= now));
        }
        self.places.len() < PLACES
    }
}

impl Place {
    fn claim(&mut self, name: &Arc<str>, asker: Asker, until: u64, now: u64) {
        if let Some(same) = self.claims.iter_mut().find(|claim| claim.asker == asker && claim.name == *name) {
            same.until = same.until.max(until);
            return;
        }
        self.claims.retain(|claim| claim.until >= now);
        if self.claims.len() < CLAIMS {
            let known = self.claims.iter().find(|claim| claim.name == *name);
            let name = known.map_or_else(|| Arc::clone(name), |claim| Arc::clone(&claim.name));
            self.claims.push(Claim { name, asker, until });
        } else if self.claims.iter().all(|claim| claim.name == *name) {
            // Many ask for the one name: that somebody more does changes nothing for who did not ask.
            if let Some(last) = self.claims.last_mut() {
                last.until = last.until.max(until);
            }
        } else {
            self.crowded = self.crowded.max(until.saturating_add(1));
        }
    }
}

/// The one name of all these claims.
fn only<'a>(mut claims: impl Iterator<Item = &'a Claim>) -> Named {
    let Some(first) = claims.next() else { return Named::No };
    if claims.all(|claim| claim.name == first.name) { Named::As(Arc::clone(&first.name)) } else { Named::Several }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: u64 = 5;

    fn lookup(id: u16, name: &str) -> Lookup {
        Lookup { id, name: name.into(), v6: false }
    }

    fn told(id: u16, name: &str, address: &str, ttl: u32) -> Addresses {
        Addresses { lookup: lookup(id, name), found: vec![(address.parse().unwrap(), ttl)] }
    }

    fn learn(names: &mut Names, tgid: u32, name: &str, ttl: u32, at: u64) {
        names.asked(1, NS, tgid, lookup(1, name), at);
        assert_eq!(names.answered(1, &told(1, name, "192.0.2.1", ttl), at), Heard::Kept);
    }

    fn of(names: &Names, tgid: u32, at: u64) -> Named {
        names.of(NS, "192.0.2.1".parse().unwrap(), tgid, at)
    }

    fn named(name: &str) -> Named {
        Named::As(name.into())
    }

    #[test]
    fn a_name_lives_as_long_as_its_ttl() {
        let mut names = Names::default();
        learn(&mut names, 7, "a.test", 10, 0);
        for (at, expected) in [(0, named("a.test")), (15 * SECOND, named("a.test")), (15 * SECOND + 1, Named::No)] {
            assert_eq!(of(&names, 7, at), expected);
            assert_eq!(of(&names, 8, at), expected);
            assert_eq!(names.of(6, "192.0.2.1".parse().unwrap(), 7, at), Named::No);
        }
    }

    #[test]
    fn of_two_names_only_who_asked_for_one_has_one() {
        let mut names = Names::default();
        learn(&mut names, 7, "a.test", 10, 0);
        learn(&mut names, 8, "b.test", 100, 0);
        assert_eq!([7, 8, 9].map(|tgid| of(&names, tgid, 1)), [named("a.test"), named("b.test"), Named::Several]);
        assert_eq!(of(&names, 9, 20 * SECOND), named("b.test"));
        learn(&mut names, 7, "b.test", 10, 2);
        assert_eq!(of(&names, 7, 3), Named::Several);
    }

    #[test]
    fn a_number_that_another_process_has_now_says_nothing() {
        let mut names = Names::default();
        learn(&mut names, 7, "a.test", 10, 0);
        learn(&mut names, 8, "b.test", 10, 0);
        names.gone(7);
        assert_eq!(of(&names, 7, 1), Named::Several);
        learn(&mut names, 7, "c.test", 10, 2);
        assert_eq!(of(&names, 7, 3), named("c.test"));
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let mut names = Names::default();
        let lie = |names: &mut Names, cookie, id, name| names.answered(cookie, &told(id, name, "192.0.2.1", 9), 1);
        names.asked(1, NS, 7, lookup(1, "a.test"), 0);
        assert_eq!(lie(&mut names, 1, 1, "b.test"), Heard::Unasked);
        assert_eq!(lie(&mut names, 1, 2, "a.test"), Heard::Unasked);
        assert_eq!(lie(&mut names, 2, 1, "a.test"), Heard::Unasked);
        assert_eq!(of(&names, 7, 2), Named::No);
        assert_eq!(lie(&mut names, 1, 1, "a.test"), Heard::Kept);
        assert_eq!(lie(&mut names, 1, 1, "a.test"), Heard::Unasked);
    }

    #[test]
    fn without_namespaces_only_who_asked_has_a_name() {
        let mut names = Names::default();
        names.asked(1, 0, 7, lookup(1, "a.test"), 0);
        names.answered(1, &told(1, "a.test", "192.0.2.1", 9), 0);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!((names.of(0, address, 7, 1), names.of(0, address, 8, 1)), (named("a.test"), Named::No));
    }

    #[test]
    fn floods_stay_within_bounds_and_hide_no_second_name() {
        let mut names = Names::default();
        for i in 0..2 * CLAIMS as u32 {
            learn(&mut names, 100 + i, &format!("n{i}.test"), 100, 0);
        }
        assert_eq!(of(&names, 100, 1), Named::Several);
        for i in 0..2 * PLACES as u32 {
            names.asked(u64::from(i), NS, 1000 + i, lookup(1, "x.test"), 1);
            let address = std::net::Ipv4Addr::from(i).to_string();
            names.answered(u64::from(i), &told(1, "x.test", &address, 100), 1);
        }
        assert!(names.places.len() <= PLACES && names.waiting.len() <= QUESTIONS && names.askers.len() <= ASKERS);
        assert_eq!(of(&names, 100, 2), Named::Several);
        // What is over makes room.
        names.asked(1, NS, 7, lookup(1, "y.test"), 200 * SECOND);
        let heard = names.answered(1, &told(1, "y.test", "198.51.100.1", 9), 200 * SECOND);
        assert_eq!((heard, names.places.len()), (Heard::Kept, 1));
    }
}
