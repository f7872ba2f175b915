"use strict";
// What ties the page together: the surface shows the structure, the structure shows its place on the surface.

addEventListener("error", (e) => {
  const trouble = document.getElementById("trouble");
  trouble.hidden = false;
  trouble.textContent = `Something on this page failed: ${e.message}`;
});

(() => {
  const { landscape, movie } = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const minus = (text) => text.replace("-", "\u2212");
  const view = movie ? new MoleculeView($("#molecule"), movie) : null;
  const areas = all(".area"), axes = landscape ? landscape.axes : [];

  const fixed = (x, axis) => axis.unit === "°" ? minus(x.toFixed(0)) + "°"
    : minus(x.toFixed(Math.max(0, 2 - Math.floor(Math.log10(axis.hi - axis.lo))))) + (axis.unit ? " " + axis.unit : "");
  const place = (point) => landscape.axes.map((a, k) => `${a.symbol} ${fixed(point[k], a)}`).join(", ");

  // ---- the molecule

  function label(frame) {
    const parts = [`Frame ${movie.index[frame]}`];
    if (movie.time[frame] !== undefined) {
      const ps = movie.time[frame];
      parts.push(ps >= 1e4 ? `${(ps / 1000).toFixed(2)} ns` : `${+ps.toFixed(2)} ps`);
    }
    if (movie.walker) parts.push(`walker ${movie.walker[frame]}`);
    if (movie.cvs && landscape) parts.push(place(movie.cvs[frame].map((x, k) => x * landscape.axes[k].factor)));
    return parts.join(" · ");
  }

  function shown(frame) {
    $("#frame").value = frame;
    $("#frame").setAttribute("aria-valuetext", label(frame));
    $("#frame-label").textContent = label(frame);
    const button = $("#play");
    button.setAttribute("aria-pressed", view.playing);
    button.setAttribute("aria-label", view.playing ? "Pause" : "Play");
    const state = landscape?.minima.find((m) => m.frame !== null && m.frame === movie.index[frame]);
    for (const e of all("tr[data-state]")) e.classList.toggle("chosen", e.dataset.state === state?.name);
    for (const e of all("button[data-state]")) e.setAttribute("aria-pressed", e.dataset.state === state?.name);
    for (const area of areas) {
      const dot = $(".here", area);
      dot.hidden = !movie.cvs || Boolean(state);
      if (movie.cvs) put(dot, movie.cvs[frame].map((x, k) => x * landscape.axes[k].factor));
    }
  }

  function showState(name) {
    const minimum = landscape.minima.find((m) => m.name === name);
    if (!view || !minimum || minimum.frame === null) return;
    view.play(false);
    view.show(movie.index.indexOf(minimum.frame));
  }

  if (view) {
    view.onframe = shown;
    $("#frame").max = movie.frames - 1;
    $("#play").addEventListener("click", () => view.play());
    $("#home").addEventListener("click", () => view.home());
    $("#frame").addEventListener("input", (e) => { view.play(false); view.show(+e.target.value); });
    const tip = $(".stage .tip");
    $("#molecule").addEventListener("pointermove", (e) => {
      const atom = e.buttons ? -1 : view.atomAt(e.clientX, e.clientY);
      tip.hidden = atom < 0;
      if (atom >= 0) {
        const box = $("#molecule").getBoundingClientRect();
        tip.textContent = movie.names[atom];
        tip.style.cssText = `left:${e.clientX - box.left}px;top:${e.clientY - box.top}px`;
      }
    });
    $("#molecule").addEventListener("pointerleave", () => { tip.hidden = true; });
    const best = landscape?.minima.find((m) => m.frame !== null);
    view.show(best ? Math.max(0, movie.index.indexOf(best.frame)) : 0);
  }

  for (const button of all("button[data-state]")) button.addEventListener("click", () => showState(button.dataset.state));

  // ---- the surface

  if (!landscape) return;
  const grids = {};
  for (const which of ["free_energy", "error"]) {
    const whole = integers(landscape[which].values);
    grids[which] = (bin) => (whole[bin] === -32768 ? NaN : whole[bin] * landscape[which].scale);
  }

  function put(mark, point) {
    const share = (k) => (100 * (point[k] - axes[k].lo)) / (axes[k].hi - axes[k].lo);
    mark.style.left = `${share(0)}%`;
    if (axes.length > 1) mark.style.bottom = `${share(1)}%`;
    mark.classList.toggle("upright", axes.length === 1);
  }

  function valueAt(bins) {
    const bin = axes.length > 1 ? bins[0] * axes[1].bins + bins[1] : bins[0];
    const f = grids.free_energy(bin), e = grids.error(bin);
    if (Number.isNaN(f)) return "never visited";
    return Number.isNaN(e) ? `${minus(f.toFixed(1))} kJ/mol` : `${minus(f.toFixed(2))} ± ${e.toFixed(2)} kJ/mol`;
  }

  const middle = (bins) => bins.map((b, k) => axes[k].lo + ((b + 0.5) * (axes[k].hi - axes[k].lo)) / axes[k].bins);

  function point(area, bins) {
    const at = middle(bins);
    for (const a of areas) {
      const cross = $(".cross", a), tip = $(".tip", a);
      cross.hidden = false;
      put(cross, at);
      tip.hidden = a !== area;
      tip.textContent = `${place(at)}\n${valueAt(bins)}`;
      tip.style.left = cross.style.left;
      tip.style.bottom = cross.style.bottom || "60%";
      tip.classList.toggle("below", axes.length > 1 && bins[1] > 0.75 * axes[1].bins);
      tip.classList.toggle("leftward", bins[0] > 0.6 * axes[0].bins);
    }
  }

  function leave() {
    for (const area of areas) for (const e of all(".cross, .tip", area)) e.hidden = true;
  }

  // The frame whose place is nearest, or where no places are known the nearest minimum.
  function showNearest(bins) {
    if (!view) return;
    const at = middle(bins);
    const apart = (other) => axes.reduce((sum, a, k) => {
      let d = other[k] * a.factor - at[k];
      if (a.period) d -= a.period * Math.round(d / a.period);
      return sum + (d / (a.hi - a.lo)) ** 2;
    }, 0);
    const nearest = (places) => places.reduce((best, p, i) => (apart(p) < apart(places[best]) ? i : best), 0);
    if (movie.cvs) {
      view.play(false);
      view.show(nearest(movie.cvs));
    } else {
      const there = landscape.minima.filter((m) => m.frame !== null);
      if (there.length) showState(there[nearest(there.map((m) => m.location))].name);
    }
  }

  for (const area of areas) {
    const ground = $(".ground", area);
    let bins = axes.map((a) => Math.floor(a.bins / 2));
    const inside = (b, k) => axes[k].period ? (b + axes[k].bins) % axes[k].bins : Math.min(axes[k].bins - 1, Math.max(0, b));
    const under = (e) => {
      const box = ground.getBoundingClientRect();
      const share = [(e.clientX - box.left) / box.width, 1 - (e.clientY - box.top) / box.height];
      return axes.map((a, k) => Math.min(a.bins - 1, Math.max(0, Math.floor(share[k] * a.bins))));
    };
    ground.addEventListener("pointermove", (e) => { bins = under(e); point(area, bins); });
    ground.addEventListener("pointerleave", leave);
    ground.addEventListener("blur", leave);
    ground.addEventListener("click", (e) => { bins = under(e); point(area, bins); showNearest(bins); });
    ground.addEventListener("keydown", (e) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[e.key];
      if (e.key === "Enter") showNearest(bins);
      else if (e.key === "Escape") leave();
      else if (steps) { bins = bins.map((b, k) => inside(b + steps[k], k)); point(area, bins); } else return;
      e.preventDefault();
    });
  }
})();
