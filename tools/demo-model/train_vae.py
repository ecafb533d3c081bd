"""Train the autoencoder (factor 8: 128x128 pixels become 16x16 latents).

    python train_vae.py --work DIR [--samples 100000] [--teacher MODEL]

Three of the four latent channels are pulled towards the picture's own colours
averaged over one latent's pixels.  That gives the UNet a latent space in which
colours and outlines are plain to see; the fourth channel is free for detail.
Noise is added to the latents in training so that the decoder forgives the
UNet's small errors.  A loss on differences between neighbouring pixels keeps
edges sharp.

Most of the training looks at crops of a quarter of the picture, which cost a
quarter; the last fifth looks at whole pictures, because the attention in the
middle sees all of them.

`--teacher` is a model with the same latents at half the resolution (a folder).
The weights then begin as the teacher's, one level further in, and the latents
stay the teacher's, so that its UNet goes on working.

The schedule counts pictures, not time; the state is saved every few minutes in
DIR/vae.last.pt, and the same command goes on from it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from models import FACTOR, Average, count, make_vae, plain_attention
from parallel import run
from scene import SIZE

PEAK = 2e-3
CROP = SIZE // 2
WHOLE_SHARE = 0.2
BATCH = 8      # crops per process; a fourth of that of whole pictures


def edges(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def loss_of(vae, picture, tie, teacher):
    moments = vae.quant_conv(vae.encoder(picture))
    mean, logvar = moments.chunk(2, 1)
    logvar = logvar.clamp(-12, 4)
    z = mean + torch.randn_like(mean) * (0.04 + torch.exp(0.5 * logvar))
    out = vae.decoder(vae.post_quant_conv(z))
    pixel = F.mse_loss(out, picture) + 0.15 * F.l1_loss(out, picture)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(out), edges(picture)))
    if teacher:
        with torch.no_grad():
            want = teacher.encode(F.avg_pool2d(picture, 2)).latent_dist.mode()
        tied = F.mse_loss(mean, want)
    else:
        tied = tie * F.mse_loss(mean[:, :3], F.avg_pool2d(picture, FACTOR)) + mean[:, 3].square().mean() * 1e-3
    kl = (torch.exp(logvar) - logvar - 1).mean() * 1e-5
    return pixel + 0.25 * edge + tied + kl


def batch(pictures, rng, size, side):
    """Pictures as [-1, 1], each cut to a window of `side` pixels on the latents' grid."""
    take = rng.integers(len(pictures), size=size)
    at = rng.integers((SIZE - side) // FACTOR + 1, size=(size, 2)) * FACTOR
    cut = np.stack([pictures[i][y:y + side, x:x + side] for i, (y, x) in zip(take, at)])
    x = torch.from_numpy(cut).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def psnr(vae, pictures):
    """Mean over pictures of the peak signal-to-noise ratio, in dB."""
    out = []
    for part in batch(pictures, np.random.default_rng(5), 64, SIZE).split(16):
        y = vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        out.append(-10 * torch.log10((y - part).square().mean((1, 2, 3)) / 4))
    return torch.cat(out).mean().item()


def load_teacher(folder):
    teacher = plain_attention(AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32))
    return teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def grow(vae, teacher):
    """Begin as the teacher does at half the resolution.

    The new outer levels pass on what they get: their residual branches end in
    zeros, the convolution that halves averages 2x2, the one that follows the
    doubling copies its middle.
    """
    inner, state = {}, vae.state_dict()
    for name, value in teacher.state_dict().items():
        if name.startswith("encoder.down_blocks."):
            part = name.split(".")
            part[2] = str(int(part[2]) + 1)
            name = ".".join(part)
        inner[name] = value
    for name, value in inner.items():
        assert state[name].shape == value.shape, name
    state.update(inner)
    last = len(vae.decoder.up_blocks) - 1
    for name, value in state.items():
        new = name.startswith(("encoder.down_blocks.0.", f"decoder.up_blocks.{last}."))
        if new and ".conv2." in name:
            value.zero_()
    for sampler, taps in (("encoder.down_blocks.0.downsamplers.0.conv", (0, 1)),
                          (f"decoder.up_blocks.{last - 1}.upsamplers.0.conv", (1,))):
        weight = state[sampler + ".weight"]
        weight.zero_()
        state[sampler + ".bias"].zero_()
        for y in taps:
            for x in taps:
                weight[:, :, y, x] = torch.eye(weight.shape[0]) / len(taps) ** 2
    vae.load_state_dict(state)


def train(group, args):
    torch.manual_seed(1)   # equal weights at the start in every process
    vae = make_vae().to(memory_format=torch.channels_last)
    teacher = load_teacher(args.teacher) if args.teacher else None
    if teacher:
        grow(vae, teacher)
    average = Average(vae, 0.998)
    optimiser = torch.optim.AdamW(vae.parameters(), args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    seen, resume = 0, args.work / "vae.last.pt"
    if resume.exists():
        last = torch.load(resume)
        vae.load_state_dict(last["vae"]); optimiser.load_state_dict(last["optimiser"])
        average.values, average.steps, seen = last["average"], last["steps"], last["seen"]
    torch.manual_seed(100 + group.rank + seen)
    rng = np.random.default_rng((100, group.rank, seen))
    pictures = np.load(args.work / "pictures.npy", mmap_mode="r")
    # The last ones are kept to measure on.
    pictures, unseen = pictures[:-64], pictures[-64:]
    start, first, saved, smooth = time.time(), seen, time.time(), None

    def save():
        torch.save({"vae": vae.state_dict(), "optimiser": optimiser.state_dict(), "average": average.values,
                    "steps": average.steps, "seen": seen}, args.work / "vae.part")
        (args.work / "vae.part").rename(resume)
        torch.save(average.state(), args.work / "vae.pt")
        test = make_vae()
        test.load_state_dict(average.state())
        print(f"  average model: {psnr(test, unseen):.2f} dB", flush=True)

    while seen < args.samples:
        done = seen / args.samples
        # Warm up, hold, then fall to 2 % over the last 60 %.
        rate = args.rate * min(1, (seen + 16) / 1600) * min(1, max(0.02, (1 - done) / 0.6))
        for entry in optimiser.param_groups:
            entry["lr"] = rate
        whole = done > 1 - WHOLE_SHARE
        x = batch(pictures, rng, BATCH // 4 if whole else BATCH, SIZE if whole else CROP)
        loss = loss_of(vae, x, 0.5 if done < 0.2 else 0.15, teacher)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        value, = group.average(vae.parameters(), [loss.item()])
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        before, seen = seen, seen + BATCH * group.size
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        if group.rank:
            continue
        if seen // 1600 > before // 1600:
            print(f"seen {seen} loss {smooth:.4f} {(seen - first) / (time.time() - start):.0f}/s", flush=True)
        if time.time() - saved > 60 * args.save_every or seen >= args.samples:
            saved = time.time()
            save()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--samples", type=int, default=100_000, help="crops to show; a whole picture counts as four")
    args.add_argument("--rate", type=float, default=PEAK)
    args.add_argument("--teacher", type=Path, help="model folder whose latents to keep, at half the resolution")
    args.add_argument("--workers", type=int, default=2)
    args.add_argument("--save-every", type=float, default=3, help="minutes")
    args = args.parse_args()
    weights = count(make_vae())
    print(f"vae {weights / 1e6:.2f} M", flush=True)
    run(train, args.workers, weights + 8, args)


if __name__ == "__main__":
    main()
