"""The three networks, small enough to ship inside a program."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

from scene import SIZE

VAE_WIDTHS = [16, 16, 32, 64]
FACTOR = 2 ** (len(VAE_WIDTHS) - 1)   # pixels per latent, each way
TEXT_WIDTH = 128
TEXT_TOKENS = 32     # captions need about 20; every further token costs time


def make_vae():
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=SIZE,
        down_block_types=["DownEncoderBlock2D"] * len(VAE_WIDTHS),
        up_block_types=["UpDecoderBlock2D"] * len(VAE_WIDTHS),
        block_out_channels=VAE_WIDTHS, layers_per_block=1, norm_num_groups=8)
    return plain_attention(vae)


def make_unet():
    unet = UNet2DConditionModel(
        sample_size=SIZE // FACTOR, in_channels=4, out_channels=4,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[64, 96], layers_per_block=1, norm_num_groups=16,
        attention_head_dim=4, cross_attention_dim=TEXT_WIDTH)
    return plain_attention(unet)


def make_text_encoder(tokenizer):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=TEXT_TOKENS,
        projection_dim=TEXT_WIDTH, hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, attn_implementation="eager")
    text = CLIPTextModel(config)
    # CLIP's own initialisation (0.02) is meant for far more training than
    # this: words then start almost alike and only the loudest is ever heard.
    with torch.no_grad():
        for name, weight in text.named_parameters():
            if name.endswith("token_embedding.weight"):
                weight.normal_(0, 0.5)
    return text


def plain_attention(model):
    """Written-out attention: on a CPU its backward pass is far quicker than
    that of the fused kernel."""
    model.set_attn_processor(AttnProcessor())
    return model


def count(model):
    return sum(p.numel() for p in model.parameters())


class Average:
    """Exponential moving average of a model's weights, kept in f32."""

    def __init__(self, model, decay):
        self.decay, self.steps = decay, 0
        self.names = [n for n, _ in model.named_parameters()]
        self.values = [p.detach().clone() for p in model.parameters()]

    def update(self, model):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in model.parameters()], 1 - decay)

    def state(self):
        return dict(zip(self.names, self.values))
