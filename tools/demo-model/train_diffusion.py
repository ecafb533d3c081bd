"""Train the UNet and the text encoder together on cached latents.

    python train_diffusion.py --work DIR [--samples 400000] [--cool 100000] [--start WEIGHTS]

The schedule counts the pictures shown, not the time: a short warm-up, a
constant rate, then straight down over the last `--cool` pictures.  The state
is saved every few minutes, and the same command goes on from it after a break.
While the rate is still constant, `--samples` may be raised at will; the state
at the end of that part stays in DIR/stable.pt, so that a finished model can be
trained on: copy it to DIR/last.pt and raise `--samples`.

First the text encoder alone learns for a short while to name what a caption
says.  Without that (or much more time) it settles on the ground words, which
explain most of a picture, and the UNet never hears of colours and shapes.
With `--start` (weights of an earlier model) that is not needed.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from captions import TOKENS, caption, load_tokenizer, train_tokenizer
from models import FACTOR, TEXT_WIDTH, Average, count, make_text_encoder, make_unet, make_vae
from parallel import run
from scene import COLOURS, GROUNDS, POSITIONS, SHAPES, SIZE, SIZES, UNITS, geometry
from split import training_combinations, training_scene

BATCH = 16            # per process; small, for many steps in little time
UNET_RATE, TEXT_RATE = 1.1e-3, 0.27   # the text encoder's is a share of the UNet's
NAME_STEPS, NAME_BATCH = 160, 64
GROUND_ALONE = 2.5    # how often a ground without a shape is shown; without it the UNet puts a shape on every ground
FIELDS = {"shape": SHAPES, "colour": COLOURS, "ground": GROUNDS,
          "position": list(POSITIONS), "size": list(SIZES)}
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012,
                beta_schedule="scaled_linear", prediction_type="v_prediction",
                clip_sample=False)


def encode(group, work):
    """This process's share of the pictures' latents, unscaled."""
    vae = make_vae().to(memory_format=torch.channels_last)
    vae.load_state_dict(torch.load(work / "vae.pt"))
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    mine = np.array_split(np.arange(len(pictures)), group.size)[group.rank]
    out = []
    with torch.no_grad():
        for part in np.array_split(mine, len(mine) // 20):
            x = torch.from_numpy(pictures[part]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            x = x.contiguous(memory_format=torch.channels_last)
            out.append(vae.encode(x).latent_dist.mode())
    np.save(work / f"latents.{group.rank}.npy", torch.cat(out).numpy())


def prepare(work, workers):
    """The tokenizer, and the scaled latents of all pictures."""
    if not (work / "tokenizer").exists():
        allowed, rng = training_combinations(), random.Random(0)
        train_tokenizer(work / "tokenizer", [caption(training_scene(i, allowed), rng) for i in range(20000)])
    if not (work / "latents.npy").exists():
        run(encode, workers, 1, work)
        parts = [work / f"latents.{i}.npy" for i in range(workers)]
        latents = np.concatenate([np.load(p) for p in parts])
        scale = 1 / float(latents.std())
        print(f"latents: scale {scale:.4f}, means {latents.mean((0, 2, 3))}, "
              f"spreads {latents.std((0, 2, 3))}", flush=True)
        (work / "scale.json").write_text(json.dumps({"scaling_factor": scale}))
        np.save(work / "latents.npy", latents * scale)
        for part in parts:
            part.unlink()


class Captions:
    """Draws captions for scenes and tokenizes them, remembering each wording."""

    def __init__(self, work, seed):
        self.tokenizer = load_tokenizer(work / "tokenizer")
        self.rng = random.Random(seed)
        self.known = {}

    def __call__(self, scenes):
        texts = [caption(s, self.rng) for s in scenes]
        for t in texts:
            if t not in self.known:
                self.known[t] = self.tokenizer(t, padding="max_length", max_length=TOKENS,
                                               truncation=True).input_ids
        return texts, torch.tensor([self.known[t] for t in texts])


class Namer(torch.nn.Module):
    """Reads the attributes back from the text encoder's states (training only)."""

    def __init__(self):
        super().__init__()
        self.heads = torch.nn.ModuleDict({k: torch.nn.Linear(TEXT_WIDTH, len(v)) for k, v in FIELDS.items()})

    def forward(self, states, texts, scenes):
        # Two of the padding places: they follow the whole caption and have
        # seen all of it.  What a caption leaves out cannot be asked of it;
        # its loss then only settles at the best guess.
        asked = torch.tensor([i for i, t in enumerate(texts) if t and scenes[i].shape])
        at = states[asked][:, [-9, -1]]
        loss, right = 0, {}
        for key, values in FIELDS.items():
            want = torch.tensor([values.index(getattr(scenes[i], key)) for i in asked])
            got = self.heads[key](at)
            loss = loss + sum(F.cross_entropy(got[:, i], want) for i in range(2))
            right[key] = (got[:, 1].argmax(1) == want).float().mean().item()
        return loss / 10, right


