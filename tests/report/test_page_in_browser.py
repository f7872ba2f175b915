"""The page in headless Chromium: no complaint on its console, and the molecule drawn with all its atoms."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import mdtraj
import pytest

from metastable.report import write_report

pytestmark = pytest.mark.browser
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--window-size=1280,1600"]  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A session of chromedriver, spoken to in plain WebDriver."""

    def __init__(self, port, profile):
        self.root = f"http://127.0.0.1:{port}"
        options = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]},
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
        """The value of a script once it is true, or what it is when the time is over."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)) and time.monotonic() < end:
            time.sleep(0.05)
        return value

    def open(self, path):
        self.call("POST", "/url", {"url": path.resolve().as_uri()})
        self.wait("return document.readyState === 'complete'")

    def element(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})

    def click(self, selector):
        (identifier,) = self.element(selector).values()
        self.call("POST", f"/element/{identifier}/click", {})

    def complaints(self):
        return [
            e["message"]
            for e in self.call("POST", "/se/log", {"type": "browser"})
            if e["level"] in ("WARNING", "SEVERE")
        ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and shutil.which("chromedriver")):
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


PAINTED = """
const c = document.getElementById('molecule'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
const tones = new Set();
let painted = 0;
for (let i = 0; i < d.length; i += 4) {
    if (d[i + 3] > 200) { painted++; tones.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); }
}
"""
PICTURE = "return document.getElementById('molecule').toDataURL();"
LABEL = "return document.getElementById('frame-label').textContent;"


def changed(browser, before):
    """Whether the picture becomes another one: the page paints at its next frame."""
    return browser.wait(
        f"return document.getElementById('molecule').toDataURL() !== {json.dumps(before)}", seconds=3
    )  # fmt: skip


def press(browser, key):
    browser.run(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        f"{{key: {json.dumps(key)}, bubbles: true, cancelable: true}}))"
    )


def test_the_console_is_silent_and_every_atom_is_drawn(opened):
    facts = opened.run("return {...document.getElementById('molecule').dataset}")
    assert (facts["atoms"], facts["bonds"]) == ("22", "21")
    share, tones = opened.run(PAINTED + "return [painted / (c.width * c.height), tones.size]")
    assert 0.02 < share < 0.6  # a molecule, neither an empty nor a full canvas
    assert tones > 500  # shaded
    assert opened.complaints() == []
    assert opened.run("return document.getElementById('trouble').hidden")


def test_atoms_have_their_names_and_their_colours(opened, run_directory):
    topology = mdtraj.load_topology(str(run_directory / "topology.pdb"))
    names = {f"{a.residue.name} {a.residue.resSeq} {a.name}" for a in topology.atoms}
    seen = opened.run("""
        const c = document.getElementById('molecule'), b = c.getBoundingClientRect(), found = new Set();
        const tip = document.querySelector('.stage .tip');
        for (let x = b.left; x < b.right; x += 3) for (let y = b.top; y < b.bottom; y += 3) {
            c.dispatchEvent(new PointerEvent('pointermove', {clientX: x, clientY: y}));
            if (!tip.hidden) found.add(tip.textContent);
        }
        return [...found];""")
    assert set(seen) <= names and len(seen) >= 18  # some may hide behind others
    red, blue, white = opened.run(
        PAINTED
        + """
        const share = (test) => [...tones].filter((t) => test(t >> 16, (t >> 8) & 255, t & 255)).length / tones.size;
        return [share((r, g, b) => r > 1.8 * g && r > 1.8 * b), share((r, g, b) => b > 1.5 * r && b > 1.3 * g),
                share((r, g, b) => Math.min(r, g, b) > 220)];"""
    )
    assert red > 0.03 and blue > 0.03 and white > 0.01  # oxygen, nitrogen, hydrogen


def test_it_turns_zooms_and_comes_back(opened):
    opened.run("document.getElementById('molecule').focus()")
    first = opened.run(PICTURE)
    press(opened, "ArrowLeft")
    assert changed(opened, first)
    turned = opened.run(PICTURE)
    press(opened, "+")
    assert changed(opened, turned)
    press(opened, "Home")
    assert opened.wait(f"return document.getElementById('molecule').toDataURL() === {json.dumps(first)}", seconds=3)
    assert opened.complaints() == []


def test_dragging_turns_it(opened):
    before = opened.run(PICTURE)
    actions = [
        {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": opened.element("#molecule")},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerMove", "duration": 100, "x": 60, "y": 20, "origin": "pointer"},
        {"type": "pointerUp", "button": 0},
    ]
    opened.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})
    assert changed(opened, before)


def test_it_plays_and_pauses(opened):
    opened.click("#play")
    assert opened.wait("return +document.getElementById('molecule').dataset.frame > 2")
    assert opened.run("return document.getElementById('play').ariaLabel") == "Pause"
    opened.click("#play")
    frame = opened.run(LABEL)
    time.sleep(0.3)
    assert opened.run(LABEL) == frame
    assert opened.complaints() == []


@pytest.mark.parametrize(
    ("selector", "label"),
    [
        ('button.badge[data-state="C"]', "Frame 40 · 400 ps · walker 4 · φ 60°, ψ −55°"),
        ('button.state[data-state="B"]', "Frame 20 · 200 ps · walker 2 · φ −150°, ψ 155°"),
    ],
)
def test_a_minimum_shows_its_structure(opened, selector, label):
    before = opened.run(PICTURE)
    opened.click(selector)
    assert opened.run(LABEL) == label
    assert changed(opened, before)
    state = selector[-3]
    assert opened.run("return [...document.querySelectorAll('tr.chosen')].map((r) => r.dataset.state)") == [state]


def test_the_surface_tells_its_value_and_leads_to_the_structure(opened, run_directory):
    landscape = json.loads((run_directory / "results.json").read_text())["landscape"]
    tip = "return document.querySelector('.area .tip').textContent.split('\\n')"
    opened.run("document.querySelector('.ground').focus()")
    press(opened, "ArrowRight")
    place, value = opened.run(tip)
    assert place == "φ 9°, ψ 3°"  # one bin of 6 degrees to the right of the middle
    free_energy, error = (landscape[k][31][30] for k in ("free_energy", "error"))
    assert value == f"{free_energy:.2f} ± {error:.2f} kJ/mol"

    def at(kind, i, j):
        opened.run(f"""const g = document.querySelector('.ground'), b = g.getBoundingClientRect();
            g.dispatchEvent(new PointerEvent('{kind}', {{clientX: b.left + b.width * {(i + 0.5) / 60},
            clientY: b.bottom - b.height * {(j + 0.5) / 60}, bubbles: true}}))""")

    row = next(i for i, values in enumerate(landscape["free_energy"]) if None in values)
    at("pointermove", row, landscape["free_energy"][row].index(None))
    assert opened.run(tip)[1] == "never visited"
    at("click", 40, 20)
    place, value = opened.run(tip)
    assert place == "φ 63°, ψ −57°"
    assert value.startswith(f"{landscape['free_energy'][40][20]:.2f} ± ")
    assert 40 <= int(opened.run(LABEL).split()[1]) < 60  # the frames of this well
    assert opened.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_runs_over_the_edge(opened, scheme, width):
    opened.cdp("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    opened.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        assert opened.run("return document.documentElement.scrollWidth") <= width
        ink = opened.run("return getComputedStyle(document.body).color")
        assert (sum(map(int, ink[4:-1].split(","))) > 384) == (scheme == "dark")
    finally:
        opened.cdp("Emulation.clearDeviceMetricsOverride")
        opened.cdp("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("missing", ["trajectory.xtc", "results.json"])
def test_a_page_with_a_part_missing_does_not_complain(browser, run_directory, tmp_path, missing):
    copy = tmp_path / "run"
    shutil.copytree(run_directory, copy)
    (copy / missing).unlink()
    browser.open(write_report(copy))
    assert browser.complaints() == []
    assert browser.run("return document.getElementById('trouble').hidden")


@pytest.mark.parametrize(
    ("run", "atoms", "bonds", "heading"),
    [("solvated_directory", 22, 21, "The molecule"), ("liquid_directory", 650, 432, "The liquid in its box")],
)
def test_what_is_in_a_box_is_drawn_and_moves(browser, request, tmp_path, run, atoms, bonds, heading):
    browser.open(write_report(request.getfixturevalue(run), tmp_path / "report.html"))
    assert browser.wait("return document.getElementById('molecule').dataset.atoms") == str(atoms)
    assert browser.run("return document.getElementById('molecule').dataset.bonds") == str(bonds)
    assert browser.run("return document.querySelector('.molecule h3').textContent") == heading
    share, edge = browser.run(
        PAINTED
        + """
        let edge = 0;
        for (let x = 0; x < c.width; x++) edge += (d[4 * x + 3] > 0) + (d[4 * (c.width * (c.height - 1) + x) + 3] > 0);
        return [painted / (c.width * c.height), edge];"""
    )
    assert 0.02 < share < 0.6 and edge == 0  # all of it is on the stage
    before = browser.run(PICTURE)
    browser.run("document.getElementById('molecule').focus()")
    press(browser, ".")
    assert changed(browser, before)
    assert browser.complaints() == []


def test_shade_and_lines_of_the_equilibration_lie_in_their_plot(browser, solvated_directory, tmp_path):
    browser.open(write_report(solvated_directory, tmp_path / "report.html"))
    boxes = browser.run("""
        const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.top, r.bottom]; };
        return [...document.querySelectorAll('#equilibration svg')].map((svg) =>
            [box(svg), [...svg.querySelectorAll('text, .line, .band, .shade')].map(box)]);""")
    assert len(boxes) == 2
    for (left, right, top, bottom), parts in boxes:
        assert len(parts) > 15
        assert all(a >= left - 1 and b <= right + 1 and c >= top - 1 and d <= bottom + 1 for a, b, c, d in parts)
    paint = browser.run("return getComputedStyle(document.querySelector('#equilibration .shade')).fill")
    assert paint not in ("none", "rgb(0, 0, 0)") and browser.complaints() == []
