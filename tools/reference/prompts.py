"""Prompts with weights, breaks, many chunks and textual inversions: what the UNet is told, and pictures of it.

Weights and chunks follow what AUTOMATIC1111's web UI documents of its syntax and of its mode "Original"; this is a
transcription of that behaviour in code of its own. What needs no weights (long prompts cut off, prompts for each encoder,
textual inversions) comes from diffusers itself.
"""

import re
import shutil

import numpy as np
import torch
from safetensors.torch import save_file

import families
import samplers
from common import made_by, seeded, write_json, write_tensors
from runs import CITY, GRASS, LOW, SAILOR, as_array

CHUNK, REACH = 75, 20
LIST = ("snow on the mountains, a clear blue sky, wide angle, a wooden table with a bowl of green apples, a glass of "
        "water, a brick wall covered in ivy, soft light, the horse and the dog run through the green field, an old "
        "sailor with a grey beard, studio lighting, rain, night, neon lights, reflections, epic")
FLOW = "a cat and a dog and a horse and a bird on a branch beside the lake under the sky " * 5
DEFAULTS = dict(negative_prompt="", prompt_2=None, negative_prompt_2=None, clip_skip=0, weighting=True)


def case(name, prompt, **changes):
    return {"name": name, "prompt": prompt, **DEFAULTS, **changes}


WEIGHTED = [
    case("plain", GRASS, negative_prompt=LOW),
    case("weights", r"a (red:1.4) circle, [green] grass, ((stone)) \(wall\), (rain:0.5)", negative_prompt=LOW),
    case("nested", "(a (red circle:1.3), [blue) square] on (white sand", negative_prompt="(blurry:1.5), [text"),
    case("skip", "the (old:1.4) horse on [white sand], night", clip_skip=1),
    case("signs", "a (cat:0) and a (dog:-0.5) a:1.2) b\\"),
    case("break", "a red circle BREAK on (green:0.7) grass BREAK night", negative_prompt=LOW),
    case("list", f"(portrait:1.2), {LIST}", negative_prompt=f"{LOW}, text"),
    case("flow", FLOW, negative_prompt="(a castle:1.3) " + FLOW[:200]),
    case("long_negative", GRASS, negative_prompt=LIST),
]
LITERAL = [
    case("literal", r"a (red:1.4) circle, [green] grass BREAK {a|b} \(wall\)", negative_prompt=LOW, weighting=False),
    case("literal_long", LIST, negative_prompt="(text)", weighting=False),
]
SECOND = [
    case("two_prompts", GRASS, prompt_2=SAILOR, negative_prompt=LOW, negative_prompt_2="text", weighting=False),
    case("one_second", GRASS, prompt_2=CITY, negative_prompt=LOW, weighting=False),
    case("no_negative", GRASS, prompt_2=SAILOR, negative_prompt=None, weighting=False),
    case("two_weighted", "a (red:1.4) circle", prompt_2=f"{SAILOR} BREAK [night]", negative_prompt=LOW),
    case("no_negative_long", LIST, negative_prompt=None),
]
# The name that prompts use, and the file's tensors
STYLE = {
    "sd15": ("brushwork", {"emb_params": (2, 32)}),
    "sd21": ("<tiny-cat>", {"<tiny-cat>": (32,)}),
    "sdxl": ("brushwork", {"clip_l": (3, 32), "clip_g": (3, 64)}),
}
FILES = {"sd15": "brushwork", "sd21": "tiny", "sdxl": "brushwork"}

ABOUT = [
    "states: what the UNet gets for the prompt and the negative prompt, (tokens, width), filled up to the same number of "
    "chunks of 77. prompts.safetensors holds <name>/states: the rows that `rows` lists; <name>/mean: the mean over all "
    "rows; <name>/negative (`negative_rows`), <name>/negative_mean likewise; SDXL: <name>/pooled, <name>/negative_pooled.",
    "weighting false: StableDiffusion(XL)Pipeline.encode_prompt as it is. weighting true: each chunk by itself, states "
    "times weights, then times the ratio of the old mean of the chunk to the new one; each encoder by itself; pooled: the "
    "first chunk's, unweighted. Checked to be encode_prompt's result where there is neither a weight nor a second chunk.",
    "embedding: the textual inversion of the family, embeddings/*.safetensors, is called by its name. Weighting false: after "
    "load_textual_inversion. SDXL's pooled state is taken at the end token, as transformers does it for models whose "
    "configuration names that token; the rule for older ones would take the new token, whose id is larger.",
    "prompt_2 null: not given. negative_prompt null with SDXL: zeros.",
    "runs: whole pictures with these states: euler, normal schedule, 4 steps, guidance 7.5, seed 42. headroom as in runs.json.",
]


