"""Train the decoder alone on small shapes, with the latents left as they are.

    python sharpen_decoder.py --work DIR --refs eval.json [--samples 30000] [--scenes 1200]

A small star covers few latents, and a decoder that mostly saw grounds rounds it
off: a picture that went through it and back has lost the corners.
Half of the crops lie around shapes of new scenes, stars and small ones most of
all, and the shape's box counts more there. Encoder and UNet are not touched.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import checker
from models import FACTOR, Average, make_vae
from scene import SIZE, UNITS, draw, geometry
from split import training_combinations, training_scene
from train_vae import edges

CROP, BATCH = SIZE // 2, 8
FIRST = 1_000_000    # beyond all scenes of the other training


def chosen(count, start):
    """Scenes in which shapes are small, and often stars."""
    allowed, rng, out, i = training_combinations(), random.Random(start), [], start
    often = {"small": 1.0, "medium": 0.35, "large": 0.1}
    while len(out) < count:
        scene = training_scene(i, allowed)
        i += 1
        if scene.shape and rng.random() < often[scene.size] * (1.0 if scene.shape == "star" else 0.35):
            out.append(scene)
    return out


def to_tensor(pictures):
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return x.contiguous(memory_format=torch.channels_last)


def window(scene, rng):
    """Where a crop that holds the shape begins, on the latents' grid, and the shape's box in it."""
    cx, cy, half = (v * SIZE / UNITS for v in geometry(scene))
    corner, box = [], []
    for centre in (cy, cx):
        at = int(np.clip(centre - CROP / 2 + rng.uniform(-8, 8), 0, SIZE - CROP)) // FACTOR * FACTOR
        corner.append(at)
        box.append((max(0, int(centre - half - 4 - at)), min(CROP, int(centre + half + 4 - at))))
    return corner, box


@torch.no_grad()
def check(vae, refs, count=60):
    """How many small stars are stars after the way through the autoencoder and back."""
    scenes = [s for s in chosen(6 * count, 3 * FIRST) if s.shape == "star" and s.size == "small"][:count]
    right = 0
    for part in range(0, count, 20):
        y = vae.decode(vae.encode(to_tensor([draw(s) for s in scenes[part:part + 20]])).latent_dist.mode()).sample
        y = ((y.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).numpy().astype(np.uint8)
        right += sum(checker.look(picture, refs)["shape"] == "star" for picture in y)
    return right, len(scenes)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--refs", type=Path, required=True, help="eval.json, for the checker's numbers")
    args.add_argument("--samples", type=int, default=30_000, help="crops to show")
    args.add_argument("--scenes", type=int, default=1200)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args = args.parse_args()
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    refs = json.loads(args.refs.read_text())
    vae = make_vae().to(memory_format=torch.channels_last)
    vae.load_state_dict(torch.load(args.work / "vae.pt"))
    print("before: %d of %d" % check(vae, refs), flush=True)
    scenes = chosen(args.scenes, FIRST)
    near = [draw(s) for s in scenes]
    everything = np.load(args.work / "pictures.npy", mmap_mode="r")
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    average = Average(torch.nn.ModuleList([vae.decoder, vae.post_quant_conv]), 0.998)
    optimiser = torch.optim.AdamW(parameters, args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    seen, start, smooth = 0, time.time(), None

    while (done := seen / args.samples) < 1:
        for entry in optimiser.param_groups:
            entry["lr"] = args.rate * min(1, (seen + 8) / 1600) * max(0.02, 1 - done)
        weight = torch.ones(BATCH, 1, CROP, CROP)
        whole, corners = [], []
        for k in range(BATCH):
            if k % 4 < 3:
                i = rng.integers(len(scenes))
                (y, x), ((top, bottom), (left, right)) = window(scenes[i], rng)
                weight[k, :, top:bottom, left:right] = 4.0
                picture = near[i]
            else:
                picture = everything[rng.integers(len(everything) - 64)]
                y, x = rng.integers((SIZE - CROP) // FACTOR + 1, size=2) * FACTOR
            whole.append(picture); corners.append((y, x))
        x = to_tensor([p[y:y + CROP, x:x + CROP] for p, (y, x) in zip(whole, corners)])
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mode()
        out = vae.decoder(vae.post_quant_conv(z + 0.04 * torch.randn_like(z)))
        difference = (out - x) * weight
        pixel = (difference * (out - x)).mean() + 0.15 * difference.abs().mean()
        edge = sum(F.l1_loss(a, b) for a, b in zip(edges(out * weight), edges(x * weight)))
        loss = pixel + 0.25 * edge
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.update(torch.nn.ModuleList([vae.decoder, vae.post_quant_conv]))
        seen += BATCH
        smooth = loss.item() if smooth is None else 0.99 * smooth + 0.01 * loss.item()
        if seen % 4000 == 0:
            print(f"seen {seen} loss {smooth:.4f} {seen / (time.time() - start):.0f}/s, "
                  "small stars %d of %d" % check(vae, refs), flush=True)
    both = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv])
    with torch.no_grad():
        for weight, value in zip(both.parameters(), average.values):
            weight.copy_(value)
    print(f"seen {seen} " + "after: %d of %d" % check(vae, refs), flush=True)
    torch.save(vae.state_dict(), args.work / "vae.sharp.pt")


if __name__ == "__main__":
    main()
