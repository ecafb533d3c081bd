//! Model families of Stable Diffusion on one layer module: CLIP, UNet, VAE and their files.