def pieces(prompt):
    """[text, weight] in order; [None, 1] for a break."""
    found, round_open, square_open = [], [], []

    def multiply(start, factor):
        for piece in found[start:]:
            piece[1] *= factor

    for match in re.finditer(r"\\[()\[\]{}|\\]|:\s*([+-]?[.\d]*\d[.\d]*)\s*\)|[()\[\]:\\]|[^()\[\]:\\]+", prompt):
        token, number = match.group(0), match.group(1)
        if len(token) == 2 and token[0] == "\\":
            found.append([token[1], 1.0])
        elif token == "(":
            round_open.append(len(found))
        elif token == "[":
            square_open.append(len(found))
        elif number is not None and round_open:
            multiply(round_open.pop(), float(number))
        elif token == ")" and round_open:
            multiply(round_open.pop(), 1.1)
        elif token == "]" and square_open:
            multiply(square_open.pop(), 1 / 1.1)
        else:
            for index, part in enumerate(re.split(r"\s*\bBREAK\b\s*", token)):
                if index:
                    found.append([None, 1.0])
                found.append([part, 1.0])
    for start in round_open:
        multiply(start, 1.1)
    for start in square_open:
        multiply(start, 1 / 1.1)
    joined = []
    for text, weight in found:
        if text is None:
            joined.append([None, 1.0])
        elif joined and joined[-1][0] is not None and joined[-1][1] == weight:
            joined[-1][0] += text
        elif text:
            joined.append([text, weight])
    return joined


def chunks(tokenizer, prompt, style):
    """Per chunk: ids, weights, and {position: number of the vector} for the textual inversion `style` (name, count)."""
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    name, count = style
    done, ids, weights, vectors, last_comma = [], [], [], {}, None

    def close():
        nonlocal ids, weights, vectors, last_comma
        done.append((ids, weights, vectors))
        ids, weights, vectors, last_comma = [], [], {}, None

    def room_for(needed, is_comma):
        nonlocal ids, weights, vectors, last_comma
        if is_comma:
            last_comma = len(ids)
        elif len(ids) == CHUNK and last_comma is not None and len(ids) - last_comma <= REACH:
            cut = last_comma + 1
            later = ids[cut:], weights[cut:], {at - cut: n for at, n in vectors.items() if at >= cut}
            ids, weights, vectors = ids[:cut], weights[:cut], {at: n for at, n in vectors.items() if at < cut}
            close()
            ids, weights, vectors = later
        if len(ids) + needed > CHUNK:
            close()

    for text, weight in pieces(prompt):
        if text is None:
            close()
            continue
        parts = re.split(rf"(?<!\w)({re.escape(name)})(?!\w)", text, flags=re.IGNORECASE) if name else [text]
        for index, part in enumerate(parts):
            if index % 2:
                room_for(count, False)
                vectors |= {len(ids) + n: n for n in range(count)}
                ids, weights = ids + [0] * count, weights + [weight] * count
                continue
            for token in tokenizer(part, add_special_tokens=False).input_ids:
                room_for(1, token == comma)
                ids, weights = ids + [token], weights + [weight]
    if ids or not done:
        close()
    return done


