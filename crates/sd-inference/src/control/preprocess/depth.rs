//! Depth maps that were made elsewhere, brought to the range that depth nets know.

use image::{DynamicImage, GrayImage, Luma, RgbImage};

use super::to_rgb;

/// What is near in a depth map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Near {
    /// Near is bright, as nets want it.
    #[default]
    Bright,
    /// Near is dark: distances, as sensors and renderers write them.
    Dark,
}

/// A depth map of 8 or 16 bits with its nearest point white and its farthest black.
///
/// `round((value - least) / (most - least) * 255)`; a map that is the same everywhere becomes black.
pub fn depth(map: &DynamicImage, near: Near) -> RgbImage {
    let map = map.to_luma16();
    let values = || map.pixels().map(|pixel| pixel.0[0]);
    let (least, most) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let span = u32::from(most - least);
    let (width, height) = map.dimensions();
    let grey = GrayImage::from_fn(width, height, |x, y| {
        let above = u32::from(map.get_pixel(x, y).0[0] - least);
        let share = match near {
            Near::Bright => above,
            Near::Dark => span - above,
        };
        Luma([if span == 0 { 0 } else { ((2 * share * 255 + span) / (2 * span)) as u8 }])
    });
    to_rgb(&grey)
}

#[cfg(test)]
mod tests {
    use image::ImageBuffer;

    use super::*;

    fn greys(image: &RgbImage) -> Vec<u8> {
        assert!(image.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]));
        image.pixels().map(|pixel| pixel.0[0]).collect()
    }

    fn map16(values: [u16; 4]) -> DynamicImage {
        ImageBuffer::<Luma<u16>, _>::from_raw(4, 1, values.to_vec()).unwrap().into()
    }

    #[test]
    fn sixteen_bits_are_used_to_the_last() {
        let map = map16([1000, 1001, 1003, 1005]);
        assert_eq!(greys(&depth(&map, Near::Bright)), [0, 51, 153, 255]);
        assert_eq!(greys(&depth(&map, Near::Dark)), [255, 204, 102, 0]);
        assert_eq!(greys(&depth(&map16([0, 1, 32768, 65535]), Near::Bright)), [0, 0, 128, 255]);
    }

    #[test]
    fn eight_bits_too() {
        let map: DynamicImage = GrayImage::from_raw(3, 1, vec![50, 100, 150]).unwrap().into();
        assert_eq!(greys(&depth(&map, Near::Bright)), [0, 128, 255]);
    }

    #[test]
    fn a_map_without_depth_is_black() {
        assert_eq!(greys(&depth(&map16([7; 4]), Near::Bright)), [0; 4]);
        assert_eq!(greys(&depth(&map16([7; 4]), Near::Dark)), [0; 4]);
    }
}
