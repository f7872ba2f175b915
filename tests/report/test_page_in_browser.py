"""The page in headless Chromium: no complaint on its console, and the molecule drawn with all its atoms."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from metastable.report import write_report

pytestmark = pytest.mark.browser
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--window-size=1280,1600"]  # fmt: skip


class Browser:
    """A session of chromedriver, spoken to in plain WebDriver."""

    def __init__(self, port, profile):
        self.root = f"http://127.0.0.1:{port}"
        options = {
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        for _ in range(100):
            try:
                self.call("GET", "/status")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        self.root += (
            "/session/" + self.call("POST", "/session", {"capabilities": {"alwaysMatch": options}})["sessionId"]
        )

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def cdp(self, cmd, **params):
        return self.call("POST", "/goog/cdp/execute", {"cmd": cmd, "params": params})

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, script, seconds=10):
        """The value of a script once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)) and time.monotonic() < end:
            time.sleep(0.05)
        return value

    def open(self, path):
        self.call("POST", "/url", {"url": path.resolve().as_uri()})
        self.wait("return document.readyState === 'complete'")

    def complaints(self):
        return [
            e["message"]
            for e in self.call("POST", "/se/log", {"type": "browser"})
            if e["level"] in ("WARNING", "SEVERE")
        ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    with open(tmp_path_factory.mktemp("driver") / "log", "w+") as log:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=log, stderr=log)
        try:
            port = _port(log)
            session = Browser(port, tmp_path_factory.mktemp("profile"))
            yield session
            session.call("DELETE", "")
        finally:
            driver.terminate()
            driver.wait(10)


def _port(log):
    for _ in range(200):
        log.flush()
        with open(log.name) as file:
            words = file.read()
        if "on port " in words and "started successfully on port" in words:
            return int(words.split("started successfully on port ")[1].split(".")[0])
        time.sleep(0.05)
    raise RuntimeError(f"chromedriver did not start: {words}")


@pytest.fixture
def opened(browser, run_directory, tmp_path):
    browser.open(write_report(run_directory, tmp_path / "report.html"))
    browser.wait("return document.getElementById('molecule').dataset.atoms")
    return browser
