"use strict";
// A molecule on a 2-D canvas: balls and sticks, painted from the back to the front, with shading, perspective and haze.

const ELEMENTS = {  // colour, radius of the ball in nm
  H: [[236, 238, 240], 0.027], C: [[96, 104, 112], 0.040], N: [[66, 110, 214], 0.040], O: [[222, 62, 56], 0.039],
  S: [[228, 184, 44], 0.047], P: [[232, 134, 40], 0.047], F: [[120, 200, 90], 0.037], Cl: [[60, 180, 80], 0.045],
  Br: [[150, 60, 40], 0.048], I: [[120, 40, 140], 0.050], Na: [[150, 100, 220], 0.048], Mg: [[90, 160, 60], 0.048],
  K: [[130, 80, 200], 0.050], Ca: [[90, 150, 90], 0.050], Zn: [[120, 130, 170], 0.048], Fe: [[210, 110, 60], 0.048],
};
const OTHER = [[200, 120, 180], 0.045];
const STICK = 0.0125, HAZES = 12, SPRITE = 160;

function integers(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

function mix(a, b, t) {
  return a.map((x, i) => Math.round(x + (b[i] - x) * t));
}

function css(c) {
  return `rgb(${c[0]},${c[1]},${c[2]})`;
}

class MoleculeView {
  constructor(canvas, movie) {
    this.canvas = canvas;
    this.movie = movie;
    this.context = canvas.getContext("2d");
    this.positions = integers(movie.positions);
    this.kinds = movie.elements.map((e) => ELEMENTS[e] || OTHER);
    this.reach = this.farthest() + 0.05;
    this.frame = 0;
    this.playing = false;
    this.onframe = () => {};
    this.sprites = new Map();
    this.screen = new Float64Array(movie.atoms * 4);  // x, y, depth, scale of each atom
    this.home();
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.sprites.clear(); this.redraw(); });
  }

  farthest() {
    let most = 0;
    const p = this.positions;
    for (let i = 0; i < p.length; i += 3) most = Math.max(most, p[i] ** 2 + p[i + 1] ** 2 + p[i + 2] ** 2);
    return Math.sqrt(most) * this.movie.scale;
  }

  home() {
    this.turn = [1, 0, 0, 0, 1, 0, 0, 0, 1];
    this.rotate(0.25, -0.3);
    this.zoom = 1;
    const { movie, positions: p, turn: t } = this, stride = 3 * movie.atoms * Math.max(1, Math.floor(movie.frames / 100));
    this.extent = [0, 0];  // nm from the middle that some frames need, across and up
    for (let first = 0; first < p.length; first += stride) {
      for (let i = first; i < first + 3 * movie.atoms; i += 3) {
        for (const k of [0, 1]) {
          const at = Math.abs(t[3 * k] * p[i] + t[3 * k + 1] * p[i + 1] + t[3 * k + 2] * p[i + 2]) * movie.scale;
          this.extent[k] = Math.max(this.extent[k], 1.08 * at + 0.05);
        }
      }
    }
    this.redraw();
  }

  // Turn about the vertical axis of the screen by a, about the horizontal one by b.
  rotate(a, b) {
    const [ca, sa, cb, sb] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b)];
    const m = [ca, 0, sa, sb * sa, cb, -sb * ca, -cb * sa, sb, cb * ca], t = this.turn;
    this.turn = m.map((_, k) => {
      const row = k - (k % 3), column = k % 3;
      return m[row] * t[column] + m[row + 1] * t[3 + column] + m[row + 2] * t[6 + column];
    });
    this.redraw();
  }

  scale(factor) {
    this.zoom = Math.min(8, Math.max(0.4, this.zoom * factor));
    this.redraw();
  }

  show(frame) {
    const n = this.movie.frames;
    this.frame = ((Math.round(frame) % n) + n) % n;
    this.redraw();
    this.onframe(this.frame);
  }

  play(on = !this.playing) {
    this.playing = on && this.movie.frames > 1;
    this.since = undefined;
    if (this.playing) requestAnimationFrame((t) => this.advance(t));
    this.onframe(this.frame);
  }

  advance(now) {
    if (!this.playing) return;
    if (this.since === undefined) this.since = now;
    if (now - this.since >= 90) {
      this.since = now;
      this.show(this.frame + 1);
    }
    requestAnimationFrame((t) => this.advance(t));
  }

  redraw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.draw(); });
  }

  project(width, height) {
    const { movie, positions, turn: t, screen, reach } = this;
    const unit = Math.min(width / this.extent[0], height / this.extent[1]) * 0.5 * this.zoom, eye = 5 * reach, first = this.frame * movie.atoms * 3;
    for (let i = 0; i < movie.atoms; i++) {
      const x = positions[first + 3 * i] * movie.scale, y = positions[first + 3 * i + 1] * movie.scale,
        z = positions[first + 3 * i + 2] * movie.scale;
      const depth = t[6] * x + t[7] * y + t[8] * z, scale = (unit * eye) / (eye - depth);
      screen[4 * i] = width / 2 + (t[0] * x + t[1] * y + t[2] * z) * scale;
      screen[4 * i + 1] = height / 2 - (t[3] * x + t[4] * y + t[5] * z) * scale;
      screen[4 * i + 2] = depth;
      screen[4 * i + 3] = scale;
    }
  }

  draw() {
    const { canvas, context, movie, screen } = this;
    const dots = Math.min(window.devicePixelRatio || 1, 2.5), width = Math.round(canvas.clientWidth * dots),
      height = Math.round(canvas.clientHeight * dots);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    this.paper = getComputedStyle(canvas).getPropertyValue("--stage").trim().split(/\s+/).map(Number);
    this.project(width, height);
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, width, height);
    const things = [];
    for (let i = 0; i < movie.atoms; i++) things.push([screen[4 * i + 2], i, -1]);
    for (let k = 0; k < movie.bonds.length; k += 2) {
      const i = movie.bonds[k], j = movie.bonds[k + 1], zi = screen[4 * i + 2], zj = screen[4 * j + 2];
      things.push([0.65 * zi + 0.35 * zj, i, j], [0.65 * zj + 0.35 * zi, j, i]);
    }
    things.sort((a, b) => a[0] - b[0]);
    let atoms = 0;
    for (const [, i, j] of things) {
      if (j < 0) { this.ball(i); atoms++; } else this.stick(i, j);
    }
    canvas.dataset.atoms = atoms;
    canvas.dataset.bonds = movie.bonds.length / 2;
    canvas.dataset.frame = this.frame;
  }

  // How much of the paper's colour lies over a thing at this depth: 0 in front.
  haze(depth) {
    const t = Math.min(1, Math.max(0, 0.5 - depth / (2 * this.reach) / 0.9));
    return 0.45 * t ** 1.4;
  }

  ball(i) {
    const [x, y, depth, scale] = this.screen.subarray(4 * i, 4 * i + 4), radius = this.kinds[i][1] * scale;
    const step = Math.round((this.haze(depth) / 0.45) * (HAZES - 1));
    this.context.drawImage(this.sprite(this.movie.elements[i], step), x - radius, y - radius, 2 * radius, 2 * radius);
  }

  // A shaded ball of an element, drawn once for each step of haze.
  sprite(element, step) {
    const name = element + step;
    if (this.sprites.has(name)) return this.sprites.get(name);
    const canvas = document.createElement("canvas"), c = canvas.getContext("2d"), r = SPRITE / 2;
    canvas.width = canvas.height = SPRITE;
    const color = (ELEMENTS[element] || OTHER)[0], haze = (0.45 * step) / (HAZES - 1);
    const shade = c.createRadialGradient(0.68 * r, 0.6 * r, 0.03 * r, 0.94 * r, 0.92 * r, 1.08 * r);
    const stops = [[0, mix(color, [255, 255, 255], 0.82)], [0.14, mix(color, [255, 255, 255], 0.42)], [0.42, color],
      [0.78, mix(color, [8, 12, 24], 0.34)], [1, mix(color, [8, 12, 24], 0.62)]];
    for (const [at, tone] of stops) shade.addColorStop(at, css(mix(tone, this.paper, haze)));
    c.fillStyle = shade;
    c.beginPath();
    c.arc(r, r, r - 2, 0, 7);
    c.fill();
    c.lineWidth = 3;
    c.strokeStyle = css(mix(mix(color, [8, 12, 24], 0.72), this.paper, haze));
    c.stroke();
    this.sprites.set(name, canvas);
    return canvas;
  }

  // The half of a bond that belongs to atom i, from the surface of its ball to the middle of the bond.
  stick(i, j) {
    const s = this.screen, c = this.context;
    const xi = s[4 * i], yi = s[4 * i + 1], zi = s[4 * i + 2], si = s[4 * i + 3], xj = s[4 * j], yj = s[4 * j + 1],
      zj = s[4 * j + 2], sj = s[4 * j + 3];
    const length = Math.hypot((xj - xi) / si, (yj - yi) / si, zj - zi) || 1;
    const from = Math.min(0.5, (0.9 * this.kinds[i][1]) / length);
    const far = 0.5 + (this.kinds[i][1] - this.kinds[j][1]) / (2 * length);
    const at = (t) => [xi + (xj - xi) * t, yi + (yj - yi) * t, (si + (sj - si) * t) * STICK];
    const [x1, y1, w1] = at(from), [x2, y2, w2] = at(far), d = Math.hypot(x2 - x1, y2 - y1);
    if (d < 0.3) return;
    let nx = -(y2 - y1) / d, ny = (x2 - x1) / d;
    if (nx + 1.3 * ny > 0) { nx = -nx; ny = -ny; }  // the normal points to the light, up and to the left
    const lit = 0.5 * Math.abs(nx * 0.61 + ny * 0.79), color = this.kinds[i][0], haze = this.haze(0.7 * zi + 0.3 * zj);
    const tone = (c, black, white) => css(mix(mix(mix(c, [8, 12, 24], black), [255, 255, 255], white), this.paper, haze));
    const shade = c.createLinearGradient(x1 + nx * w1, y1 + ny * w1, x1 - nx * w1, y1 - ny * w1);
    shade.addColorStop(0, tone(color, 0.4, 0));
    shade.addColorStop(0.5 - 0.5 * lit, tone(color, 0, 0.34));
    shade.addColorStop(1, tone(color, 0.58, 0));
    c.fillStyle = shade;
    c.beginPath();
    c.moveTo(x1 + nx * w1, y1 + ny * w1);
    c.lineTo(x2 + nx * w2, y2 + ny * w2);
    c.lineTo(x2 - nx * w2, y2 - ny * w2);
    c.lineTo(x1 - nx * w1, y1 - ny * w1);
    c.fill();
  }

  // The atom nearest to the eye under a point of the page, or -1.
  atomAt(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect(), dots = this.canvas.width / box.width, s = this.screen;
    const x = (clientX - box.left) * dots, y = (clientY - box.top) * dots;
    let found = -1;
    for (let i = 0; i < this.movie.atoms; i++) {
      const radius = this.kinds[i][1] * s[4 * i + 3];
      if (Math.hypot(s[4 * i] - x, s[4 * i + 1] - y) < radius && (found < 0 || s[4 * i + 2] > s[4 * found + 2])) found = i;
    }
    return found;
  }

  listen() {
    const canvas = this.canvas, held = new Map();
    canvas.addEventListener("pointerdown", (e) => { held.set(e.pointerId, e); canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", (e) => {
      const before = held.get(e.pointerId);
      if (!before) return;
      const size = Math.min(canvas.clientWidth, canvas.clientHeight);
      if (held.size === 2) {
        const other = [...held.values()].find((p) => p.pointerId !== e.pointerId);
        const apart = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY) || 1;
        this.scale(apart(e) / apart(before));
      } else this.rotate((4 * (e.clientX - before.clientX)) / size, (4 * (e.clientY - before.clientY)) / size);
      held.set(e.pointerId, e);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => held.delete(e.pointerId));
    canvas.addEventListener("wheel", (e) => {
      if (document.activeElement !== canvas && !e.ctrlKey) return;  // the page scrolls until the molecule is taken up
      e.preventDefault();
      this.scale(Math.exp(-0.0015 * e.deltaY));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.home());
    const keys = {
      ArrowLeft: () => this.rotate(-0.12, 0), ArrowRight: () => this.rotate(0.12, 0), ArrowUp: () => this.rotate(0, -0.12),
      ArrowDown: () => this.rotate(0, 0.12), "+": () => this.scale(1.15), "=": () => this.scale(1.15),
      "-": () => this.scale(1 / 1.15), " ": () => this.play(), ",": () => this.show(this.frame - 1),
      ".": () => this.show(this.frame + 1), Home: () => this.home(),
    };
    canvas.addEventListener("keydown", (e) => {
      if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      keys[e.key]();
    });
  }
}
