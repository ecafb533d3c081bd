"""Brownian trees: numpy's seeds, torchsde's increments, and what the samplers for the reverse SDE make of them."""

import warnings

import numpy as np
import torch
import torchsde

import families
import runs
import solvers
from common import f32, made_by, seeded, write_json

SEED = 1234
SHAPE = (2, 4, 2, 3)
RANGE = (0.0291675, 14.614647)

ABOUT = [
    "seeds: numpy.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=24).generate_state(4).",
    "increments: torchsde.BrownianTree(t0, zeros(n), t1, entropy=entropy)(from, to); all numbers are f32.",
    "trajectories: as in solvers.json, with latents of `initial`; image k has the seed `seed` + k. dpmpp_sde: "
    "DPMSolverSDEScheduler with noise_sampler_seed, a seed for each image; dpmpp_3m_sde: k-diffusion's function with "
    "BrownianTreeNoiseSampler likewise.",
    "runs: as in runs.json with sd15/model, noise_sampler_seed the images' seeds.",
]

RUNS = [
    {"name": "dpmpp_sde", **runs.DEFAULTS, "sampler": "dpmpp_sde"},
    {"name": "karras", **runs.DEFAULTS, "sampler": "dpmpp_sde", "schedule": "karras", "steps": 5, "prompt": runs.SAILOR,
     "seed": 2**40 + 7},
    {"name": "two_images", **runs.DEFAULTS, "sampler": "dpmpp_sde", "num_images": 2, "steps": 3, "width": 40},
]


def seeds():
    rows = [(0, ()), (42, ()), (2**40 + 7, ()), (2**64 - 1, ()), (0, (0, 0)), (42, (0, 0)), (42, (5, 3)),
            (2**63 + 5, (2**20 + 1, 21)), (7, (2**33 + 2, 34))]
    return [{"entropy": str(entropy), "spawn_key": list(key),
             "state": np.random.SeedSequence(entropy, spawn_key=key, pool_size=24).generate_state(4).tolist()}
            for entropy, key in rows]


def increments():
    rows = []
    for entropy, (t0, t1) in ((0, RANGE), (SEED, RANGE), (2**63 + 5, (0.03, 4096.0))):
        low, high = np.float32(t0), np.float32(t1)
        tree = torchsde.BrownianTree(torch.tensor(low), torch.zeros(20), torch.tensor(high), entropy=entropy)
        middle = np.float32((low + high) / 2)
        for start, end in ((low, high), (low, middle), (1.0, 2.5), (0.5, high), (0.1, 0.100001), (3.25, 3.25), (6.47, 6.5),
                           (0.0, 1.0)):
            start, end = np.float32(start), np.float32(end)
            values = tree(torch.tensor(max(start, low)), torch.tensor(end))
            rows.append({"entropy": str(entropy), "t0": f32(low), "t1": f32(high), "from": f32(start), "to": f32(end),
                         "values": f32(values)})
    return rows


def trajectory(sampler, schedule, steps, prediction, eta=None):
    scheduler, _ = solvers.make(sampler, "sd15", schedule, "linspace", prediction_type=prediction)
    scheduler.set_timesteps(steps)
    each = [SEED + k for k in range(SHAPE[0])]
    x = initial() * scheduler.init_noise_sigma
    if sampler == "dpmpp_sde":
        assert not oddly_rounded(scheduler), "torch's last bits on this machine change the noise: choose other steps"
        scheduler.register_to_config(noise_sampler_seed=each)
        scheduler.noise_sampler_seed = each
        scheduler.set_begin_index(0)
        for t in scheduler.timesteps:
            out = solvers.model(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(out, t, x, return_dict=False)[0]
    else:
        functions = solvers.functions_of_k_diffusion()
        sigmas = scheduler.sigmas
        noise = functions.BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=each)
        x = of_k_diffusion(functions, sampler, scheduler, x, eta, noise)
    return {"sampler": sampler, "schedule": schedule, "steps": steps, "prediction": prediction, "eta": eta,
            "final": f32(x.flatten())}


