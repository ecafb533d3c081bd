//! JSON files whose faults are told by their fields.

use serde::de::{DeserializeOwned, Error};

/// `text` as a `T`. Where a value has the wrong type, the message begins with its field, such as `` `models.a` ``.
///
/// # Errors
/// serde_json's, with line and column.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        let error = error.into_inner();
        // What is no JSON at all is told by its place; a dot stands for the whole document.
        match error.is_data() && field != "." {
            true => serde_json::Error::custom(format!("`{field}`: {error}")),
            false => error,
        }
    })?;
    deserializer.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::unet::UnetConfig;
    use crate::vae::VaeConfig;

    fn fault<T: DeserializeOwned>(text: &str) -> String {
        from_slice::<T>(text.as_bytes()).err().unwrap().to_string()
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_its_field_and_place() {
        let wanted = "is neither a whole number from 0 nor a list of such";
        for (text, told) in [
            ("{\n\"attention_head_dim\": -3}", format!("`attention_head_dim`: -3 {wanted}")),
            (r#"{"layers_per_block": [1, 2.5]}"#, format!("`layers_per_block`: [1,2.5] {wanted}")),
            (r#"{"num_attention_heads": "8"}"#, format!("`num_attention_heads`: \"8\" {wanted}")),
            (
                r#"{"in_channels": -4}"#,
                "`in_channels`: invalid value: integer `-4`, expected usize".to_owned(),
            ),
            (
                r#"{"block_out_channels": [32, null]}"#,
                "`block_out_channels[1]`: invalid type: null".to_owned(),
            ),
        ] {
            let message = fault::<UnetConfig>(text);
            assert!(message.starts_with(&told) && message.contains(" at line "), "{message}");
        }
        let message = fault::<VaeConfig>(r#"{"sample_size": [1, 2, 3]}"#);
        assert!(
            message.starts_with("`sample_size`: must be a whole number, or height and width"),
            "{message}"
        );
    }

    #[test]
    fn what_is_no_json_is_told_by_its_place() {
        for (text, told) in [
            ("{\"a\": 1", "EOF while parsing an object at line 1 column 7"),
            ("{} x", "trailing characters at line 1 column 4"),
            ("", "EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(fault::<Value>(text), told);
        }
        assert!(fault::<UnetConfig>("[1, 2]").starts_with("invalid type: sequence"));
    }
}
