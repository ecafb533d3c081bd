"""A real browser for the tests: Chromium without a window, and the little server that gives it its pages."""

import http.client
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

PATIENCE_S = 120
PAGE = pathlib.Path(__file__).with_name("event_source.html").read_bytes()
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Chromium:
    """A browser with a profile of its own, which goes with it."""

    def __init__(self):
        program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            raise RuntimeError("Chromium is missing: `apt-get install chromium`, or name one with CHROMIUM=")
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            program,
            "--headless",
            "--remote-debugging-port=0",
            f"--user-data-dir={self.profile.name}",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            # Of two tabs one is behind the other: it shall not sleep.
            "--disable-background-timer-throttling",
            "--disable-renderer-backgrounding",
            "--no-first-run",
        ]
        if os.geteuid() == 0:
            # Its sandbox does not work for root, as whom tests run in containers. The pages are our own.
            command.append("--no-sandbox")
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([*command, "about:blank"], stdin=quiet, stdout=quiet, stderr=quiet)

    def open(self, address: str):
        """Opens a tab."""
        url = f"http://127.0.0.1:{self.port()}/json/new?{urllib.parse.quote(address, safe='')}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=PATIENCE_S).close()

    def port(self) -> int:
        """Where it takes orders; it writes that down once it is there."""
        file = pathlib.Path(self.profile.name, "DevToolsActivePort")
        end = time.monotonic() + PATIENCE_S
        while not (file.exists() and file.read_text().count("\n")):
            assert self.process.poll() is None, f"Chromium ended with {self.process.returncode}"
            assert time.monotonic() < end, "Chromium does not start in time"
            time.sleep(0.05)
        return int(file.read_text().split("\n")[0])

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.profile.cleanup()


class Cut:
    """What is to happen to one connection: after so many events it ends, with half of the next where `torn`."""

    def __init__(self, after: int, torn: bool = False):
        self.after, self.torn = after, torn


class Passed:
    """One request that went through the server to the worker."""

    def __init__(self, last_event_id):
        self.begun, self.ended = time.monotonic(), None
        self.last_event_id, self.status = last_event_id, None


class Pages:
    """Serves the page, hears what it tells, and passes its requests on to a worker, as a reverse proxy does."""

    def __init__(self):
        self.told = {}
        self.changed = threading.Condition()
        self.worker, self.token = None, None
        # For the next connections, one each.
        self.cuts, self.passed = [], []
        pages = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path.startswith("/v1/"):
                    pages.pass_on(self)
                elif self.path.startswith("/page"):
                    self.answer(200, "text/html; charset=utf-8", PAGE)
                else:
                    self.answer(404, "text/plain", b"")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with pages.changed:
                    pages.told.setdefault(body["tab"], {})[body["number"]] = body
                    pages.changed.notify_all()
                self.answer(204, "text/plain", b"")

            def answer(self, status: int, kind: str, body: bytes):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """A browser that hangs up is no error."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def page(self, tab: str, stream: str) -> str:
        """The address of the page that follows a stream."""
        return f"{self.address}/page?tab={tab}&stream={urllib.parse.quote(stream, safe='')}"

    def records(self, tab: str) -> list[dict]:
        """What the page in a tab has told so far, in its order, as far as nothing is missing between."""
        told = self.told.get(tab, {})
        count = next(number for number in range(len(told) + 1) if number not in told)
        return [told[number] for number in range(count)]

    def until(self, tab: str, wanted) -> list[dict]:
        """Waits until what a tab has told is what is wanted."""
        with self.changed:
            arrived = self.changed.wait_for(lambda: wanted(self.records(tab)), PATIENCE_S)
            assert arrived, f"{tab}: {[{**record, 'data': str(record.get('data'))[:60]} for record in self.records(tab)]}"
            return self.records(tab)

    def pass_on(self, handler):
        passed = Passed(handler.headers["Last-Event-ID"])
        cut = self.cuts.pop(0) if self.cuts else None
        self.passed.append(passed)
        worker = http.client.HTTPConnection(self.worker.removeprefix("http://"), timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {self.token}"}
        if passed.last_event_id is not None:
            headers["Last-Event-ID"] = passed.last_event_id
        worker.request("GET", handler.path, headers=headers)
        answer = worker.getresponse()
        passed.status = answer.status
        handler.close_connection = True
        handler.send_response(answer.status)
        for name in ("Content-Type", "Cache-Control"):
            if answer.headers[name]:
                handler.send_header(name, answer.headers[name])
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            self.pass_events(answer, handler.wfile, cut)
        finally:
            passed.ended = time.monotonic()
            worker.close()

    @staticmethod
    def pass_events(answer, out, cut):
        events, block = 0, b""
        for line in answer:
            block += line
            if line != b"\n":
                continue
            if cut and events == cut.after and b"data:" in block:
                out.write(block[: len(block) // 2] if cut.torn else b"")
                return
            out.write(block)
            out.flush()
            events += b"data:" in block
            block = b""