class Encoder:
    """One encoder, with the state that the UNet reads and the vectors of the textual inversion."""

    def __init__(self, model, tokenizer, last, vectors):
        self.model, self.tokenizer, self.last, self.vectors = model, tokenizer, last, vectors

    def encode(self, chunk, clip_skip):
        ids, weights, vectors = chunk
        fill = CHUNK - len(ids)
        row = [self.tokenizer.bos_token_id, *ids, self.tokenizer.eos_token_id, *[self.tokenizer.pad_token_id] * fill]

        def replace(_module, _inputs, output):
            for at, number in vectors.items():
                output[0, at + 1] = self.vectors[number]
            return output

        hook = self.model.get_input_embeddings().register_forward_hook(replace)
        out = self.model(torch.tensor([row]), output_hidden_states=True)
        hook.remove()
        if not self.last:
            states = out.hidden_states[-2 - clip_skip]
        elif clip_skip:
            states = self.model.final_layer_norm(out.hidden_states[-1 - clip_skip])
        else:
            states = out.last_hidden_state
        factors = torch.tensor([1.0, *weights, *[1.0] * (fill + 1)])[None, :, None]
        if (factors != 1).any():
            mean, exact = states.mean(), states.double().mean()
            states = states * factors
            ratio = mean / states.mean()
            assert abs(ratio / (exact / states.double().mean()) - 1) < 1e-5, "the mean is too near zero to test with"
            assert 0.3 < ratio < 3, f"the mean changes by {ratio}"
            states = states * ratio
        return states, getattr(out, "text_embeds", None)

    def whole(self, prompt, style, count, clip_skip):
        laid = chunks(self.tokenizer, prompt, style)
        laid += [([], [], {})] * (count - len(laid))
        encoded = [self.encode(chunk, clip_skip) for chunk in laid]
        return torch.cat([states for states, _ in encoded], dim=1), encoded[0][1]


def transcribed(encoders, spec, style):
    """States and pooled state of prompt and negative prompt."""
    firsts = [spec["prompt"], spec["negative_prompt"]]
    texts = [[first, second or first] for first, second in
             zip(firsts, [spec["prompt_2"], spec["negative_prompt_2"]])]
    zeros = spec["negative_prompt"] is None
    count = max(len(chunks(encoder.tokenizer, text, style))
                for pair in texts[:1 if zeros else 2] for encoder, text in zip(encoders, pair))
    out = []
    # diffusers skips for the prompt only.
    for pair, skip in list(zip(texts, (spec["clip_skip"], 0)))[:1 if zeros else 2]:
        encoded = [encoder.whole(text, style, count, skip) for encoder, text in zip(encoders, pair)]
        out += [torch.cat([states for states, _ in encoded], dim=-1), encoded[-1][1]]
    return out + [torch.zeros_like(t) for t in out] if zeros else out


def plain(pipe, name, spec):
    """The same from diffusers itself."""
    if name != "sdxl":
        states, negative = pipe.encode_prompt(spec["prompt"], "cpu", 1, True, spec["negative_prompt"])
        return [states, None, negative, None]
    states, negative, pooled, negative_pooled = pipe.encode_prompt(
        spec["prompt"], spec["prompt_2"], "cpu", 1, True, spec["negative_prompt"], spec["negative_prompt_2"])
    return [states, pooled, negative, negative_pooled]


def picture(pipe, config, encoded, side):
    states, pooled, negative, negative_pooled = encoded
    pipe.scheduler = samplers.make("euler", config, samplers.overrides("normal", None))
    more = {} if pooled is None else {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}
    return pipe(prompt_embeds=states, negative_prompt_embeds=negative, width=side, height=side, num_inference_steps=4,
                guidance_scale=7.5, generator=torch.Generator("cpu").manual_seed(42), **more).images


