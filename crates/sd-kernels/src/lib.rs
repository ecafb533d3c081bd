//! CPU kernels for diffusion models behind safe functions.
