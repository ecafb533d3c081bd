//! Stable Diffusion pipelines as a stepper: schedulers, guidance, noise, text to image.
