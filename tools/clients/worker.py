"""Starts the worker that the tests talk to, and stops it."""

import json
import os
import subprocess
import time
import unittest
import urllib.error
import urllib.request

TOKEN = "a-token-of-the-tests"
PATIENCE_S = 120


class WorkerTestCase(unittest.TestCase):
    """Tests that share one worker, with the demonstration model and, unless told otherwise, a token."""

    arguments: list[str] = []
    token: str | None = TOKEN

    @classmethod
    def command(cls) -> list[str]:
        """Further arguments, those that are known only when the worker is started."""
        return []

    @classmethod
    def setUpClass(cls):
        cls.started_with = [*cls.arguments, *cls.command()]
        cls.start("127.0.0.1:0")
        cls.addClassCleanup(cls.stop)

    @classmethod
    def start(cls, listen: str):
        # The token goes the way that documentation recommends: `ps` does not show it.
        environment = os.environ | {"SD_WORKER_LOG": "error"}
        if cls.token:
            environment["SD_WORKER_TOKEN"] = cls.token
        cls.process = subprocess.Popen(
            [os.environ["SD_WORKER"], "serve", "--listen", listen, *cls.started_with],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = cls.process.stdout.readline().strip()
        cls.address = line.removeprefix("listening on ")
        assert cls.address.startswith("http://127.0.0.1:"), line
        cls.wait_until_ready()

    @classmethod
    def start_again(cls):
        """Starts it where it was, once it has ended."""
        cls.process.wait(PATIENCE_S)
        cls.process.stdout.close()
        cls.start(cls.address.removeprefix("http://"))

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

    def fetch(self, path: str, body=None, method: str | None = None):
        """The body of an answer, with the token. A body is sent as JSON."""
        address = path if path.startswith("http") else self.address + path
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            headers["Content-Type"], body = "application/json", json.dumps(body).encode()
        request = urllib.request.Request(address, body, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read()
