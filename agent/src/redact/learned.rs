//! Templates by the shape of paths, bounded for each service and method.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::shape;

/// Words at one place of the path before it becomes `{*}`.
const FAN: usize = 64;
/// Segments of a template; the rest is `{*}`.
const DEPTH: usize = 12;
/// What may be remembered of all services, in units of 16 bytes; beyond it those that were used longest ago are
/// forgotten.
const ROOM: usize = 1 << 17;

/// What is remembered of a service and method.
#[derive(Debug, Default)]
struct Root {
    /// By the hash of the template up to here: hashes of the words that follow, or nothing where they became `{*}`.
    places: HashMap<u64, Option<HashSet<u64>>>,
    templates: HashSet<Arc<str>>,
    used: u64,
    room: usize,
}

/// All templates.
#[derive(Debug)]
pub(super) struct Learned {
    hasher: RandomState,
    roots: HashMap<u64, Root>,
    limit: usize,
    room: usize,
    clock: u64,
    beyond: Arc<str>,
}

impl Learned {
    /// `limit`: templates of a service and method.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            hasher: RandomState::new(),
            roots: HashMap::new(),
            limit: limit as usize,
            room: 0,
            clock: 0,
            beyond: Arc::from("/{*}"),
        }
    }

    /// The template of a path. The second is true when a place became `{*}`: what was told before of this root may
    /// be told differently now.
    pub(super) fn template(&mut self, root: u64, path: &str) -> (Arc<str>, bool) {
        self.clock += 1;
        let state = self.roots.entry(root).or_default();
        state.used = self.clock;
        let before = state.room;
        let mut template = String::with_capacity(path.len().min(256));
        let mut collapsed = false;
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        for (depth, segment) in segments.enumerate() {
            let segment = segment.split(';').next().unwrap_or_default();
            let place = self.hasher.hash_one(template.as_str());
            template.push('/');
            if depth == DEPTH {
                template.push_str("{*}");
                break;
            }
            if shape::is_value(segment) {
                template.push_str("{id}");
            } else if segment.is_empty()
                || state.takes(place, self.hasher.hash_one(segment), self.limit, &mut collapsed)
            {
                template.push_str(segment);
            } else {
                template.push_str("{*}");
            }
        }
        if collapsed {
            state.room -= state.templates.iter().map(|template| units(template)).sum::<usize>();
            state.templates.clear();
        }
        let known = state.templates.get(template.as_str()).map(Arc::clone);
        let told = known.unwrap_or_else(|| {
            if state.templates.len() >= self.limit {
                return Arc::clone(&self.beyond);
            }
            let told: Arc<str> = template.into();
            state.templates.insert(Arc::clone(&told));
            state.room += units(&told);
            told
        });
        self.room = self.room + state.room - before;
        if self.room > ROOM {
            self.forget();
        }
        (told, collapsed)
    }

    /// Forgets the half of the services that was used longest ago: rarely, so that a flood of new ones stays cheap.
    fn forget(&mut self) {
        let mut used: Vec<u64> = self.roots.values().map(|root| root.used).collect();
        let half = used.len() / 2;
        let (_, middle, _) = used.select_nth_unstable(half);
        let middle = *middle;
        self.roots.retain(|_, root| root.used > middle);
        self.room = self.roots.values().map(|root| root.room).sum();
    }

    /// What is remembered, as [`ROOM`] counts it.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.room
    }
}

fn units(template: &str) -> usize {
    2 + template.len() / 16
}

impl Root {
    /// A word at a place stays a word.
    fn takes(&mut self, place: u64, word: u64, limit: usize, collapsed: &mut bool) -> bool {
        let places = self.places.len();
        let Some(words) = self.places.get_mut(&place) else {
            // Deep trees of words have many places; those beyond belong to templates beyond the limit.
            if places >= limit.saturating_mul(4) {
                return false;
            }
            self.places.insert(place, Some(HashSet::from([word])));
            self.room += 2;
            return true;
        };
        let Some(known) = words else { return false };
        if known.contains(&word) {
            return true;
        }
        if known.len() < FAN {
            known.insert(word);
            self.room += 1;
            return true;
        }
        self.room -= known.len();
        *words = None;
        *collapsed = true;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(learned: &mut Learned, path: &str) -> String {
        learned.template(1, path).0.to_string()
    }

    /// A word that looks like one, different for each number.
    fn word(mut number: usize) -> String {
        let mut word = String::from("w");
        while number > 0 {
            word.extend([b"bdfgk"[number % 5] as char, b"aeiou"[number / 5 % 5] as char]);
            number /= 25;
        }
        word
    }

    #[test]
    fn by_shape() {
        let mut learned = Learned::new(200);
        for (path, template) in [
            ("/", "/"),
            ("/orders/17", "/orders/{id}"),
            ("/orders/17/lines/2/", "/orders/{id}/lines/{id}/"),
            ("/cart;jsessionid=abc/items", "/cart/items"),
            ("//a", "//a"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n", "/a/b/c/d/e/f/g/h/i/j/k/l/{*}"),
        ] {
            assert_eq!(told(&mut learned, path), template);
        }
    }

    #[test]
    fn a_place_with_many_words_becomes_one() {
        let mut learned = Learned::new(200);
        for i in 0..64 {
            let path = format!("/users/{}/posts", word(i));
            assert_eq!(learned.template(1, &path), (path.as_str().into(), false));
        }
        assert_eq!(learned.template(1, "/users/mallory/posts"), ("/users/{*}/posts".into(), true));
        assert_eq!(learned.template(1, "/users/w/posts"), ("/users/{*}/posts".into(), false));
        assert_eq!(told(&mut learned, "/users/17/posts"), "/users/{id}/posts");
        assert_eq!(told(&mut learned, "/health"), "/health");
        // Another root is not concerned.
        assert_eq!(&*learned.template(2, "/users/mallory/posts").0, "/users/mallory/posts");
    }

    #[test]
    fn templates_are_limited() {
        let mut learned = Learned::new(10);
        let paths: Vec<String> =
            (0..5).flat_map(|a| (0..5).map(move |b| format!("/{}/{}", word(a), word(b)))).collect();
        let different: HashSet<String> = paths.iter().map(|path| told(&mut learned, path)).collect();
        assert_eq!(different.len(), 11);
        assert!(different.contains("/{*}"));
        assert_eq!(told(&mut learned, &paths[0]), paths[0]);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut learned = Learned::new(200);
        for i in 0..30_000_usize {
            learned.template(i as u64 % 20_000, &format!("/{}/{}/{}", word(i % 50), word(i % 61), word(i)));
            assert!(learned.room() <= ROOM);
        }
        assert!(learned.roots.len() < 20_000);
        let counted: usize = learned.roots.values().map(|root| root.room).sum();
        assert_eq!(counted, learned.room());
    }
}
