"""The shapes of the published models, and those models with random weights.

The configurations are those of `sd-worker bench --random` (crates/sd-inference/src/pipeline/random.rs).
"""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

CLIP_L = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
              num_attention_heads=12, hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407)
OPEN_CLIP_H = CLIP_L | dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
                            hidden_act="gelu")
OPEN_CLIP_BIG_G = CLIP_L | dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32,
                                num_attention_heads=20, hidden_act="gelu", projection_dim=1280)

UNET_SD15 = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
UNET_SD21 = dict(sample_size=96, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20],
                 use_linear_projection=True)
UNET_SDXL = dict(sample_size=128, cross_attention_dim=2048, attention_head_dim=[5, 10, 20],
                 use_linear_projection=True, block_out_channels=[320, 640, 1280],
                 transformer_layers_per_block=[1, 2, 10],
                 down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                 up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                 addition_embed_type="text_time", addition_time_embed_dim=256,
                 projection_class_embeddings_input_dim=2816)

VAE = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
DDIM = BETAS | dict(set_alpha_to_one=False, clip_sample=False)

# name: (text encoders as (class, configuration), UNet, VAE, scheduler). SD 1.5 runs on ddim, as in `sd-worker bench`.
FAMILIES = {
    "sd15": ([(CLIPTextModel, CLIP_L)], UNET_SD15, VAE | dict(scaling_factor=0.18215), (DDIMScheduler, DDIM)),
    "sd21": ([(CLIPTextModel, OPEN_CLIP_H)], UNET_SD21, VAE | dict(scaling_factor=0.18215),
             (DDIMScheduler, DDIM | dict(prediction_type="v_prediction"))),
    "sdxl": ([(CLIPTextModel, CLIP_L), (CLIPTextModelWithProjection, OPEN_CLIP_BIG_G)], UNET_SDXL,
             VAE | dict(scaling_factor=0.13025),
             (EulerDiscreteScheduler, BETAS | dict(timestep_spacing="leading"))),
}


def text_encoders(family, dtype):
    return [filled(lambda: kind(CLIPTextConfig(**config)), dtype) for kind, config in FAMILIES[family][0]]


def unet(family, dtype):
    return filled(lambda: UNet2DConditionModel(**FAMILIES[family][1]), dtype)


def vae(family, dtype):
    return filled(lambda: AutoencoderKL(**FAMILIES[family][2]), dtype)


def scheduler(family):
    kind, config = FAMILIES[family][3]
    return kind(**config)


def filled(make, dtype):
    """A model whose weights are made up directly in `dtype`: nothing is initialised twice or held in two formats."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = make().eval()
    finally:
        torch.set_default_dtype(default)
    model = model.to_empty(device="cpu")
    # The same million numbers again and again: products take no shorter for it, and drawing 3 billion takes a minute.
    numbers = torch.empty(1 << 20).uniform_(-0.035, 0.035, generator=torch.Generator().manual_seed(0)).to(dtype)
    for name, weight in model.named_parameters():
        # Norms pass on what they get; all else stays near the size that it has in trained models. Numbers so small
        # or large that they would be computed slower come up nowhere.
        if weight.ndim == 1:
            weight.data.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            for piece in weight.data.view(-1).split(len(numbers)):
                piece.copy_(numbers[: len(piece)])
    for name, buffer in model.named_buffers():
        if not name.endswith("position_ids"):
            raise ValueError(f"nothing is known of the buffer {name}")
        buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return model