def learn_names(group, text, namer, captions, scenes, rng):
    parameters = [*text.parameters(), *namer.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(NAME_STEPS):
        for entry in optimiser.param_groups:
            entry["lr"] = 1e-3 * min(1, (step + 1) / 30, (NAME_STEPS - step) / 100 + 0.05)
        chosen = [scenes[i] for i in rng.integers(len(scenes), size=NAME_BATCH)]
        texts, ids = captions(chosen)
        loss, right = namer(text(ids).last_hidden_state, texts, chosen)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        group.average(parameters, [0.0])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if group.rank == 0 and step % 25 == 24:
            print(f"names {step + 1}: loss {loss.item():.3f} "
                  + " ".join(f"{k} {v:.2f}" for k, v in right.items()), flush=True)


def rate_at(seen, samples, cool):
    """Warm-up over 6,400 pictures, constant, then straight down to 2 %."""
    return min(1, (seen + 32) / 6400) * min(1, max(0.02, (samples - seen) / cool))


def importance(scenes):
    """How often each scene is shown, and how much each latent of it counts.

    Small shapes are the hardest to draw, stars the hardest of those.  A small
    shape covers few latents, so the ground would drown it in a plain mean; the
    box around the shape counts more, and each picture's weights average 1.
    """
    often = np.array([GROUND_ALONE if s.shape is None else
                      {"small": 1.8, "medium": 1.0, "large": 0.8}[s.size] * (1.9 if s.shape == "star" else 1)
                      for s in scenes])
    side = SIZE // FACTOR
    middle = (np.arange(side) + 0.5) * UNITS / side
    weights = np.ones((len(scenes), 1, side, side), np.float32)
    for scene, weight in zip(scenes, weights):
        if scene.shape is None:
            continue
        cx, cy, half = geometry(scene)
        reach = half + 2.5
        share = min(1, (2 * reach / UNITS) ** 2)
        inside = (np.abs(middle - cy) < reach)[:, None] & (np.abs(middle - cx) < reach)
        weight += inside * min(2.5, 0.4 / share)
        weight /= weight.mean()
    return np.cumsum(often / often.sum()), torch.from_numpy(weights)


def train(group, args):
    work = args.work
    torch.manual_seed(11)
    captions = Captions(work, 1000 + group.rank)
    text = make_text_encoder(captions.tokenizer)
    unet = make_unet().to(memory_format=torch.channels_last)
    namer = Namer()
    latents = np.load(work / "latents.npy", mmap_mode="r")
    allowed = training_combinations()
    scenes = [training_scene(i, allowed) for i in range(len(latents))]
    often, weights = importance(scenes)
    both = torch.nn.ModuleDict({"unet": unet, "text": text})
    resume = (work / "last.pt").exists()
    if args.start and not resume:
        begin = torch.load(args.start)
        both.load_state_dict(begin["both"]); namer.load_state_dict(begin["namer"])
        with torch.no_grad():
            for weight, value in zip(both.parameters(), begin.get("average", [])):
                weight.copy_(value)
    average = Average(both, 0.9995)
    optimiser = torch.optim.AdamW(
        [{"params": list(unet.parameters()), "peak": args.rate},
         {"params": [*text.parameters(), *namer.parameters()], "peak": args.rate * TEXT_RATE}],
        args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    seen = 0
    if resume:
        last = torch.load(work / "last.pt")
        both.load_state_dict(last["both"]); namer.load_state_dict(last["namer"])
        optimiser.load_state_dict(last["optimiser"])
        average.values, average.steps, seen = last["average"], last["steps"], last["seen"]
    # Other scenes, wordings and noise than before the break, and than the other process.
    rng = np.random.default_rng((50, group.rank, seen))
    captions.rng = random.Random(f"{group.rank} {seen}")
    if not args.start and not resume:
        learn_names(group, text, namer, captions, scenes, rng)
        average = Average(both, 0.9995)
    torch.manual_seed(500 + group.rank + seen)
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod
    parameters = [*both.parameters(), *namer.parameters()]
    start, first, saved = time.time(), seen, time.time()
    smooth, curve = None, open(work / "curve.txt", "a")

    def save(name):
        torch.save({"both": both.state_dict(), "namer": namer.state_dict(), "seen": seen,
                    "optimiser": optimiser.state_dict(), "average": average.values,
                    "steps": average.steps}, work / "part")
        (work / "part").rename(work / name)

    while seen < args.samples:
        scale = rate_at(seen, args.samples, args.cool)
        for entry in optimiser.param_groups:
            entry["lr"] = entry["peak"] * scale
        take = np.sort(np.searchsorted(often, rng.random(BATCH)).clip(0, len(scenes) - 1))
        clean = torch.from_numpy(latents[take]).contiguous(memory_format=torch.channels_last)
        chosen = [scenes[i] for i in take]
        texts, ids = captions(chosen)
        states = text(ids).last_hidden_state
        # More of the noisy steps: there the layout is decided.
        t = (1000 * torch.rand(BATCH) ** 0.7).long().clamp(0, 999)
        a, s = alphas[t].sqrt().view(-1, 1, 1, 1), (1 - alphas[t]).sqrt().view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        guess = unet(a * clean + s * noise, t, states).sample
        loss = ((guess - (a * noise - s * clean)).square() * weights[take]).mean()
        names, _ = namer(states, texts, chosen)
        optimiser.zero_grad(set_to_none=True)
        (loss + 0.02 * names).backward()
        value, = group.average(parameters, [loss.item()])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.update(both)
        before, seen = seen, seen + BATCH * group.size
        smooth = value if smooth is None else 0.995 * smooth + 0.005 * value
        if group.rank:
            continue
        if seen // 3200 > before // 3200:
            speed = (seen - first) / (time.time() - start)
            line = f"seen {seen} loss {smooth:.4f} names {names.item():.3f} rate {args.rate * scale:.1e} {speed:.0f}/s"
            print(line, flush=True)
            curve.write(line + "\n"); curve.flush()
        if before < args.samples - args.cool <= seen:
            save("stable.pt")
        if time.time() - saved > 60 * args.save_every or seen >= args.samples:
            saved = time.time()
            save("last.pt")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--samples", type=int, default=400_000, help="pictures to show in all")
    args.add_argument("--cool", type=int, default=100_000, help="of these, with falling rate at the end")
    args.add_argument("--rate", type=float, default=UNET_RATE)
    args.add_argument("--start", type=Path, help="last.pt of an earlier model, to begin from its weights")
    args.add_argument("--workers", type=int, default=2)
    args.add_argument("--save-every", type=float, default=4, help="minutes")
    args = args.parse_args()
    prepare(args.work, args.workers)
    sizes = [count(make_unet()), count(make_text_encoder(load_tokenizer(args.work / "tokenizer")))]
    print(f"unet {sizes[0] / 1e6:.2f} M, text {sizes[1] / 1e6:.2f} M", flush=True)
    run(train, args.workers, sum(sizes) + 20000, args)


if __name__ == "__main__":
    main()
