"""Train the autoencoder (factor 4: 64x64 pixels become 16x16 latents).

    python train_vae.py --work DIR [--minutes 17]

Three of the four latent channels are pulled towards the picture's own colours
averaged over 4x4 pixels.  That gives the UNet a latent space in which colours
and outlines are plain to see; the fourth channel is free for detail.  Noise is
added to the latents in training so that the decoder forgives the UNet's small
errors.  A loss on differences between neighbouring pixels keeps edges sharp.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models import Average, count, make_vae
from parallel import run

PEAK = 2e-3
BATCH = 8      # per process


def edges(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def loss_of(vae, picture, tie):
    moments = vae.quant_conv(vae.encoder(picture))
    mean, logvar = moments.chunk(2, 1)
    logvar = logvar.clamp(-12, 4)
    z = mean + torch.randn_like(mean) * (0.04 + torch.exp(0.5 * logvar))
    out = vae.decoder(vae.post_quant_conv(z))
    pixel = F.mse_loss(out, picture) + 0.15 * F.l1_loss(out, picture)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(out), edges(picture)))
    rgb = F.mse_loss(mean[:, :3], F.avg_pool2d(picture, 4))
    free = mean[:, 3].square().mean() * 1e-3
    kl = (torch.exp(logvar) - logvar - 1).mean() * 1e-5
    return pixel + 0.15 * edge + tie * rgb + free + kl


def batch(pictures, rng, size):
    take = torch.from_numpy(pictures[np.sort(rng.integers(len(pictures), size=size))])
    x = take.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def psnr(vae, pictures):
    """Mean over pictures of the peak signal-to-noise ratio, in dB."""
    x = batch(pictures, np.random.default_rng(5), 64)
    out = []
    for part in x.split(64):
        y = vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        out.append(-10 * torch.log10((y - part).square().mean((1, 2, 3)) / 4))
    return torch.cat(out).mean().item()


def train(group, args):
    torch.manual_seed(1)   # equal weights at the start in every process
    vae = make_vae().to(memory_format=torch.channels_last)
    if args.resume:
        vae.load_state_dict(torch.load(args.work / "vae.pt"))
    torch.manual_seed(100 + group.rank)
    rng = np.random.default_rng(100 + group.rank)
    pictures = np.load(args.work / "pictures.npy", mmap_mode="r")
    average = Average(vae, 0.998)
    optimiser = torch.optim.AdamW(vae.parameters(), PEAK, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    start, step, elapsed, smooth = time.time(), 0, 0.0, None
    saved = 0.0
    while elapsed < args.minutes:
        done = elapsed / args.minutes
        # Warm up, hold, then fall to 2 % over the last 60 %.
        rate = PEAK * min(1, (step + 1) / 100) * min(1, max(0.02, (1 - done) / 0.6))
        for entry in optimiser.param_groups:
            entry["lr"] = rate
        loss = loss_of(vae, batch(pictures, rng, BATCH), 0.5 if done < 0.2 else 0.15)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        value, elapsed = group.average(vae.parameters(), [loss.item(), (time.time() - start) / 60])
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        step += 1
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        if group.rank == 0 and step % 100 == 0:
            print(f"{elapsed:.2f} min step {step} loss {smooth:.4f} "
                  f"{step * BATCH * group.size / (time.time() - start):.0f}/s", flush=True)
        if group.rank == 0 and elapsed - saved > 3:
            saved = elapsed
            torch.save(average.state(), args.work / "vae.pt")
            test = make_vae()
            test.load_state_dict(average.state())
            print(f"  average model: {psnr(test, pictures):.2f} dB", flush=True)
    if group.rank == 0:
        torch.save(average.state(), args.work / "vae.pt")
        vae.load_state_dict(average.state())
        print(f"done: {psnr(vae, pictures):.2f} dB", flush=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--minutes", type=float, default=17)
    args.add_argument("--workers", type=int, default=2)
    args.add_argument("--resume", action="store_true", help="start from DIR/vae.pt")
    args = args.parse_args()
    weights = count(make_vae())
    print(f"vae {weights / 1e6:.2f} M", flush=True)
    run(train, args.workers, weights + 8, args)


if __name__ == "__main__":
    main()
