// Labelled places in two or three dimensions, on a canvas. Three can be turned, by dragging or with the arrow keys.

import { cloud } from "./cloud.js";
import { element, visible } from "./numbers.js";
import { plain, WIDTH } from "./svg.js";

const HEIGHT = 420;
const [MARGIN, LABELS] = [40, 100]; // user units around the places, and more on the right for their labels
const MOST_LABELS = 300;
const TURN = 0.12; // radians a key

export function points(figure, path) {
  if (figure.safetensors) return cloud(figure, path);
  const { places, labels, axes } = figure;
  if (!places.length) return [element("p", { class: "faint" }, "no points to draw")];
  const depth = places[0].length > 2;
  const middle = places[0].map((_, d) => mean(places.map((p) => p[d])));
  const reach = Math.max(1e-12, ...places.map((p) => Math.hypot(...p.map((v, d) => v - middle[d]))));
  const scale = window.devicePixelRatio || 1;
  const canvas = element("canvas", {
    width: WIDTH * scale, height: HEIGHT * scale, tabindex: 0, role: "img",
    "aria-label": `${figure.title}: ${labels.length} points${depth ? "; drag or use the arrow keys to turn" : ""}`,
  });
  const out = element("output", {}, "");
  let [yaw, pitch] = depth ? [0.5, 0.3] : [0, 0];
  let seen = []; // [x, y, nearness 0 to 1, index], the farthest first
  let named = -1; // the point under the pointer

  function project() {
    const size = Math.min(WIDTH - 2 * MARGIN - LABELS, HEIGHT - 2 * MARGIN) / 2 / reach;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const wide = depth ? 1 : Math.min(2, (WIDTH - 2 * MARGIN - LABELS) / (HEIGHT - 2 * MARGIN));
    seen = places.map((place, i) => {
      const [x, y, z] = [place[0] - middle[0], place[1] - middle[1], depth ? place[2] - middle[2] : 0];
      const [x1, z1] = [cy * x + sy * z, cy * z - sy * x];
      const [y1, z2] = [cp * y - sp * z1, cp * z1 + sp * y];
      return [(WIDTH - LABELS) / 2 + size * wide * x1, HEIGHT / 2 - size * y1, (z2 / reach + 1) / 2, i];
    }).sort((a, b) => a[2] - b[2]);
  }

  function draw() {
    project();
    const style = getComputedStyle(canvas);
    const [ink, dot] = [style.color, style.getPropertyValue("--weights")];
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, WIDTH, HEIGHT);
    context.font = `12px ${style.fontFamily}`;
    for (const [x, y, near, i] of seen) {
      context.globalAlpha = i === named ? 1 : depth ? 0.35 + 0.65 * near : 0.9;
      context.fillStyle = dot;
      context.beginPath();
      context.arc(x, y, i === named ? 5.5 : 3.5, 0, 2 * Math.PI);
      context.fill();
      if (labels.length > MOST_LABELS && i !== named) continue;
      context.fillStyle = ink;
      context.fillText(visible(labels[i], 20), x + 7, y + 4);
    }
    context.globalAlpha = 1;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) / box.width) * WIDTH, ((event.clientY - box.top) / box.height) * HEIGHT];
    const near = seen.map(([px, py, , i]) => [Math.hypot(px - x, py - y), i]).sort((a, b) => a[0] - b[0])[0];
    name(near && near[0] < 14 ? near[1] : -1);
  }

  function name(i) {
    if (i === named) return;
    named = i;
    out.textContent = i < 0 ? "" : `${visible(labels[i])}: ${places[i].map((v, d) => `${axes[d] ?? `axis ${d + 1}`} ${plain(v)}`).join(" · ")}`;
    if (i < 0) delete out.dataset.source, delete out.dataset.value;
    else Object.assign(out.dataset, { value: places[i].join(" "), source: `${path}/${i}` });
    draw();
  }

  const turn = (dx, dy) => ((yaw += dx), (pitch = Math.max(-1.5, Math.min(1.5, pitch + dy))), draw());
  let held = null;
  canvas.addEventListener("pointerdown", (event) => depth && ((held = [event.clientX, event.clientY]), canvas.setPointerCapture(event.pointerId)));
  canvas.addEventListener("pointerup", () => (held = null));
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return point(event);
    turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointerleave", () => name(-1));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, -TURN], ArrowDown: [0, TURN] }[event.key];
    if (by && depth) turn(...by);
    else if (event.key === "n" || event.key === "p") name((named + (event.key === "n" ? 1 : labels.length - 1) + labels.length) % labels.length);
    else return;
    event.preventDefault();
  });
  requestAnimationFrame(draw); // when it is on the page and has colours
  const sides = depth ? "turn: drag, or arrow keys" : axes.map((axis, d) => `${["across", "up"][d]}: ${axis}`).join(" · ");
  return [canvas, element("p", { class: "small" }, `${sides} · n, p: next, previous point`), out];
}

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
