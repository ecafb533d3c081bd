"""Starts the worker that the tests talk to, and stops it."""

import os
import subprocess
import time
import unittest
import urllib.error
import urllib.request

TOKEN = "a-token-of-the-tests"
PATIENCE_S = 120


class WorkerTestCase(unittest.TestCase):
    """Tests that share one worker, with the demonstration model and a token."""

    arguments: list[str] = []

    @classmethod
    def setUpClass(cls):
        # The token goes the way that documentation recommends: `ps` does not show it.
        environment = os.environ | {"SD_WORKER_TOKEN": TOKEN, "SD_WORKER_LOG": "error"}
        cls.process = subprocess.Popen(
            [os.environ["SD_WORKER"], "serve", "--listen", "127.0.0.1:0", *cls.arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        cls.addClassCleanup(cls.stop)
        line = cls.process.stdout.readline().strip()
        cls.address = line.removeprefix("listening on ")
        assert cls.address.startswith("http://127.0.0.1:"), line
        cls.wait_until_ready()

    @classmethod
    def stop(cls):
        cls.process.terminate()
        try:
            cls.process.wait(30)
        except subprocess.TimeoutExpired:
            cls.process.kill()
            cls.process.wait()
        cls.process.stdout.close()

    @classmethod
    def wait_until_ready(cls):
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(cls.address + "/ready").close()
                return
            except urllib.error.HTTPError as error:
                error.close()
                assert error.code == 503, error
            assert time.monotonic() < end, "the worker is not ready in time"
            time.sleep(0.1)

    def fetch(self, path: str):
        """The body of an answer, with the token."""
        address = path if path.startswith("http") else self.address + path
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request) as answer:
            return answer.read()
