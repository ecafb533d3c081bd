"""The tiny models: configurations that keep what is particular to each family, and the folders that hold them."""

import json
import shutil

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import samplers
import tokenizer
import weights
from common import write_tensors

logging.disable_progress_bar()
NAMES = ("sd15", "sd21", "sdxl")
VOCABULARY = len(tokenizer.train()[0])


def text_config(**options):
    """eos_token_id 2 as in the hub's files: the pooled state then stands at the largest token id."""
    return CLIPTextConfig(vocab_size=VOCABULARY, max_position_embeddings=77, bos_token_id=0, eos_token_id=2,
                          pad_token_id=1, layer_norm_eps=1e-5, attention_dropout=0.0, **options)


TEXT = {
    "sd15": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                 hidden_act="quick_gelu", projection_dim=32),
    # SD 2.x saves one layer less than OpenCLIP has: the last saved layer is the penultimate one
    "sd21": dict(hidden_size=32, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
                 hidden_act="gelu", projection_dim=16),
    "sdxl": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                 hidden_act="quick_gelu", projection_dim=32),
    "sdxl_2": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                   hidden_act="gelu", projection_dim=48),
}
UNET = {
    # attention_head_dim 4 is the NUMBER of heads, as in SD 1.5 (8 there)
    "sd15": dict(sample_size=8, block_out_channels=(32, 48), layers_per_block=1, norm_num_groups=16,
                 down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                 up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                 cross_attention_dim=32, attention_head_dim=4),
    "sd21": dict(sample_size=12, block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8,
                 down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                 up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
                 cross_attention_dim=32, attention_head_dim=[1, 2, 4], use_linear_projection=True,
                 upcast_attention=True),
    "sdxl": dict(sample_size=8, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=8,
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                 transformer_layers_per_block=[1, 2], cross_attention_dim=96, attention_head_dim=[2, 4],
                 use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                 projection_class_embeddings_input_dim=6 * 8 + 48),
}
VAE = {
    "sd15": dict(block_out_channels=(8, 16, 16, 24), layers_per_block=1, norm_num_groups=8, sample_size=64,
                 scaling_factor=0.18215),
    "sd21": dict(block_out_channels=(8, 16, 24), layers_per_block=1, norm_num_groups=8, sample_size=48,
                 scaling_factor=0.18215),
    "sdxl": dict(block_out_channels=(8, 8, 16, 24), layers_per_block=2, norm_num_groups=8, sample_size=64,
                 scaling_factor=0.13025, force_upcast=True),
}
# text_encoder tensors named as on the hub; the rest (sdxl) as transformers 5 saves them, without `text_model.`
HUB_TEXT_NAMES = ("sd15", "sd21")
# The last layers: a UNet output that counts beside the first noise, a picture that uses the range and clips little
UNET_GAIN = {"sd15": 2.5, "sd21": 1.0, "sdxl": 2.0}
DECODER_GAIN = {"sd15": 0.8, "sd21": 0.7, "sdxl": 0.8}


def unet(name):
    options = {"in_channels": 4, "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True,
               "freq_shift": 0, "downsample_padding": 1, "mid_block_scale_factor": 1, "act_fn": "silu",
               "norm_eps": 1e-5, **UNET[name]}
    model = UNet2DConditionModel(**options).eval()
    weights.fill(model, f"{name}/unet", {"conv_out": UNET_GAIN[name]}.items())
    return model


def vae(name):
    options = VAE[name]
    levels = len(options["block_out_channels"])
    model = AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, act_fn="silu",
                          down_block_types=("DownEncoderBlock2D",) * levels,
                          up_block_types=("UpDecoderBlock2D",) * levels, **options).eval()
    weights.fill(model, f"{name}/vae", {"decoder.conv_out": DECODER_GAIN[name]}.items())
    return model


def text_encoder(name, cls=CLIPTextModel):
    model = cls(text_config(**TEXT[name])).eval()
    weights.fill(model, f"{name}/text")
    return model


def build(name, folder):
    """Writes <folder>/model; for sd15 also model-fp16, for sd21 a UNet in shards."""
    tokenizer.save_plain(folder / "tokenizers" / "1", tokenizer.EOS if name != "sd21" else "!")
    parts = {"vae": vae(name), "unet": unet(name), "scheduler": samplers.base(name),
             "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizers" / "1"),
             "text_encoder": text_encoder(name)}
    if name == "sdxl":
        tokenizer.save_fast(folder / "tokenizers" / "2", "!")
        parts |= {"tokenizer_2": CLIPTokenizer.from_pretrained(folder / "tokenizers" / "2"),
                  "text_encoder_2": text_encoder("sdxl_2", CLIPTextModelWithProjection)}
        pipe = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=True, add_watermarker=False)
    else:
        pipe = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None,
                                       requires_safety_checker=False)
    if name == "sd15":
        for model in (pipe.vae, pipe.unet, pipe.text_encoder):
            weights.round_to_half(model)
    save(pipe, name, folder / "model")
    if name == "sd21":
        shutil.rmtree(folder / "model" / "unet")
        pipe.unet.save_pretrained(folder / "model" / "unet", max_shard_size="600KB")
    if name in HUB_TEXT_NAMES:
        hub_names(folder / "model" / "text_encoder" / "model.safetensors")
    if name == "sd15":
        save_half(pipe, name, folder / "model-fp16")
    shutil.rmtree(folder / "tokenizers")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o644)


def save(pipe, name, folder, **options):
    pipe.save_pretrained(folder, safe_serialization=True, **options)
    for part in ("tokenizer", "tokenizer_2"):
        if (folder / part).exists():
            shutil.rmtree(folder / part)
            source = folder.parent / "tokenizers" / ("1" if part == "tokenizer" else "2")
            shutil.copytree(source, folder / part)
    # the configuration of the real model, word for word: what it leaves out must come from class defaults
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(samplers.CONFIGS[name], indent=2) + "\n", encoding="utf-8")
    for path in [folder / "model_index.json", *folder.rglob("config.json")]:
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def hub_names(path):
    """The hub's text encoders keep everything under `text_model.`; transformers 5 saves without it."""
    write_tensors(path, {f"text_model.{key.removeprefix('text_model.')}": t for key, t in load_file(path).items()})


OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def save_half(pipe, name, folder):
    """The same model as the hub's old fp16 files: *.fp16.safetensors only, f16, with the names of diffusers 0.6
    for the attention of the VAE, and the position_ids that old text encoders carry."""
    half = load(name, folder.parent / "model", torch.float16)
    save(half, name, folder, variant="fp16")
    path = folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    tensors = {}
    for key, tensor in load_file(path).items():
        if ".mid_block.attentions.0." in key:
            for new, old in OLD_ATTENTION.items():
                key = key.replace(f".{new}.", f".{old}.")
        tensors[key] = tensor
    write_tensors(path, tensors)
    path = folder / "text_encoder" / "model.fp16.safetensors"
    hub_names(path)
    write_tensors(path, load_file(path) | {"text_model.embeddings.position_ids": torch.arange(77)[None]})
    same(pipe, load(name, folder, torch.float32, variant="fp16"))


def same(a, b):
    for part in ("unet", "vae", "text_encoder"):
        other = getattr(b, part).state_dict()
        for key, tensor in getattr(a, part).state_dict().items():
            assert torch.equal(tensor, other[key]), f"{part}: {key} changed on its way through f16"


def load(name, folder, dtype=torch.float32, **options):
    cls = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    more = {"add_watermarker": False} if name == "sdxl" else {"safety_checker": None}
    pipe = cls.from_pretrained(folder, dtype=dtype, local_files_only=True, **more, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe
