//! Pixels, in the one layout that crosses the seam to the generator.

/// A picture: 8-bit RGB, row by row, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

/// A mask: 8-bit grey, row by row, without padding; 255 is repainted, 0 is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    luma: Vec<u8>,
}

/// The number of bytes does not fit the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{width} x {height} pixels need {expected} bytes, not {found}")]
pub struct WrongPixelCount {
    width: u32,
    height: u32,
    expected: usize,
    found: usize,
}

fn check(width: u32, height: u32, channels: usize, found: usize) -> Result<(), WrongPixelCount> {
    let expected = width as usize * height as usize * channels;
    if found == expected { Ok(()) } else { Err(WrongPixelCount { width, height, expected, found }) }
}

impl Picture {
    /// Takes `3 * width * height` bytes.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, WrongPixelCount> {
        check(width, height, 3, rgb.len())?;
        Ok(Self { width, height, rgb })
    }

    /// One colour everywhere.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self { width, height, rgb: colour.repeat(width as usize * height as usize) }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The bytes.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }
}

impl Mask {
    /// Takes `width * height` bytes.
    pub fn from_luma(width: u32, height: u32, luma: Vec<u8>) -> Result<Self, WrongPixelCount> {
        check(width, height, 1, luma.len())?;
        Ok(Self { width, height, luma })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes.
    pub fn luma(&self) -> &[u8] {
        &self.luma
    }

    /// The bytes.
    pub fn into_luma(self) -> Vec<u8> {
        self.luma
    }
}

/// Tells the size only.
impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

/// Tells the size only.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} x {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_must_fit_the_size() {
        assert!(Picture::from_rgb(2, 3, vec![0; 18]).is_ok());
        let error = Picture::from_rgb(2, 3, vec![0; 17]).unwrap_err();
        assert_eq!(error.to_string(), "2 x 3 pixels need 18 bytes, not 17");
        assert!(Mask::from_luma(2, 3, vec![0; 6]).is_ok());
        assert!(Mask::from_luma(2, 3, vec![0; 18]).is_err());
    }
}
