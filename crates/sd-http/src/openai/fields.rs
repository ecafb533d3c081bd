//! Takes the fields that OpenAI defines out of a request, one by one; what is left is ours.

use operations_contract::FieldError;
use serde_json::{Map, Value};

/// The fields of a request, and what becomes of them.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    theirs: Map<String, Value>,
    ours: Map<String, Value>,
    faults: Vec<FieldError>,
}

impl Fields {
    pub(crate) fn new(theirs: Map<String, Value>) -> Self {
        Self { theirs, ..Self::default() }
    }

    /// A field of theirs; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.theirs.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn fault(&mut self, fault: FieldError) {
        self.faults.push(fault);
    }

    /// One of these words.
    pub(crate) fn word(&mut self, name: &str, words: &[&str]) -> Option<String> {
        let value = self.take(name)?;
        match value.as_str().filter(|word| words.contains(word)) {
            Some(word) => Some(word.to_owned()),
            None => {
                let message = format!("is none of {}", words.join(", "));
                self.faults
                    .push(FieldError::new(name, message).with_value(value).with_limit(words.join(", ")));
                None
            }
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.faults.push(FieldError::new(name, "must be a text").with_value(other));
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.take(name) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.faults.push(FieldError::new(name, "must be true or false").with_value(other));
                false
            }
        }
    }

    pub(crate) fn whole(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(name)?;
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let limit = format!("{}..={}", range.start(), range.end());
                let message = format!("must be a whole number in {limit}");
                self.faults.push(FieldError::new(name, message).with_value(value).with_limit(limit));
                None
            }
        }
    }

    /// Refuses a field that this worker cannot do anything with.
    pub(crate) fn refuse(&mut self, name: &str, why: &str) {
        if let Some(value) = self.take(name) {
            self.faults.push(FieldError::new(name, why).with_value(value));
        }
    }

    /// Says something in our words; `from` is where it was said in theirs.
    pub(crate) fn put(&mut self, ours: &str, from: &str, value: impl Into<Value>) {
        if self.theirs.get(ours).is_some_and(|value| !value.is_null()) {
            let message = format!("says what {ours} says: send one of them");
            self.faults.push(FieldError::new(from, message));
            return;
        }
        self.ours.insert(ours.to_owned(), value.into());
    }

    /// The same for a field within an object of ours.
    pub(crate) fn put_in(&mut self, object: &str, key: &str, from: &str, value: impl Into<Value>) {
        let given = self.theirs.get_mut(object).filter(|given| !given.is_null());
        let place = match given {
            Some(given) => given,
            None => self.ours.entry(object).or_insert_with(|| Value::Object(Map::new())),
        };
        // What is no object is refused with the rest.
        let Some(place) = place.as_object_mut() else { return };
        if place.get(key).is_some_and(|value| !value.is_null()) {
            let message = format!("says what {object}.{key} says: send one of them");
            self.faults.push(FieldError::new(from, message));
            return;
        }
        place.insert(key.to_owned(), value.into());
    }

    /// Whether the request says this in our words.
    pub(crate) fn ours(&self, name: &str) -> Option<&Value> {
        self.theirs.get(name).or(self.ours.get(name)).filter(|value| !value.is_null())
    }

    /// An operation as it would be posted, of what was said and of all fields that are left, and the faults so far.
    pub(crate) fn into_operation(mut self) -> (Value, Vec<FieldError>) {
        self.ours.extend(self.theirs);
        (Value::Object(self.ours), self.faults)
    }
}