def save_style(name, folder):
    """The file of the textual inversion, and its vectors by key. As large as the embeddings of other tokens."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = {key: seeded(600 + index, *shape) for index, (key, shape) in enumerate(sorted(STYLE[name][1].items()))}
    path = folder / f"{FILES[name]}.safetensors"
    save_file(tensors, str(path))
    path.chmod(0o644)
    return path, tensors


def load_style(pipe, name, path, tensors):
    if name != "sdxl":
        pipe.load_textual_inversion(str(path), **({"token": "brushwork"} if name == "sd15" else {}))
        return
    for key, encoder, tokenizer in (("clip_l", pipe.text_encoder, pipe.tokenizer),
                                    ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2)):
        pipe.load_textual_inversion(tensors[key], token="brushwork", text_encoder=encoder, tokenizer=tokenizer)


def pool_at_end_token(pipe):
    for module in pipe.text_encoder_2.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = pipe.tokenizer_2.eos_token_id


def rows_of(length, kept):
    return [chunk * 77 + row for chunk in range(length // 77) for row in kept]


def build(name, folder):
    pipe = families.load(name, folder / "model")
    config = pipe.scheduler.config
    path, tensors = save_style(name, folder / "embeddings")
    keys = ["clip_l", "clip_g"] if name == "sdxl" else list(tensors)
    vectors = [tensors[key].reshape(-1, tensors[key].shape[-1]) for key in keys]
    token, style = STYLE[name][0], (STYLE[name][0], len(vectors[0]))
    encoders = [Encoder(pipe.text_encoder, pipe.tokenizer, name != "sdxl", vectors[0])]
    if name == "sdxl":
        pool_at_end_token(pipe)
        encoders.append(Encoder(pipe.text_encoder_2, pipe.tokenizer_2, False, vectors[1]))

    found = {}
    for spec in WEIGHTED + LITERAL + (SECOND if name == "sdxl" else []):
        found[spec["name"]] = spec, transcribed(encoders, spec, (None, 0)) if spec["weighting"] else plain(pipe, name, spec)
    unweighted, _ = found["plain"]
    for one, other in zip(found["plain"][1], plain(pipe, name, unweighted)):
        assert one is other is None or torch.equal(one, other), "without syntax it must be encode_prompt's"
    spec = case("style", f"a ({token.upper()}:1.3) circle, {LIST}, {token}.", negative_prompt=f"blurry {token}",
                embedding=True)
    found["style"] = spec, transcribed(encoders, spec, style)
    load_style(pipe, name, path, tensors)
    spec = case("style_plain", f"a red circle, {token} on grass", negative_prompt=f"{token}", weighting=False,
                embedding=True)
    found["style_plain"] = spec, plain(pipe, name, spec)
    for one, other in zip(found["style_plain"][1], transcribed(encoders, spec, style)):
        assert one is other is None or torch.allclose(one, other, atol=1e-6), "two ways to the same vectors"

    cases, out, runs = [], {}, []
    for label, (spec, encoded) in found.items():
        states, pooled, negative, negative_pooled = encoded
        assert states.shape == negative.shape
        rows = rows_of(states.shape[1], [*range(8), 10, 14, 20, 40, 75, 76])
        negative_rows = rows_of(states.shape[1], [0, 1, 3, 76])
        cases.append({"embedding": False, **spec, "tokens": states.shape[1], "rows": rows,
                      "negative_rows": negative_rows})
        out |= {f"{label}/states": states[0, rows], f"{label}/mean": states[0].mean(dim=0),
                f"{label}/negative": negative[0, negative_rows], f"{label}/negative_mean": negative[0].mean(dim=0)}
        if pooled is not None:
            out |= {f"{label}/pooled": pooled[0], f"{label}/negative_pooled": negative_pooled[0]}
        if label in ("weights", "list", "style", "style_plain", "two_weighted"):
            runs.append(run(pipe, config, label, encoded, folder, 48 if name == "sd21" else 64))
    write_tensors(folder / "prompts.safetensors", out)
    write_json(folder / "prompts.json", {"made_by": made_by("prompts.py"), "about": ABOUT, "model": "model",
                                         "embedding": f"embeddings/{path.name}", "name": token, "cases": cases,
                                         "runs": runs})


def run(pipe, config, label, encoded, folder, side):
    """The picture of one case."""
    (image,) = picture(pipe, config, encoded, side)
    with torch.backends.mkldnn.flags(enabled=False):
        shaken = [None if t is None else t * (1 + 1e-6 * torch.sign(seeded(501, *t.shape))) for t in encoded]
        headroom = int(np.abs(as_array(picture(pipe, config, shaken, side)) - as_array([image])).max())
    assert headroom <= 1, f"{label}: roundings move the picture by {headroom} of 255"
    (folder / "prompts").mkdir(exist_ok=True)
    image.save(folder / "prompts" / f"{label}.png", optimize=True)
    return {"case": label, "file": f"prompts/{label}.png", "width": side, "height": side, "steps": 4,
            "guidance_scale": 7.5, "seed": "42", "headroom": headroom}