def oddly_rounded(scheduler):
    """How many of the levels that the scheduler asks its tree for differ, in the six decimals that count there, from what
    exact logarithms and powers give: those of torch are off in the last bit here and there, on each machine elsewhere."""
    every = scheduler.sigmas
    steps = [every[0], *every[1:-1:2]]
    odd = 0
    for start, end in zip(steps, steps[1:]):
        own = [start.log().neg(), end.log().neg()]
        exact = [-np.float32(np.log(np.float64(level.numpy()))) for level in (start, end)]
        own.append(own[0] + (own[1] - own[0]) * 0.5)
        exact.append(exact[0] + (exact[1] - exact[0]) * np.float32(0.5))
        for one, other in zip(own, exact):
            other = np.float32(np.exp(np.float64(-other)))
            odd += round(float(one.neg().exp()), 6) != round(float(other), 6)
    return odd


def of_k_diffusion(functions, sampler, scheduler, x, eta, noise):
    known = {float(s): float(t) for s, t in zip(scheduler.sigmas, scheduler.timesteps)}

    def denoiser(x, sigma):
        sigma = sigma[0]
        out = solvers.model(x / (sigma**2 + 1) ** 0.5, known[float(sigma)])
        if scheduler.config.prediction_type == "epsilon":
            return x - sigma * out
        return out * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)

    function = getattr(functions, solvers.OF_K_DIFFUSION[sampler])
    return function(denoiser, x, scheduler.sigmas, disable=True, eta=1.0 if eta is None else eta, noise_sampler=noise)


def initial():
    return seeded(0, *SHAPE)


def trajectories():
    rows = [trajectory(sampler, schedule, steps, prediction)
            for sampler in ("dpmpp_sde", "dpmpp_3m_sde")
            for schedule, steps, prediction in (("normal", 2, "epsilon"), ("normal", 7, "v_prediction"), ("normal", 20, "epsilon"),
                                                ("normal", 50, "epsilon"), ("karras", 7, "epsilon"), ("exponential", 20, "epsilon"))]
    return [*rows, trajectory("dpmpp_3m_sde", "normal", 7, "epsilon", eta=0.5)]


def generate(pipe, config, spec, shake=0.0):
    each = [spec["seed"] + k for k in range(spec["num_images"])]
    pipe.scheduler, _ = solvers.make("dpmpp_sde", None, spec["schedule"], None, base=config, noise_sampler_seed=each)
    prepare = type(pipe).prepare_latents

    def disturbed(*arguments, **options):
        latents = prepare(pipe, *arguments, **options)
        return latents * (1 + shake * torch.sign(seeded(500, *latents.shape))) if shake else latents

    pipe.prepare_latents = disturbed
    images = pipe(spec["prompt"], negative_prompt=spec["negative_prompt"], width=spec["width"], height=spec["height"],
                  num_inference_steps=spec["steps"], guidance_scale=spec["guidance_scale"],
                  num_images_per_prompt=spec["num_images"],
                  generator=[torch.Generator("cpu").manual_seed(seed) for seed in each]).images
    del pipe.prepare_latents
    return images


def build(output):
    warnings.filterwarnings("ignore")
    folder = output / "brownian"
    folder.mkdir(parents=True, exist_ok=True)
    pipe = families.load("sd15", output / "sd15" / "model")
    config, rows = pipe.scheduler.config, []
    for spec in RUNS:
        images = generate(pipe, config, spec)
        with torch.backends.mkldnn.flags(enabled=False):
            other = runs.as_array(generate(pipe, config, spec, shake=1e-6))
        headroom = int(np.abs(other - runs.as_array(images)).max())
        assert headroom <= 1, f"{spec['name']}: roundings move the picture by {headroom} of 255"
        files = [f"{spec['name']}{f'_{k}' if len(images) > 1 else ''}.png" for k in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        rows.append({**spec, "seed": str(spec["seed"]), "files": files, "headroom": headroom})
    made = {**made_by("brownian.py"), "torchsde": torchsde.__version__}
    write_json(folder / "brownian.json", {
        "made_by": made, "about": ABOUT, "seed": SEED, "initial": {"shape": list(SHAPE), "values": f32(initial().flatten())},
        "seeds": seeds(), "increments": increments(), "trajectories": trajectories(), "runs": rows})
