//! The JSON of a request.

use operations_contract::{Operation, ParsedOperation};
use serde_json::Value;

/// Any JSON is an operation inside all bounds, which survives the way out and in, or it is refused with a reason.
pub fn contract(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let ParsedOperation { operation, faults } = Operation::parse(&value);
    assert!(faults.iter().all(|fault| !fault.field.is_empty() && !fault.message.is_empty()));
    let Some(operation) = operation else {
        assert!(!faults.is_empty(), "nothing was read, and nobody is told why");
        return;
    };
    if !faults.is_empty() {
        return;
    }
    assert_eq!(operation.validate(), Ok(()), "what was read without a fault is valid");
    let text = serde_json::to_string(&operation).unwrap();
    let again = Operation::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(again, operation, "{text}");
}
