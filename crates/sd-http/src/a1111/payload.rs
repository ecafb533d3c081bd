//! Reads the web UI's fields, and says them in our words.

use operations_contract::FieldError;
use serde_json::{Map, Value};

/// A request's fields, the operation that they become, and what is wrong with them.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    fields: &'a Map<String, Value>,
    taken: Vec<&'static str>,
    operation: Map<String, Value>,
    pub(crate) faults: Vec<FieldError>,
    /// Fields that say something which is not done here and changes no picture.
    pub(crate) ignored: Vec<String>,
}

/// Whether a value says nothing: absent, `null`, an empty text, list or object, `None`.
pub(crate) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || text == "None",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

impl<'a> Payload<'a> {
    pub(crate) fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, taken: Vec::new(), operation: Map::new(), faults: Vec::new(), ignored: Vec::new() }
    }

    /// A field; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.push(name);
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn refuse(&mut self, name: &str, value: &Value, message: impl Into<String>) {
        self.faults.push(FieldError::new(name, message).with_value(value.clone()));
    }

    /// A field under another name, whatever it is: the contract checks it.
    pub(crate) fn pass(&mut self, theirs: &'static str, ours: &str) {
        if let Some(value) = self.take(theirs) {
            self.put(ours, value.clone());
        }
    }

    pub(crate) fn put(&mut self, ours: &str, value: impl Into<Value>) {
        self.operation.insert(ours.to_owned(), value.into());
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let value = self.take(name)?;
        let text = value.as_str();
        if text.is_none() {
            self.refuse(name, value, "must be a text");
        }
        text
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Option<f64> {
        let value = self.take(name)?;
        let number = value.as_f64();
        if number.is_none() {
            self.refuse(name, value, "must be a number");
        }
        number
    }

    pub(crate) fn whole(&mut self, name: &'static str) -> Option<i64> {
        let value = self.take(name)?;
        // Sliders of some clients send 4.0.
        let number = value
            .as_i64()
            .or(value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64));
        if number.is_none() {
            self.refuse(name, value, "must be a whole number");
        }
        number
    }

    /// `true`, `false`, 0 or 1.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        let flag = value.as_bool().or(value.as_i64().filter(|n| matches!(n, 0 | 1)).map(|n| n == 1));
        if flag.is_none() {
            self.refuse(name, value, "must be true or false");
        }
        flag
    }

    /// A field that would change the picture in a way that is not possible here, unless it has a value that does not.
    pub(crate) fn only(&mut self, name: &'static str, harmless: impl Fn(&Value) -> bool, why: &str) {
        if let Some(value) = self.take(name).filter(|value| !harmless(value)) {
            self.refuse(name, value, why);
        }
    }

    /// A field that changes no picture.
    pub(crate) fn ignore(&mut self, name: &'static str, says_nothing: impl Fn(&Value) -> bool) {
        if self.take(name).is_some_and(|value| !says_nothing(value)) {
            self.ignored.push(name.to_owned());
        }
    }

    /// The operation, the faults, and the ignored fields with those that nobody knows.
    pub(crate) fn into_parts(mut self) -> (Value, Vec<FieldError>, Vec<String>) {
        let unknown = self.fields.keys().filter(|name| !self.taken.contains(&name.as_str()));
        self.ignored.extend(unknown.map(|name| name.chars().take(80).collect::<String>()));
        (Value::Object(self.operation), self.faults, self.ignored)
    }
}
