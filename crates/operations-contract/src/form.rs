//! Fields as an HTML form sends them: as text, all of them.

use serde_json::Value;

/// Fields that are texts whatever stands in them: a prompt `1984` is no number.
const TEXTS: [&str; 8] = [
    "operation",
    "prompt",
    "negative_prompt",
    "prompt_2",
    "negative_prompt_2",
    "model",
    "hive_id",
    "worker_id",
];

/// The value of a field that came as text, as it would stand in JSON: numbers, `true`, `false`, lists and objects are
/// read as such, save in fields that are texts by themselves; everything else is text. A number that is not written as
/// JSON has it stays text and is refused with the others that are of a wrong type.
///
/// ```
/// use operations_contract::field_of_form;
/// use serde_json::json;
///
/// assert_eq!(field_of_form("steps", "20"), json!(20));
/// assert_eq!(field_of_form("prompt", "20"), json!("20"));
/// assert_eq!(field_of_form("output", r#"{"format": "jpeg"}"#), json!({"format": "jpeg"}));
/// assert_eq!(field_of_form("sampler", "euler"), json!("euler"));
/// ```
pub fn field_of_form(name: &str, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    if TEXTS.contains(&name) {
        return as_text();
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_))) => value,
        // `null` and quoted texts mean themselves in a form.
        _ => as_text(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Operation;

    #[test]
    fn every_text_field_takes_what_looks_like_a_number() {
        let mut body = json!({"operation": "image_generation"});
        for name in TEXTS.iter().filter(|name| **name != "operation") {
            body[*name] = field_of_form(name, "1984");
        }
        let operation = Operation::from_json(&body).unwrap();
        let told = serde_json::to_value(&operation).unwrap();
        for name in TEXTS.iter().filter(|name| **name != "operation") {
            assert_eq!(told[*name], "1984", "{name}");
        }
    }

    #[test]
    fn a_whole_form_is_an_operation() {
        let fields = [
            ("operation", "image_generation"),
            ("prompt", "a {cat}"),
            ("steps", "7"),
            ("guidance_scale", "2.5"),
            ("seed", "18446744073709551615"),
            ("sampler", "euler_a"),
            ("prompt_weighting", "false"),
            ("loras", r#"[{"name": "ink"}]"#),
        ];
        let body: serde_json::Map<_, _> =
            fields.iter().map(|(name, text)| ((*name).to_owned(), field_of_form(name, text))).collect();
        let operation = Operation::from_json(&body.into()).unwrap();
        let common = operation.common().unwrap();
        assert_eq!((common.steps, common.seed), (Some(7), Some(u64::MAX)));
        assert_eq!((common.guidance_scale, common.prompt_weighting), (Some(2.5), Some(false)));
        assert_eq!((common.prompt.as_str(), common.loras.len()), ("a {cat}", 1));
    }
}
