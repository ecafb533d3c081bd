//! Pictures of a generation on its way.

use candle_core::Tensor;
use image::RgbImage;

use super::Generation;
use crate::Result;
use crate::preview::{Drawn, PendingPreview, PreviewMethod, Undecoded};

impl Generation {
    /// The first picture as the last step means it to become. `None` before the first step, and by
    /// [`PreviewMethod::LatentRgb`] for a model whose latents nobody can read, and by [`PreviewMethod::Taesd`] where none
    /// was loaded.
    ///
    /// # Errors
    /// As [`Generation::decode`].
    pub fn preview(&self, method: PreviewMethod) -> Result<Option<RgbImage>> {
        self.pending_preview(method)?.map(PendingPreview::picture).transpose()
    }

    /// As [`preview`](Self::preview), without what can be done beside the next step: scaling, and on the CPU what a tiny
    /// autoencoder decodes. The result holds the latents and the network it needs, and may go to another thread.
    ///
    /// By [`PreviewMethod::Vae`] the picture is decoded here, and by [`PreviewMethod::Taesd`] too where the pipeline is not
    /// on the CPU.
    ///
    /// # Errors
    /// As [`Generation::decode`].
    pub fn pending_preview(&self, method: PreviewMethod) -> Result<Option<PendingPreview>> {
        let Some((step, latents, prediction)) = &self.last else { return Ok(None) };
        let first = |tensor: &Tensor| tensor.narrow(0, 0, 1);
        let input = self.scheduler.scale_model_input(&first(latents)?, *step)?;
        let clean = self.scheduler.clean_sample(&first(prediction)?, *step, &input)?;
        let drawn = match (self.parts.tiny_decoder(method), method, &self.parts.info.latent_rgb) {
            (Some(tiny), ..) => {
                let undecoded = Undecoded::new(tiny, clean, self.canvas.seamless);
                match self.parts.decodes_beside() {
                    true => Drawn::Later(undecoded),
                    false => Drawn::Picture(undecoded.decode(&mut || Ok(()))?),
                }
            }
            (None, PreviewMethod::Vae, _) => Drawn::Picture(self.drawn(&clean)?),
            (None, PreviewMethod::LatentRgb, Some(map)) => Drawn::Picture(map.picture(&clean)?),
            (None, ..) => return Ok(None),
        };
        let size = (self.width as u32, self.height as u32);
        Ok(Some(PendingPreview::new(drawn, size, self.paste.clone())))
    }
}
