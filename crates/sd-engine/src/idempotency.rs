//! What makes a repeated submission the same job.

use operations_contract::Operation;
use sha2::{Digest, Sha256};

/// A key of a client's choice, and what it was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey {
    key: String,
    fingerprint: [u8; 32],
}

impl IdempotencyKey {
    /// The key, with the request's own fingerprint where it has one, else with that of its operation.
    pub(crate) fn of(key: String, request: Option<[u8; 32]>, operation: &Operation) -> Self {
        match request {
            Some(fingerprint) => Self { key, fingerprint },
            None => Self::new(key, operation),
        }
    }

    /// The key, with this operation as it was sent: before anything is filled in, so that what is drawn (a seed, say) does
    /// not make a difference.
    pub(crate) fn new(key: String, operation: &Operation) -> Self {
        let mut plain = operation.clone();
        let mut hash = Sha256::new();
        for (path, image) in plain.images_mut() {
            let image = std::mem::take(image);
            // Lengths before contents: no two requests run together to the same bytes.
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(&path);
            hash.update((image.len() as u64).to_le_bytes());
            hash.update(image.bytes());
        }
        // An operation is a plain object of texts and numbers: it always serializes.
        hash.update(serde_json::to_vec(&plain).unwrap_or_default());
        Self { key, fingerprint: hash.finalize().into() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.key
    }

    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use operations_contract::{ImageData, ImageTransform};

    use super::*;

    fn fingerprint(operation: &Operation) -> [u8; 32] {
        IdempotencyKey::new("k".into(), operation).fingerprint
    }

    #[test]
    fn a_request_that_tells_itself_counts_instead_of_its_operation() {
        let of =
            |request, prompt: &str| IdempotencyKey::of("k".into(), request, &Operation::generate(prompt));
        assert_eq!(of(Some([1; 32]), "a"), of(Some([1; 32]), "b"));
        assert_ne!(of(Some([1; 32]), "a"), of(Some([2; 32]), "a"));
        assert_eq!(of(None, "a"), IdempotencyKey::new("k".into(), &Operation::generate("a")));
    }

    #[test]
    fn what_is_sent_counts_and_nothing_else() {
        let transform = |bytes: &[u8]| {
            let init_image = ImageData::new(bytes);
            fingerprint(&Operation::ImageTransform(ImageTransform {
                init_image,
                ..ImageTransform::default()
            }))
        };
        assert_eq!(transform(b"a picture"), transform(b"a picture"));
        assert_ne!(transform(b"a picture"), transform(b"a pictuRe"));
        assert_ne!(fingerprint(&Operation::generate("a")), fingerprint(&Operation::generate("b")));
    }
}
