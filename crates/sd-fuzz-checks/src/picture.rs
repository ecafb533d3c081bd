//! Pictures that clients send.

use operations_contract::bounds::{MAX_INPUT_PIXELS, MAX_INPUT_SIDE};
use sd_engine::{inverted_mask, read_picture, read_texts, transparent_mask};

/// Any bytes that call themselves a picture are one within bounds, or are refused in words, by every reader of pictures. What is
/// a picture to one is to all.
pub fn picture(data: &[u8]) {
    let picture = read_picture(data);
    assert_eq!(inverted_mask(data).is_ok(), picture.is_ok());
    assert_eq!(transparent_mask(data).is_ok(), picture.is_ok());
    match &picture {
        Ok(picture) => {
            let (width, height) = (picture.width(), picture.height());
            assert!(width.max(height) <= MAX_INPUT_SIDE);
            assert!(u64::from(width) * u64::from(height) <= MAX_INPUT_PIXELS);
            assert_eq!(picture.rgb().len(), width as usize * height as usize * 3);
        }
        Err(error) => assert!(!error.is_empty()),
    }
    if let Err(error) = read_texts(data) {
        assert!(!error.is_empty());
    }
}
