"""expected.json and expected.safetensors: tokens, text states, UNet and VAE outputs of one family."""

import torch

import families
from common import f32, made_by, seeded, write_json, write_tensors

PROMPTS = [
    "a photo of a red circle on green grass",
    "",
    "A Portrait of an OLD sailor, with a grey beard -- studio lighting, 85mm!",
    "a  cat's   eye,\tin the dark\n(high contrast), don't they'll we've I'm it's",
    "naïve café, Ünïcödé Ångström, cafe\u0301, 日本の城 и замок",
    "a horse 🐎 and an astronaut 👩‍🚀 on mars!!! ???",
    "low quality &amp; blurry &lt;text&gt; <|endoftext|> watermark",
    "snow, " * 60 + "the end is cut off",
    "3.14159 2024-01-01 50% #hashtag @name a_b c/d \\e [f] {g} ~`^",
    "!",
]
ENCODED = (0, 1, 5, 7)  # prompts whose text states are stored

ABOUT = [
    "tokens: input_ids is what the pipeline feeds: padding to model_max_length (77), truncation, BOS and EOS added. "
    "count is the number of ids without padding, after truncation; untruncated is the number before it.",
    "expected.safetensors, text/<n>/hidden: the tensor (77, width) that the UNet gets for prompt n; SDXL: both encoders "
    "side by side, penultimate states without the final norm; text/<n>/pooled: SDXL's projected pooled state. "
    "text/<n>/hidden_1, hidden_2: SDXL's two encoders apart.",
    "text/0/clip_skip_1: the same with clip_skip=1 (SD: hidden_states[-2] through the final norm; SDXL: "
    "hidden_states[-3] of both).",
    "text/0/layer_<k>: hidden_states[k] of the first encoder, k = 0 the embeddings.",
    "unet/<case>/...: sample, timestep, context (and text_embeds, time_ids) in; output out. single: one sample; "
    "batch: two samples, each with its own timestep; odd: sides that the down blocks do not divide.",
    "unet/single/internal/...: what stands after the named module, for debugging. time_embedding is the MLP's output; "
    "emb is what the blocks get (SDXL: plus add_embedding).",
    "vae/image (in -1..1) -> vae/moments (after quant_conv: mean, then logvar) -> vae/mean, vae/logvar (clamped to "
    "-30..20), not scaled. vae/latent (already divided by scaling_factor) -> vae/decoded (not clamped).",
    "vae/tiled: the same with enable_tiling(): latent -> decoded; decoded clamped to -1..1 -> moments.",
]


def tokens(tokenizer):
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
        free = tokenizer(prompt).input_ids
        rows.append({"prompt": prompt, "count": min(len(free), 77), "untruncated": len(free), "input_ids": ids})
    return {"pad_token": tokenizer.pad_token, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "model_max_length": tokenizer.model_max_length, "prompts": rows}


def states(encoder, tokenizer, prompt):
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return encoder(ids, output_hidden_states=True)


def text_sd(pipe):
    out = {}
    for n in ENCODED:
        fed, _ = pipe.encode_prompt(PROMPTS[n], "cpu", 1, False)
        result = states(pipe.text_encoder, pipe.tokenizer, PROMPTS[n])
        assert torch.equal(fed, result.last_hidden_state)
        out[f"text/{n}/hidden"] = fed[0]
        if n == 0:
            # encode_prompt(clip_skip=..) of this diffusers looks for text_encoder.text_model, gone in transformers 5
            out["text/0/clip_skip_1"] = pipe.text_encoder.final_layer_norm(result.hidden_states[-2])[0]
            out |= {f"text/0/layer_{k}": layer[0] for k, layer in enumerate(result.hidden_states)}
    return out


def text_sdxl(pipe):
    out = {}
    for n in ENCODED:
        fed, _, pooled, _ = pipe.encode_prompt(PROMPTS[n], device="cpu", do_classifier_free_guidance=False)
        first = states(pipe.text_encoder, pipe.tokenizer, PROMPTS[n])
        second = states(pipe.text_encoder_2, pipe.tokenizer_2, PROMPTS[n])
        assert torch.equal(fed, torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1))
        assert torch.equal(pooled, second.text_embeds)
        out |= {f"text/{n}/hidden": fed[0], f"text/{n}/pooled": pooled[0],
                f"text/{n}/hidden_1": first.hidden_states[-2][0], f"text/{n}/hidden_2": second.hidden_states[-2][0]}
        if n == 0:
            skipped, _, _, _ = pipe.encode_prompt(PROMPTS[n], device="cpu", do_classifier_free_guidance=False,
                                                  clip_skip=1)
            out["text/0/clip_skip_1"] = skipped[0]
            out |= {f"text/0/layer_{k}": layer[0] for k, layer in enumerate(first.hidden_states)}
    return out


