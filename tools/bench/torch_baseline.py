"""What `sd-worker bench` measures, done by PyTorch and the model classes of diffusers.

One JSON object with the keys of `sd-worker bench --json` goes to standard output.
"""

import argparse
import gc
import json
import platform
import statistics
import time

import diffusers
import torch
import transformers

import shapes

TOKENS = 77
GUIDANCE = 7.5
PARTS = ["text", "step", "decode", "picture"]


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    bench = Bench(options)
    with torch.inference_mode():
        for part in options.parts:
            getattr(bench, part)()
            if not options.hold:
                bench.forget()
    print(json.dumps(bench.report(), indent=None if options.json else 2))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", choices=list(shapes.FAMILIES), default="sd15", help="shapes of the random model")
    parser.add_argument("--size", type=int, help="width and height in pixels [default: the model's own]")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--layout", choices=["contiguous", "channels_last"], default="contiguous",
                        help="memory format of the UNet's and VAE's weights and inputs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=1, help="pictures at once")
    parser.add_argument("--iterations", type=int, default=3,
                        help="how often each part is measured")
    parser.add_argument("--warmup", type=int, default=1,
                        help="how often each part runs before that (for `picture` with a single step)")
    parser.add_argument("--steps", type=int, default=20, help="steps of the part `picture`")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=PARTS[:3],
                        help="any of text,step,decode,picture [default: text,step,decode]")
    parser.add_argument("--hold", action="store_true",
                        help="keep all models in memory, as a pipeline does; otherwise each part's are dropped after it")
    parser.add_argument("--json", action="store_true", help="print the object on one line")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"--parts knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    options.size = options.size or shapes.FAMILIES[options.random][1]["sample_size"] * 8
    return options


