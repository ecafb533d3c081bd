"""OpenAI's own client against the worker."""

import base64
import io
import json

import openai
from PIL import Image

from worker import TOKEN, WorkerTestCase

PROMPT = "a red circle on green grass"


def picture(image) -> Image.Image:
    """The picture in one entry of an answer, or in an event."""
    return Image.open(io.BytesIO(base64.b64decode(image.b64_json)))


def png(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    # The client sends it under this name.
    file.name = "picture.png"
    return file


class OpenAi(WorkerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=cls.address + "/v1", api_key=TOKEN, max_retries=0)
        cls.addClassCleanup(cls.client.close)

    def parameters(self, answer) -> dict:
        """What the job behind an answer was run with."""
        return json.loads(self.fetch(f"/v1/jobs/{answer.job_id}"))["parameters"]

    def generate(self, **arguments):
        extra = {"seed": 7, "steps": 4} | arguments.pop("extra_body", {})
        arguments = {"size": "64x64"} | arguments
        return self.client.images.generate(prompt=PROMPT, extra_body=extra, **arguments)

    def test_models_are_listed_and_shown(self):
        models = list(self.client.models.list())
        self.assertEqual([model.id for model in models], ["demo"])
        model = self.client.models.retrieve("demo")
        self.assertEqual((model.id, model.object, model.owned_by), ("demo", "model", "sd-worker"))
        self.assertEqual(model.created, models[0].created)
        # Our own fields stand beside those of the client's type.
        self.assertIn("image_inpaint", model.operations)
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.models.retrieve("gpt-image-1")
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_pictures_are_generated(self):
        answer = self.generate(model="demo", n=2, size="64x64", quality="high", user="me", background="auto")
        self.assertIsInstance(answer, openai.types.ImagesResponse)
        self.assertEqual((answer.size, answer.output_format, answer.background), ("64x64", "png", "opaque"))
        self.assertEqual((answer.quality, answer.safety_identifier), ("high", "me"))
        self.assertEqual([image.seed for image in answer.data], [7, 8])
        for image in answer.data:
            self.assertEqual((picture(image).format, picture(image).size), ("PNG", (64, 64)))
        self.assertNotEqual(answer.data[0].b64_json, answer.data[1].b64_json)
        parameters = self.parameters(answer)
        self.assertEqual((parameters["prompt"], parameters["num_images"], parameters["steps"]), (PROMPT, 2, 4))

    def test_the_seed_decides(self):
        first, again = self.generate(), self.generate()
        other = self.generate(extra_body={"seed": 8})
        self.assertEqual(first.data[0].b64_json, again.data[0].b64_json)
        self.assertNotEqual(first.data[0].b64_json, other.data[0].b64_json)

    def test_a_request_that_is_sent_again_is_the_same_job(self):
        # Without a seed: pictures of two jobs would differ.
        key = {"Idempotency-Key": "generated"}
        first, again = (self.client.images.generate(prompt=PROMPT, extra_headers=key) for _ in range(2))
        self.assertEqual((again.job_id, again.data[0].b64_json), (first.job_id, first.data[0].b64_json))
        with self.client.images.generate(prompt=PROMPT, extra_headers=key, stream=True) as stream:
            self.assertEqual([event.b64_json for event in stream], [first.data[0].b64_json])
        # Forms are written with another boundary each time.
        base, key = png(picture(first.data[0])).getvalue(), {"Idempotency-Key": "edited"}
        files = (io.BytesIO(base) for _ in range(2))
        edits = [self.client.images.edit(image=("a.png", file), prompt=PROMPT, extra_headers=key) for file in files]
        self.assertEqual(edits[0].job_id, edits[1].job_id)
        with self.assertRaises(openai.UnprocessableEntityError) as caught:
            self.client.images.edit(image=("a.png", base), prompt="another", extra_headers=key)
        self.assertEqual(caught.exception.code, "idempotency_key_reused")

    def test_an_address_leads_to_the_picture(self):
        answer = self.generate(response_format="url", n=2)
        self.assertIsNone(answer.data[0].b64_json)
        for image in answer.data:
            self.assertTrue(image.url.startswith(self.address), image.url)
            self.assertEqual(Image.open(io.BytesIO(self.fetch(image.url))).size, (64, 64))

    def test_formats(self):
        for name, format in [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")]:
            answer = self.generate(output_format=name)
            self.assertEqual((answer.output_format, picture(answer.data[0]).format), (name, format))
        small, large = (self.generate(output_format="jpeg", output_compression=quality) for quality in (20, 100))
        self.assertLess(len(small.data[0].b64_json), len(large.data[0].b64_json))

    def test_a_stream_has_partial_pictures(self):
        with self.generate(stream=True, partial_images=2, extra_body={"steps": 9}) as stream:
            events = list(stream)
        self.assertEqual(
            [event.type for event in events], ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
        )
        self.assertEqual([event.partial_image_index for event in events[:2]], [0, 1])
        for event in events:
            picture(event).load()
            self.assertEqual(event.size, "64x64")
        done = events[-1]
        self.assertIsInstance(done, openai.types.ImageGenCompletedEvent)
        self.assertEqual((picture(done).format, done.output_format, done.usage.total_tokens), ("PNG", "png", 0))
        # Watching changes nothing.
        alone = self.generate(extra_body={"steps": 9})
        self.assertEqual(picture(alone.data[0]).tobytes(), picture(done).tobytes())

    def test_an_edit_keeps_what_the_mask_does_not_mark(self):
        base = picture(self.generate().data[0]).convert("RGB")
        # The right half is transparent: it is what is edited.
        mask = Image.new("RGBA", base.size, (0, 0, 0, 255))
        mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
        answer = self.client.images.edit(
            image=png(base), mask=png(mask), prompt="a blue square on sand", n=1, extra_body={"seed": 3, "steps": 6}
        )
        edited = picture(answer.data[0]).convert("RGB")
        self.assertEqual(self.parameters(answer)["operation"], "image_inpaint")
        left, right = (0, 0, 32, 64), (32, 0, 64, 64)
        self.assertEqual(edited.crop(left).tobytes(), base.crop(left).tobytes())
        self.assertNotEqual(edited.crop(right).tobytes(), base.crop(right).tobytes())

        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.images.edit(image=png(base), mask=png(mask.resize((32, 32))), prompt=PROMPT)
        self.assertEqual(caught.exception.param, "mask")
        self.assertIn("mask: has 32 x 32 pixels, image 64 x 64", caught.exception.message)

        # The same mask within the picture itself.
        holed = base.convert("RGBA")
        holed.paste((0, 0, 0, 0), right)
        answer = self.client.images.edit(image=png(holed), prompt="a blue square on sand", extra_body={"steps": 4})
        edited = picture(answer.data[0]).convert("RGB")
        self.assertEqual(edited.crop(left).tobytes(), base.crop(left).tobytes())

    def test_an_edit_without_a_mask_redraws_all_of_it(self):
        base = picture(self.generate().data[0]).convert("RGB")
        with self.client.images.edit(
            image=[png(base)],
            prompt="a blue square on sand",
            stream=True,
            partial_images=1,
            input_fidelity="low",
            extra_body={"strength": 0.9, "steps": 8, "seed": 1},
        ) as stream:
            events = list(stream)
        self.assertEqual([event.type for event in events], ["image_edit.partial_image", "image_edit.completed"])
        self.assertIsInstance(events[-1], openai.types.ImageEditCompletedEvent)
        self.assertNotEqual(picture(events[-1]).convert("RGB").tobytes(), base.tobytes())
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.images.edit(image=[png(base), png(base)], prompt=PROMPT)
        self.assertEqual(caught.exception.param, "image")

    def test_variations_resemble_the_picture(self):
        base = picture(self.generate(extra_body={"steps": 20}).data[0]).convert("RGB")
        answer = self.client.images.create_variation(image=png(base), n=2, size="64x64", extra_body={"seed": 5})
        self.assertEqual(len(answer.data), 2)
        self.assertEqual(self.parameters(answer)["operation"], "image_transform")
        for image in answer.data:
            varied = picture(image).convert("RGB")
            pairs = list(zip(base.tobytes(), varied.tobytes()))
            difference = sum(abs(a - b) for a, b in pairs) / len(pairs)
            self.assertGreater(difference, 0.5)
            self.assertLess(difference, 50)

    def test_errors_are_those_of_the_client(self):
        for arguments, kind, param in [
            ({"n": 9}, openai.BadRequestError, "n"),
            ({"size": "huge"}, openai.BadRequestError, "size"),
            ({"size": "63x64"}, openai.BadRequestError, "size"),
            ({"background": "transparent"}, openai.BadRequestError, "background"),
            ({"output_format": "gif"}, openai.BadRequestError, "output_format"),
            ({"model": "dall-e-3"}, openai.NotFoundError, "model"),
            ({"extra_body": {"colour": "red"}}, openai.BadRequestError, "colour"),
            ({"extra_body": {"sampler": "flow_euler"}}, openai.UnprocessableEntityError, "sampler"),
        ]:
            with self.subTest(arguments), self.assertRaises(kind) as caught:
                self.generate(**arguments)
            error = caught.exception
            self.assertEqual((error.type, error.param), ("invalid_request_error", param))
            self.assertIn(param, error.message)
            self.assertTrue(error.request_id)
        with self.assertRaises(openai.AuthenticationError):
            self.client.with_options(api_key="wrong").images.generate(prompt=PROMPT)

    def test_an_error_within_a_stream_is_raised(self):
        with self.assertRaises(openai.APIError) as caught:
            with self.generate(stream=True, extra_body={"deadline_ms": 1, "steps": 150}) as stream:
                list(stream)
        self.assertEqual((caught.exception.code, caught.exception.type), ("timeout", "server_error"))


class OpenAiSwitchedOff(WorkerTestCase):
    arguments = ["--no-openai"]

    def test_its_addresses_are_unknown(self):
        with openai.OpenAI(base_url=self.address + "/v1", api_key=TOKEN, max_retries=0) as client:
            with self.assertRaises(openai.NotFoundError):
                client.images.generate(prompt=PROMPT)
