"""A page in Chromium follows jobs with the browser's own EventSource."""

import json
import tempfile

from browser import Chromium, Cut, Pages
from worker import WorkerTestCase

# What the worker asks browsers for, and what Chromium does unasked.
RETRY_S, UNASKED_S = 1.0, 3.0


def messages(records: list[dict]) -> list[dict]:
    return [record for record in records if record["kind"] == "message"]


def is_closed(records: list[dict]) -> bool:
    """Whether the browser will not connect again."""
    return any(record["kind"] == "closed" for record in records)


def has_ended(records: list[dict]) -> bool:
    return is_closed(records) and any(record["kind"] == "picture" and record["of"] == "complete" for record in records)


def types(records: list[dict]) -> list[str]:
    return [json.loads(message["data"])["type"] for message in messages(records)[:-1]]


class EventSourceTestCase(WorkerTestCase):
    @classmethod
    def setUpClass(cls):
        cls.pages = Pages()
        cls.addClassCleanup(cls.pages.close)
        cls.browser = Chromium()
        cls.addClassCleanup(cls.browser.close)
        super().setUpClass()
        cls.pages.worker, cls.pages.token = cls.address, cls.token

    def submit(self, **fields) -> str:
        request = {"operation": "image_generation", "prompt": "a red circle on green grass", "seed": 7, "steps": 12}
        request |= {"width": 64, "height": 64, "preview": {"every": 6, "method": "latent_rgb"}}
        return json.loads(self.fetch("/v1/jobs", request | fields))["job_id"]

    def open(self, tab: str, stream: str):
        self.browser.open(self.pages.page(tab, stream))

    def assert_whole(self, records: list[dict]):
        """The ids count from 1, each once, and the terminator comes once, last."""
        told = messages(records)
        self.assertEqual([message["id"] for message in told[:-1]], [str(id) for id in range(1, len(told))])
        self.assertEqual(told[-1]["data"], "[DONE]")


class OfAnotherOrigin(EventSourceTestCase):
    """The page asks the worker itself, which lets it in by `--cors-origin`. EventSource cannot send a token."""

    token = None

    @classmethod
    def command(cls) -> list[str]:
        return ["--cors-origin", cls.pages.address]

    def test_a_job_arrives_event_by_event_and_its_end_is_the_end(self):
        job = self.submit()
        self.open("whole", f"{self.address}/v1/jobs/{job}/stream")
        records = self.pages.until("whole", has_ended)
        self.assert_whole(records)
        # A preview may come after the progress of the step that follows.
        self.assertEqual(
            [name for name in types(records) if name not in ("preview", "narration")],
            ["queued", "started"] + ["progress"] * 12 + ["complete"],
        )
        self.assertEqual(types(records).count("preview"), 1)
        # The pictures are such that the browser shows them.
        sizes = {record["of"]: record["size"] for record in records if record["kind"] == "picture"}
        self.assertEqual(sizes, {"preview": [64, 64], "complete": [64, 64]})
        # It came again after the end, was told that there is no more, and stays away.
        kinds = [record["kind"] for record in records if record["kind"] not in ("message", "picture")]
        self.assertEqual(kinds, ["open", "broken", "closed"])

    def test_two_tabs_get_the_same(self):
        job = self.submit(steps=150, num_images=4)
        stream = f"{self.address}/v1/jobs/{job}/stream"
        self.open("left", stream)
        self.pages.until("left", lambda records: len(messages(records)) > 2)
        self.open("right", stream)
        left, right = (messages(self.pages.until(tab, has_ended)) for tab in ("left", "right"))
        told = [(message["id"], message["data"]) for message in left]
        self.assertEqual(told, [(message["id"], message["data"]) for message in right])
        self.assertEqual(types(left).count("progress"), 150)

    def test_a_cancelled_job_ends_too(self):
        job = self.submit(steps=150, num_images=8)
        self.open("cancelled", f"{self.address}/v1/jobs/{job}/stream")
        self.pages.until("cancelled", lambda records: len(messages(records)) > 2)
        self.fetch(f"/v1/jobs/{job}", method="DELETE")
        records = self.pages.until("cancelled", is_closed)
        error, end = messages(records)[-2:]
        self.assertEqual(json.loads(error["data"])["code"], "cancelled")
        self.assertEqual(end["data"], "[CANCELLED]")


class ThroughAProxy(EventSourceTestCase):
    """The page asks its own server, which passes on to the worker, with the token."""

    def test_a_stream_that_is_cut_goes_on_after_its_last_event(self):
        job = self.submit()
        # Before the first event, between two, and within one.
        self.pages.cuts[:] = [Cut(0), Cut(3), Cut(4, torn=True)]
        self.open("cut", f"/v1/jobs/{job}/stream")
        records = self.pages.until("cut", has_ended)
        self.assert_whole(records)
        beyond = str(len(messages(records)))
        passed = self.pages.passed
        self.assertEqual([request.last_event_id for request in passed], [None, None, "3", "7", beyond])
        self.assertEqual([request.status for request in passed], [200, 200, 200, 200, 204])
        # `retry` decides when it comes again: one late return may be the machine's fault, but not all of them.
        pauses = [later.begun - earlier.ended for earlier, later in zip(passed, passed[1:])]
        self.assertGreater(min(pauses), RETRY_S * 0.9)
        self.assertLess(min(pauses), UNASKED_S)


class OfAWorkerThatIsKilled(EventSourceTestCase):
    token = None

    @classmethod
    def command(cls) -> list[str]:
        data = tempfile.TemporaryDirectory()
        cls.addClassCleanup(data.cleanup)
        return ["--cors-origin", cls.pages.address, "--data-dir", data.name]

    def test_a_page_outlives_the_worker(self):
        job = self.submit(steps=150, num_images=4)
        self.open("killed", f"{self.address}/v1/jobs/{job}/stream")
        before = messages(self.pages.until("killed", lambda records: len(messages(records)) > 5))
        self.process.kill()
        self.start_again()
        records = self.pages.until("killed", has_ended)
        told = messages(records)
        ids = [int(message["id"]) for message in told[:-1]]
        # The next process leaves out ids that the last one may have told.
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual(ids[: len(before)], list(range(1, len(before) + 1)))
        self.assertEqual((told[-1]["data"], types(records).count("complete")), ("[DONE]", 1))
        picture = json.loads(told[-2]["data"])["images"][3]
        self.assertEqual(picture["seed"], 10)