class Bench:
    """Models on demand and what was measured with them."""

    def __init__(self, options):
        self.options = options
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
        self.layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[options.layout]
        self.models = {}
        self.load_seconds = 0.0
        self.samples = {}

    def model(self, name):
        if name not in self.models:
            start = time.perf_counter()
            model = getattr(shapes, name)(self.options.random, self.dtype)
            self.models[name] = model if name == "text_encoders" else model.to(memory_format=self.layout)
            self.load_seconds += time.perf_counter() - start
        return self.models[name]

    def forget(self):
        self.models.clear()
        gc.collect()

    def measure(self, part, run, warm_up=None):
        """Samples of `run` in milliseconds, after calls (of `warm_up` where a call is long) that do not count."""
        for _ in range(self.options.warmup):
            (warm_up or run)()
        samples = []
        for _ in range(self.options.iterations):
            start = time.perf_counter()
            run()
            samples.append(round((time.perf_counter() - start) * 1e3, 3))
        self.samples[part] = samples

    # The parts

    def text(self):
        encoders = self.model("text_encoders")
        self.measure("text_encode", lambda: self.encode(encoders))

    def step(self):
        unet, states, added = self.model("unet"), *self.random_text()
        steps = Steps(self, unet, states, added, self.options.iterations + self.options.warmup)
        self.measure("step", steps.advance)
        assert torch.isfinite(steps.latents).all(), "the steps left the range of numbers"

    def decode(self):
        vae = self.model("vae")
        latents = self.noise()
        self.measure("decode", lambda: self.pixels(vae, latents))

    def picture(self):
        encoders, unet, vae = (self.model(name) for name in ["text_encoders", "unet", "vae"])

        def draw(count=self.options.steps):
            steps = Steps(self, unet, *self.encode(encoders), count)
            for _ in range(count):
                steps.advance()
            self.pixels(vae, steps.latents)

        self.measure("picture", draw, warm_up=lambda: draw(1))

    # What they are made of

    def encode(self, encoders):
        """Both prompts in one batch: `(2, tokens, width)`, and with two encoders the pooled state and the sizes."""
        begin, end, room = 49406, 49407, TOKENS - 2
        ids = [[begin, *range(400, 400 + room), end], [begin, *range(900, 912), *[end] * (room - 11)]]
        ids = torch.tensor(ids)
        if len(encoders) == 1:
            return encoders[0](ids).last_hidden_state, None
        outputs = [encoder(ids, output_hidden_states=True) for encoder in encoders]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return states, self.added(outputs[1].text_embeds)

    def random_text(self):
        """What `encode` gives, without its models."""
        config = shapes.FAMILIES[self.options.random][1]
        states = torch.randn(2, TOKENS, config["cross_attention_dim"]).to(self.dtype)
        pooled = torch.randn(2, 1280).to(self.dtype) if "addition_embed_type" in config else None
        return states, None if pooled is None else self.added(pooled)

    def added(self, pooled):
        size = self.options.size
        return {"text_embeds": pooled, "time_ids": torch.tensor([[size, size, 0, 0, size, size]] * 2).to(self.dtype)}

    def noise(self):
        side = self.options.size // 8
        generator = torch.Generator().manual_seed(7)
        latents = torch.randn(self.options.batch, 4, side, side, generator=generator)
        return latents.to(self.dtype).to(memory_format=self.layout)

    def pixels(self, vae, latents):
        """Bytes of the pictures, decoded one by one as sd-worker does."""
        pictures = []
        for one in latents.split(1):
            pixels = vae.decode(one / vae.config.scaling_factor, return_dict=False)[0].float()
            pictures.append((pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1))
        return torch.cat(pictures).contiguous()

    def report(self):
        options = self.options
        medians = {f"{part}_ms": round(statistics.median(samples), 3) for part, samples in self.samples.items()}
        absent = {f"{part}_ms": None for part in ["text_encode", "step", "decode", "picture"]}
        return {
            "model": f"random {options.random}",
            "device": "cpu",
            "dtype": options.dtype,
            "layout": options.layout,
            "threads": torch.get_num_threads(),
            "kernels": torch.backends.cpu.get_cpu_capability(),
            "size": options.size,
            "batch": options.batch,
            "iterations": options.iterations,
            "picture_steps": options.steps,
            "load_ms": round(self.load_seconds * 1e3, 3),
            **absent,
            **medians,
            "parts": {part: {"samples_ms": samples} for part, samples in self.samples.items()},
            "peak_rss_mb": peak_rss_mb(),
            "held_together": options.hold or "picture" in options.parts,
            "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
                        f"transformers {transformers.__version__}, python {platform.python_version()}",
        }


class Steps:
    """A run of guided denoising steps: what `StableDiffusionPipeline.__call__` does in its loop."""

    def __init__(self, bench, unet, states, added, count):
        batch = bench.options.batch
        self.unet, self.layout = unet, bench.layout
        # Guidance is one batch: the pictures without the prompt, then the pictures with it.
        self.states = states.repeat_interleave(batch, dim=0)
        self.added = added and {name: value.repeat_interleave(batch, dim=0) for name, value in added.items()}
        self.scheduler = shapes.scheduler(bench.options.random)
        self.scheduler.set_timesteps(count)
        self.latents = bench.noise() * self.scheduler.init_noise_sigma
        self.next = 0

    def advance(self):
        timestep = self.scheduler.timesteps[self.next]
        self.next += 1
        both = torch.cat([self.latents] * 2).to(memory_format=self.layout)
        both = self.scheduler.scale_model_input(both, timestep)
        prediction = self.unet(both, timestep, encoder_hidden_states=self.states, added_cond_kwargs=self.added,
                               return_dict=False)[0]
        without, with_prompt = prediction.chunk(2)
        prediction = without + GUIDANCE * (with_prompt - without)
        self.latents = self.scheduler.step(prediction, timestep, self.latents, return_dict=False)[0]


def peak_rss_mb():
    """The most memory that this process ever held, or None where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return round(int(line.split()[1]) * 1024 / 1e6, 3)


if __name__ == "__main__":
    main()
