//! Bytes of an image file as they stand in JSON: base64, or a data URL.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The bytes of an image file. Cloning shares them; on the wire they are base64.
///
/// The crate does not look inside: whether they are a PNG is for the worker to find out.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ImageData(Arc<[u8]>);

/// Text that is no base64 image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageDataError {
    /// No bytes at all.
    #[error("is empty")]
    Empty,
    /// An address: the worker fetches nothing.
    #[error("is an address; images are sent as base64 or as a data URL")]
    Address,
    /// `data:` without `;base64,`.
    #[error("is a data URL without `;base64,`")]
    DataUrl,
    /// Not base64.
    #[error("is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
}

impl ImageData {
    /// Takes the bytes of an image file.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Decodes base64 (line breaks are forgiven) or a `data:...;base64,` URL.
    pub fn from_text(text: &str) -> Result<Self, ImageDataError> {
        let text = text.trim();
        let encoded = match text.strip_prefix("data:") {
            Some(url) => url.split_once(";base64,").ok_or(ImageDataError::DataUrl)?.1,
            None if text.starts_with("http://") || text.starts_with("https://") => {
                return Err(ImageDataError::Address);
            }
            None => text,
        };
        let bytes = if encoded.contains(['\n', '\r', ' ']) {
            STANDARD.decode(encoded.split_ascii_whitespace().collect::<String>())?
        } else {
            STANDARD.decode(encoded)?
        };
        if bytes.is_empty() {
            return Err(ImageDataError::Empty);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the file, shared.
    pub fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// How many bytes the file has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as base64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

/// Tells the length only: images do not belong into logs.
impl fmt::Debug for ImageData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageData({} bytes)", self.0.len())
    }
}

impl Serialize for ImageData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for ImageData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_text(&text).map_err(|error| de::Error::custom(format!("the image {error}")))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for ImageData {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ImageData".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 1,
            "contentEncoding": "base64",
            "description": "The bytes of an image file as base64; in requests a data URL is taken as well.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_wrapped_and_data_url_are_the_same_bytes() {
        let plain = ImageData::from_text("aGVsbG8=").unwrap();
        assert_eq!(plain.bytes(), b"hello");
        assert_eq!(ImageData::from_text(" aGVs\r\nbG8=\n").unwrap(), plain);
        assert_eq!(ImageData::from_text("data:image/png;base64,aGVsbG8=").unwrap(), plain);
        assert_eq!(plain.to_base64(), "aGVsbG8=");
    }

    #[test]
    fn what_is_no_image_text_is_refused_for_its_own_reason() {
        assert_eq!(ImageData::from_text(""), Err(ImageDataError::Empty));
        assert_eq!(ImageData::from_text("https://example.org/a.png"), Err(ImageDataError::Address));
        assert_eq!(ImageData::from_text("data:image/png,abc"), Err(ImageDataError::DataUrl));
        assert!(matches!(ImageData::from_text("a*b"), Err(ImageDataError::Base64(_))));
    }

    #[test]
    fn debug_never_prints_the_bytes() {
        assert_eq!(format!("{:?}", ImageData::new(*b"secret")), "ImageData(6 bytes)");
    }
}
