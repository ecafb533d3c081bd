//! The pictures that a request carries, by the paths of their fields.

use crate::image_data::ImageData;
use crate::operation::Operation;

impl Operation {
    /// Every field that holds a picture, by its path as errors name it; those without one are empty.
    pub fn images_mut(&mut self) -> Vec<(String, &mut ImageData)> {
        let (common, mut images) = match self {
            Self::ImageGeneration(request) => (&mut request.common, Vec::new()),
            Self::ImageTransform(request) => {
                (&mut request.common, vec![("init_image".to_owned(), &mut request.init_image)])
            }
            Self::ImageInpaint(request) => (
                &mut request.common,
                vec![
                    ("init_image".to_owned(), &mut request.init_image),
                    ("mask_image".to_owned(), &mut request.mask_image),
                ],
            ),
            Self::ImageUpscale(request) => return vec![("image".to_owned(), &mut request.image)],
        };
        let controls = common.control.iter_mut().enumerate();
        images
            .extend(controls.map(|(index, control)| (format!("control[{index}].image"), &mut control.image)));
        images
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Control, ImageInpaint};

    #[test]
    fn every_picture_is_named_as_errors_name_it() {
        let control = Control {
            kind: "canny".into(),
            image: ImageData::new([3]),
            preprocess: crate::Preprocessor::None,
            strength: 1.0,
            start: 0.0,
            end: 1.0,
        };
        let mut request = ImageInpaint { init_image: ImageData::new([1]), ..ImageInpaint::default() };
        request.common.control = vec![control.clone(), control];
        let mut operation = Operation::ImageInpaint(request);
        let found: Vec<(String, usize)> =
            operation.images_mut().into_iter().map(|(path, image)| (path, image.len())).collect();
        let expected =
            [("init_image", 1), ("mask_image", 0), ("control[0].image", 1), ("control[1].image", 1)];
        assert_eq!(found, expected.map(|(path, len)| (path.to_owned(), len)));
    }
}
