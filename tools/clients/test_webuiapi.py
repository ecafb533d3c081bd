"""A client of A1111's web UI against the worker."""

import json
import pathlib
import threading
import time

import webuiapi
from PIL import Image

from worker import TOKEN, WorkerTestCase

PROMPT = "a red circle on green grass"


class WebUi(WorkerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # As its users write it: a name and a password. The password is the token.
        cls.api = webuiapi.WebUIApi(baseurl=cls.address + "/sdapi/v1", username="me", password=TOKEN)
        cls.addClassCleanup(cls.api.session.close)

    def txt2img(self, **arguments):
        defaults = {"prompt": PROMPT, "seed": 7, "steps": 6, "width": 64, "height": 64}
        return self.api.txt2img(**(defaults | arguments))

    def parameters(self, result) -> dict:
        """What the job behind a result was run with."""
        return json.loads(self.fetch(f"/v1/jobs/{result.info['job_id']}"))["parameters"]

    def test_txt2img(self):
        result = self.txt2img(negative_prompt="blue", cfg_scale=3.5, batch_size=2, n_iter=2)
        self.assertEqual([image.size for image in result.images], [(64, 64)] * 4)
        self.assertEqual(len({image.tobytes() for image in result.images}), 4)
        info = result.info
        self.assertEqual(info["all_seeds"], [7, 8, 9, 10])
        self.assertEqual(info["all_prompts"], [PROMPT] * 4)
        for name, value in {
            "seed": 7, "steps": 6, "cfg_scale": 3.5, "width": 64, "height": 64, "sampler_name": "Euler a", "batch_size": 2,
            "negative_prompt": "blue", "sd_model_name": "demo", "clip_skip": 1, "ignored": [],
        }.items():
            self.assertEqual(info[name], value, name)
        self.assertEqual(result.parameters["prompt"], PROMPT)
        parameters = self.parameters(result)
        self.assertEqual((parameters["sampler"], parameters["num_images"]), ("euler_a", 4))
        # The picture tells what the answer tells.
        self.assertEqual(result.images[3].text["parameters"], info["infotexts"][3])

    def test_the_seed_decides(self):
        first, again, other = self.txt2img(), self.txt2img(), self.txt2img(seed=8)
        self.assertEqual(first.image.tobytes(), again.image.tobytes())
        self.assertNotEqual(first.image.tobytes(), other.image.tobytes())
        drawn = self.txt2img(seed=-1).info["seed"]
        self.assertGreaterEqual(drawn, 0)

    def test_every_sampler_and_schedule_that_is_listed_works(self):
        samplers = [entry["name"] for entry in self.api.get_samplers()]
        self.assertIn("DPM++ 2M", samplers)
        for name in samplers:
            result = self.txt2img(sampler_name=name, steps=3)
            self.assertEqual(result.info["sampler_name"], name)
        schedulers = self.api.get_schedulers()
        self.assertEqual(schedulers[0]["name"], "automatic")
        for entry in schedulers[1:]:
            for name in (entry["name"], entry["label"]):
                result = self.txt2img(sampler_name="Euler", scheduler=name, steps=3)
                self.assertEqual(result.info["extra_generation_params"], {"Schedule type": entry["label"]})

    def test_img2img(self):
        base = self.txt2img().image.convert("RGB")
        options = {"prompt": "a blue square on sand", "images": [base], "seed": 3, "steps": 8, "width": 64, "height": 64}
        little, much = (self.api.img2img(denoising_strength=strength, **options) for strength in (0.2, 0.9))

        def difference(image):
            pairs = list(zip(base.tobytes(), image.convert("RGB").tobytes()))
            return sum(abs(a - b) for a, b in pairs) / len(pairs)

        self.assertLess(difference(little.image), difference(much.image))
        self.assertIsNone(little.parameters["init_images"])
        self.assertEqual(little.info["denoising_strength"], 0.2)

    def test_inpainting_keeps_what_the_mask_does_not_mark(self):
        base = self.txt2img().image.convert("RGB")
        mask = Image.new("L", base.size, 0)
        left, right = (0, 0, 32, 64), (32, 0, 64, 64)
        mask.paste(255, right)
        for invert, kept, drawn in [(0, left, right), (1, right, left)]:
            for whole in (True, False):
                result = self.api.img2img(
                    images=[base], mask_image=mask, inpainting_mask_invert=invert, inpainting_fill=1, mask_blur=0,
                    inpaint_full_res=whole, prompt="a blue square on sand", seed=3, steps=8, width=64, height=64,
                    denoising_strength=1.0,
                )
                image = result.image.convert("RGB")
                self.assertEqual(image.crop(kept).tobytes(), base.crop(kept).tobytes(), (invert, whole))
                self.assertNotEqual(image.crop(drawn).tobytes(), base.crop(drawn).tobytes(), (invert, whole))

    def test_a_second_pass_enlarges(self):
        result = self.txt2img(enable_hr=True, hr_scale=2, hr_upscaler=webuiapi.HiResUpscaler.Latent)
        self.assertEqual(result.image.size, (128, 128))
        result = self.txt2img(
            enable_hr=True, hr_resize_x=128, hr_resize_y=128, hr_upscaler=webuiapi.HiResUpscaler.Lanczos
        )
        self.assertEqual(result.image.size, (128, 128))

    def test_png_info(self):
        result = self.txt2img()
        told = self.api.png_info(result.image)
        self.assertEqual(told.info, result.info["infotexts"][0])
        for name, value in {"Prompt": PROMPT, "Steps": "6", "Seed": "7", "Size-1": "64", "Sampler": "Euler a"}.items():
            self.assertEqual(told.parameters[name], value, name)
        self.assertEqual(self.api.png_info(Image.new("RGB", (8, 8))).info, "")

    def test_progress_and_interrupt(self):
        idle = self.api.get_progress()
        self.assertEqual((idle["progress"], idle["state"]["job_count"]), (0, 0))
        results = []
        thread = threading.Thread(target=lambda: results.append(self.txt2img(steps=150, batch_size=4)))
        thread.start()
        seen = []
        end = time.monotonic() + 60
        while not (seen and seen[-1]["current_image"]):
            self.assertLess(time.monotonic(), end, "no preview in time")
            self.assertTrue(thread.is_alive(), "it was over before it was seen")
            seen.append(self.api.get_progress())
        self.assertEqual(self.api.interrupt(), {})
        thread.join(60)
        self.assertEqual(results[0].images, [])
        running = [progress for progress in seen if progress["state"]["sampling_step"] > 0]
        self.assertTrue(all(0 < progress["progress"] <= 1 for progress in running))
        self.assertTrue(all(progress["state"]["sampling_steps"] == 150 for progress in running))
        steps = [progress["state"]["sampling_step"] for progress in running]
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(self.api.get_progress()["state"]["job_count"], 0)
        self.assertIn(self.api.skip(), ({}, None))

    def test_options(self):
        options = self.api.get_options()
        self.assertEqual((options["sd_model_checkpoint"], options["CLIP_stop_at_last_layers"]), ("demo", 1))
        self.api.set_options({"samples_format": "webp", "sd_model_checkpoint": "demo"})
        self.assertEqual(self.txt2img().image.format, "WEBP")
        self.api.set_options({"samples_format": "png"})
        self.assertEqual(self.txt2img(override_settings={"samples_format": "jpg"}).image.format, "JPEG")
        self.assertEqual(self.txt2img().image.format, "PNG")

    def test_lists(self):
        self.assertEqual([model["title"] for model in self.api.get_sd_models()], ["demo"])
        self.assertEqual(self.api.get_latent_upscale_modes(), [{"name": "Latent"}])
        self.assertEqual([entry["name"] for entry in self.api.get_upscalers()], ["Lanczos"])
        for empty in (self.api.get_loras, self.api.get_sd_vae, self.api.get_hypernetworks, self.api.get_prompt_styles):
            self.assertEqual(empty(), [])
        self.assertEqual(self.api.get_scripts(), {"txt2img": [], "img2img": []})
        self.assertEqual(self.api.get_embeddings(), {"loaded": {}, "skipped": {}})
        self.assertIsNone(self.api.refresh_checkpoints())

    def test_tiling(self):
        self.assertEqual(self.parameters(self.txt2img(tiling=True))["tiling"], {"x": True, "y": True})

    def test_what_cannot_be_done_is_refused(self):
        for arguments, status, name in [
            ({"restore_faces": True}, 400, "restore_faces"),
            ({"subseed_strength": 0.5}, 400, "subseed_strength"),
            ({"sampler_name": "Restart"}, 400, "sampler_name"),
            ({"prompt": "a cat <lora:none:1>"}, 422, "prompt"),
            ({"override_settings": {"sd_model_checkpoint": "other"}}, 404, "other"),
            ({"controlnet_units": [webuiapi.ControlNetUnit(image=Image.new("RGB", (64, 64)), model="edges")]}, 422, "control"),
        ]:
            with self.subTest(arguments), self.assertRaises(RuntimeError) as caught:
                self.txt2img(**arguments, alwayson_scripts={})
            self.assertEqual(caught.exception.args[0], status, caught.exception.args[1])
            self.assertIn(name, json.loads(caught.exception.args[1])["detail"])

    def test_a_wrong_password_is_refused(self):
        api = webuiapi.WebUIApi(baseurl=self.address + "/sdapi/v1", username="me", password="wrong")
        with api.session, self.assertRaises(RuntimeError) as caught:
            api.txt2img(prompt=PROMPT)
        self.assertEqual(caught.exception.args[0], 401)


class WebUiWithOtherNetworks(WorkerTestCase):
    network = pathlib.Path(__file__).parents[2] / "fixtures/upscalers/basic_4x.safetensors"
    # The demonstration model takes over from itself.
    arguments = ["--upscaler", str(network), "--refiner", "demo"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.api = webuiapi.WebUIApi(baseurl=cls.address + "/sdapi/v1", username="me", password=TOKEN)
        cls.addClassCleanup(cls.api.session.close)

    def test_a_picture_is_enlarged(self):
        picture = Image.new("RGB", (24, 16), (200, 30, 30))
        self.assertIn("Network", [entry["name"] for entry in self.api.get_upscalers()])
        for arguments, size in [
            ({"upscaler_1": "Network"}, (48, 32)),
            ({"upscaler_1": "basic_4x", "upscaling_resize": 4}, (96, 64)),
            ({"upscaler_1": "Network", "resize_mode": 1, "upscaling_resize_w": 72, "upscaling_resize_h": 48}, (72, 48)),
        ]:
            with self.subTest(arguments):
                self.assertEqual(self.api.extra_single_image(picture, **arguments).image.size, size)
        for arguments, status in [({"upscaler_1": "other"}, 404), ({}, 400), ({"upscaler_1": "Network", "gfpgan_visibility": 1}, 400)]:
            with self.subTest(arguments), self.assertRaises(RuntimeError) as caught:
                self.api.extra_single_image(picture, **arguments)
            self.assertEqual(caught.exception.args[0], status, caught.exception.args[1])

    def test_a_refiner_takes_over(self):
        # The client has no arguments for it.
        body = {"prompt": PROMPT, "seed": 7, "steps": 6, "width": 64, "height": 64, "sampler_name": "Euler"}
        refined = {"refiner_checkpoint": "demo.safetensors [0123456789]", "refiner_switch_at": 0.5}

        def drawn(body):
            answer = self.api.session.post(self.api.baseurl + "/txt2img", json=body).json()
            job = json.loads(answer["info"])["job_id"]
            return answer["images"][0], json.loads(self.fetch(f"/v1/jobs/{job}"))["parameters"]

        _, told = drawn(body | refined)
        self.assertEqual(told["refiner"], {"start": 0.5})
        self.assertNotIn("refiner", drawn(body)[1])
        other = self.api.session.post(self.api.baseurl + "/txt2img", json=body | refined | {"refiner_checkpoint": "xl"})
        self.assertEqual((other.status_code, other.json()["fields"][0]["field"]), (400, "refiner_checkpoint"))


class WebUiSwitchedOff(WorkerTestCase):
    arguments = ["--no-a1111"]

    def test_its_addresses_are_unknown(self):
        api = webuiapi.WebUIApi(baseurl=self.address + "/sdapi/v1")
        # A password is the token's other form at these addresses only.
        api.session.headers["Authorization"] = f"Bearer {TOKEN}"
        with api.session, self.assertRaises(RuntimeError) as caught:
            api.txt2img(prompt=PROMPT)
        self.assertEqual(caught.exception.args[0], 404)
