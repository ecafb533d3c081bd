//! Reads an object's fields one by one, and goes on after a broken one, so that all are told at once.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::FieldError;
use crate::image_data::ImageData;

/// The errors found so far; the first about a field is the one that counts.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<FieldError>);

impl Faults {
    pub(crate) fn push(&mut self, fault: FieldError) {
        if !self.0.iter().any(|known| known.field == fault.field) {
            self.0.push(fault);
        }
    }

    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// Refuses a whole number outside its range.
    pub(crate) fn whole(&mut self, field: &str, value: u64, range: RangeInclusive<u64>) {
        if !range.contains(&value) {
            self.push(outside(field, value.to_string(), value.into(), &limit(&range)));
        }
    }

    /// Refuses a number outside its range, and what is no number.
    pub(crate) fn number(&mut self, field: &str, value: f64, range: RangeInclusive<f64>) {
        if !range.contains(&value) {
            // JSON has no NaN: tell it as text.
            let told = if value.is_finite() { Value::from(value) } else { value.to_string().into() };
            self.push(outside(field, value.to_string(), told, &limit(&range)));
        }
    }

    /// Refuses a text that is too long.
    pub(crate) fn text(&mut self, field: &str, value: &str, max_chars: usize) {
        let chars = value.chars().count();
        if chars > max_chars {
            let message = format!("has {chars} characters; at most {max_chars} are allowed");
            self.push(FieldError::new(field, message).with_value(value).with_limit(max_chars));
        }
    }
}

fn limit<T: std::fmt::Display>(range: &RangeInclusive<T>) -> String {
    format!("{}..={}", range.start(), range.end())
}

fn outside(field: &str, shown: String, value: Value, limit: &str) -> FieldError {
    FieldError::new(field, format!("{shown} is outside {limit}")).with_value(value).with_limit(limit)
}

/// The fields of one object. A field that is taken is known; what is left at the end is refused by name.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    taken: Vec<&'static str>,
    prefix: String,
    faults: &'a mut Faults,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, prefix: String, faults: &'a mut Faults) -> Self {
        Self { map, taken: Vec::new(), prefix, faults }
    }

    /// The value of a field; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.taken.contains(&name) {
            self.taken.push(name);
        }
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn missing(&mut self, name: &str) {
        let path = self.path(name);
        self.faults.push(FieldError::new(path, "is required"));
    }

    pub(crate) fn conflict(&mut self, name: &str, message: &str) {
        let path = self.path(name);
        self.faults.push(FieldError::new(path, message));
    }

    fn fault(&mut self, name: &str, value: &Value, message: impl Into<String>) {
        let path = self.path(name);
        self.faults.push(FieldError::new(path, message).with_value(value.clone()));
    }

    fn wrong_type(&mut self, name: &str, value: &Value, wanted: &str) {
        self.fault(name, value, format!("must be {wanted}, not {}", type_name(value)));
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.take(name)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(name, value, "a text");
        }
        text
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong_type(name, value, "true or false");
        }
        flag
    }

    /// A number; whether it is in range, [`validate`](crate::validate) decides.
    pub(crate) fn number(&mut self, name: &'static str) -> Option<f64> {
        let value = self.take(name)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong_type(name, value, "a number");
        }
        number
    }

    /// A whole number. The range serves the message about one that no `u64` can hold.
    pub(crate) fn u64(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(name)?;
        let number = value.as_u64();
        match value {
            _ if number.is_some() => {}
            // Negative, or too large: out of range rather than of a wrong type.
            Value::Number(given) if given.as_f64().is_some_and(|n| n.fract() == 0.0) && !is_small(given) => {
                let path = self.path(name);
                self.faults.push(outside(&path, given.to_string(), value.clone(), &limit(&range)));
            }
            _ => self.wrong_type(name, value, "a whole number"),
        }
        number
    }

    /// A whole number that is kept as `u32`.
    pub(crate) fn u32(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u32> {
        let number = self.u64(name, range.clone())?;
        u32::try_from(number)
            .map_err(|_| {
                let path = self.path(name);
                self.faults.push(outside(&path, number.to_string(), number.into(), &limit(&range)));
            })
            .ok()
    }

    pub(crate) fn name<T: FromStr<Err = crate::UnknownName>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take(name)?;
        let Some(text) = value.as_str() else {
            self.wrong_type(name, value, "a name");
            return None;
        };
        text.parse().map_err(|unknown: crate::UnknownName| self.fault(name, value, unknown.to_string())).ok()
    }

    pub(crate) fn image(&mut self, name: &'static str) -> Option<ImageData> {
        let value = self.take(name)?;
        let Some(text) = value.as_str() else {
            self.wrong_type(name, value, "an image as base64 or as a data URL");
            return None;
        };
        let shown = Value::from(text.chars().take(40).collect::<String>());
        ImageData::from_text(text).map_err(|error| self.fault(name, &shown, error.to_string())).ok()
    }

    /// A field that is an object of its own.
    pub(crate) fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let value = self.take(name)?;
        let path = self.path(name);
        self.nested(value, path, read)
    }

    /// A field that is a list of objects.
    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
        max: usize,
        read: impl Fn(&mut Fields<'_>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.wrong_type(name, value, "a list");
            return Vec::new();
        };
        if items.len() > max {
            let message = format!("has {} entries; at most {max} are allowed", items.len());
            let path = self.path(name);
            self.faults.push(FieldError::new(path, message).with_limit(max));
            return Vec::new();
        }
        let path = self.path(name);
        let read_item = |(index, item)| self.nested(item, format!("{path}[{index}]"), &read);
        items.iter().enumerate().filter_map(read_item).collect()
    }

    fn nested<T>(
        &mut self,
        value: &Value,
        path: String,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let Some(map) = value.as_object() else {
            let message = format!("must be an object, not {}", type_name(value));
            self.faults.push(FieldError::new(path, message).with_value(value.clone()));
            return None;
        };
        let mut fields = Fields::new(map, format!("{path}."), &mut *self.faults);
        let read = read(&mut fields);
        fields.refuse_rest("the object");
        Some(read)
    }

    /// Looks at what was read, before the unknown fields are told.
    pub(crate) fn check(&mut self, look: impl FnOnce(&mut Faults)) {
        look(self.faults);
    }

    /// Every field that nobody took is unknown.
    pub(crate) fn refuse_rest(self, owner: &str) {
        for (name, value) in self.map {
            if !self.taken.iter().any(|taken| taken == name) {
                let shown = if name.is_empty() { "\"\"".to_owned() } else { name.chars().take(80).collect() };
                let known = self.taken.join(", ");
                let message = format!("is no field of {owner}; known: {known}");
                let fault = FieldError::new(format!("{}{shown}", self.prefix), message);
                self.faults.push(fault.with_value(value.clone()));
            }
        }
    }
}

/// Whether a number without a fraction was written as `20.0`: of a wrong type, not out of range.
fn is_small(number: &serde_json::Number) -> bool {
    number.is_f64() && number.as_f64().is_some_and(|n| (0.0..9.0e15).contains(&n))
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
