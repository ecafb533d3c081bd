//! What was encoded lately, so that the same text is not encoded again.

use std::collections::VecDeque;

/// A small store that forgets what was used longest ago, bounded in entries and in weight.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    /// The latest first.
    entries: VecDeque<(K, V, usize)>,
    weight: usize,
    max_entries: usize,
    max_weight: usize,
}

impl<K: PartialEq, V: Clone> Cache<K, V> {
    pub(crate) fn new(max_entries: usize, max_weight: usize) -> Self {
        Self { entries: VecDeque::new(), weight: 0, max_entries, max_weight }
    }

    pub(crate) fn find(&mut self, key: &K) -> Option<V> {
        let at = self.entries.iter().position(|(known, ..)| known == key)?;
        let entry = self.entries.remove(at)?;
        let value = entry.1.clone();
        self.entries.push_front(entry);
        Some(value)
    }

    /// Keeps a value that weighs `weight`, unless it is too heavy for the whole store.
    pub(crate) fn keep(&mut self, key: K, value: V, weight: usize) {
        if weight > self.max_weight {
            return;
        }
        self.forget(&key);
        self.entries.push_front((key, value, weight));
        self.weight += weight;
        while self.entries.len() > self.max_entries || self.weight > self.max_weight {
            let Some((.., weight)) = self.entries.pop_back() else { break };
            self.weight -= weight;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.weight = 0;
    }

    fn forget(&mut self, key: &K) {
        if let Some(at) = self.entries.iter().position(|(known, ..)| known == key)
            && let Some((.., weight)) = self.entries.remove(at)
        {
            self.weight -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_lately_used_goes_first() {
        let mut cache = Cache::new(2, 100);
        cache.keep("a", 1, 1);
        cache.keep("b", 2, 1);
        assert_eq!(cache.find(&"a"), Some(1));
        cache.keep("c", 3, 1);
        assert_eq!((cache.find(&"a"), cache.find(&"b"), cache.find(&"c")), (Some(1), None, Some(3)));
        cache.keep("a", 4, 1);
        assert_eq!((cache.find(&"a"), cache.find(&"c")), (Some(4), Some(3)));
        cache.clear();
        assert_eq!(cache.find(&"a"), None);
    }

    #[test]
    fn the_weight_is_bounded() {
        let mut cache = Cache::new(10, 10);
        cache.keep("heavy", 0, 11);
        assert_eq!(cache.find(&"heavy"), None);
        for (key, weight) in [("a", 4), ("b", 4), ("c", 4)] {
            cache.keep(key, 1, weight);
        }
        assert_eq!((cache.find(&"a"), cache.find(&"b"), cache.find(&"c")), (None, Some(1), Some(1)));
        cache.keep("b", 2, 6);
        assert_eq!((cache.find(&"b"), cache.find(&"c")), (Some(2), Some(1)));
    }
}