def unet_case(name, unet, out, case, shape, timesteps, record=False):
    config = unet.config
    inputs = {"sample": seeded(100 + len(out), *shape), "timestep": torch.tensor(timesteps, dtype=torch.float32),
              "context": seeded(200 + len(out), shape[0], 77, config.cross_attention_dim)}
    added = None
    if name == "sdxl":
        inputs["text_embeds"] = seeded(300 + len(out), shape[0], 48)
        inputs["time_ids"] = torch.tensor([[64.0, 96.0, 0.0, 8.0, 64.0, 64.0]] * shape[0])
        added = {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}
    internal = {}
    hooks = [module.register_forward_hook(keep(internal, label)) for label, module in watched(unet)] if record else []
    inputs["output"] = unet(inputs["sample"], inputs["timestep"], encoder_hidden_states=inputs["context"],
                            added_cond_kwargs=added, return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    if record:
        internal["emb"] = internal["time_embedding"] + internal.get("add_embedding", 0)
    out |= {f"unet/{case}/{key}": value for key, value in inputs.items()}
    out |= {f"unet/{case}/internal/{key}": value for key, value in internal.items()}


def watched(unet):
    names = ["time_proj", "time_embedding", "conv_in", "down_blocks.0.resnets.0", "down_blocks.0", "down_blocks.1",
             "mid_block", "up_blocks.0", "up_blocks.1", "conv_norm_out"]
    if unet.config.addition_embed_type == "text_time":
        names += ["add_time_proj", "add_embedding"]
    first = next(n for n, m in unet.named_modules() if type(m).__name__ == "Transformer2DModel")
    return [(name, unet.get_submodule(name)) for name in [*names, first]]


def keep(store, label):
    def hook(_module, _inputs, output):
        store[label] = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    return hook


def unet(name, pipe):
    out, side = {}, 8 if name != "sd21" else 12
    unet_case(name, pipe.unet, out, "single", (1, 4, side, side), [981.0], record=True)
    unet_case(name, pipe.unet, out, "batch", (2, 4, 8, 12), [999.0, 1.0])
    unet_case(name, pipe.unet, out, "odd", (1, 4, 7, 5), [500.5])
    return out


def vae(pipe):
    image = torch.tanh(seeded(400, 1, 3, 4, 6)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    image = (image + 0.1 * seeded(401, *image.shape)).clamp(-1, 1)
    posterior = pipe.vae.encode(image).latent_dist
    latent = 3 * seeded(402, 1, 4, 4, 6)
    return {"vae/image": image, "vae/moments": posterior.parameters, "vae/mean": posterior.mean,
            "vae/logvar": posterior.logvar, "vae/latent": latent, "vae/decoded": pipe.vae.decode(latent).sample,
            **tiled_vae(pipe.vae)}


def tiled_vae(model):
    """Three rows of two tiles; the last row is one latent high, the last column is a quarter of a tile wide."""
    tile = model.tile_latent_min_size
    latent = 3 * seeded(403, 1, 4, tile // 4 * 6 + 1, tile // 4 * 4)
    model.enable_tiling()
    decoded = model.decode(latent).sample
    moments = model.encode(decoded.clamp(-1, 1)).latent_dist.parameters
    model.disable_tiling()
    assert not torch.allclose(decoded, model.decode(latent).sample, atol=1e-3), "tiling made no difference"
    return {"vae/tiled/latent": latent, "vae/tiled/decoded": decoded, "vae/tiled/moments": moments}


def build(name, folder):
    pipe = families.load(name, folder / "model")
    text = text_sdxl(pipe) if name == "sdxl" else text_sd(pipe)
    tensors = {**text, **unet(name, pipe), **vae(pipe)}
    write_tensors(folder / "expected.safetensors", tensors)
    tokenizers = {"tokenizer": tokens(pipe.tokenizer)}
    if name == "sdxl":
        tokenizers["tokenizer_2"] = tokens(pipe.tokenizer_2)
    write_json(folder / "expected.json", {
        "made_by": made_by("components.py"),
        "about": ABOUT,
        "model": "model",
        "vae_scale_factor": pipe.vae_scale_factor,
        "scaling_factor": f32(pipe.vae.config.scaling_factor),
        "default_side": pipe.unet.config.sample_size * pipe.vae_scale_factor,
        "encoded_prompts": list(ENCODED),
        "tokens": tokenizers,
        "tensors": {key: {"shape": list(t.shape), "min": f32(t.float().min()), "max": f32(t.float().max())}
                    for key, t in sorted(tensors.items())},
    })
