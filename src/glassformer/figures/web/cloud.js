// Thousands of points in three dimensions, on a 2-D canvas: a frame writes pixels, so that all of a vocabulary turns
// at once and no WebGL is needed.

import { element, visible } from "./numbers.js";
import { readTensors } from "./safetensors.js";
import { plain, WIDTH } from "./svg.js";

export const HEIGHT = 480;
const TURN = 0.12; // radians a key
const SPIN = 0.006; // radians a frame
const LABELS = 40; // of points that were searched for
const FRAMES = 120; // whose times are remembered
const EDGE = 0.995; // of the points lie within the picture at the start

/** @param {any} figure @param {string} path @returns {Node[]} */
export function cloud(figure, path) {
  const places = decoded(figure.safetensors);
  const n = places.length / 3;
  const scale = Math.min(2, window.devicePixelRatio || 1);
  const [W, H] = [Math.round(WIDTH * scale), Math.round(HEIGHT * scale)];
  const canvas = element("canvas", { width: W, height: H, tabindex: 0, role: "img", "data-points": n, "aria-label": `${figure.title}: ${n} points; drag or use the arrow keys to turn, + and - to come nearer` });
  const out = element("output", {}, "");
  const input = element("input", { type: "search", class: "cloud-search", placeholder: "search a word", "aria-label": "search a word", autocomplete: "off", spellcheck: "false" });
  const found = element("span", { class: "small", role: "status" });
  const spin = element("button", { type: "button", "aria-pressed": "false" }, "Rotate");
  const time = element("span", { class: "small cloud-time" });
  const context = canvas.getContext("2d");
  const [x, y] = [new Float32Array(n), new Float32Array(n)]; // on the canvas
  const counts = new Uint16Array(W * H);
  const image = context.createImageData(W, H);
  const pixels = new Uint32Array(image.data.buffer);
  const reach = radius(places);
  let [yaw, pitch, zoom] = [0.5, 0.3, 1];
  let [named, turning, waiting] = [-1, false, false];
  let marked = []; // indexes of the points that were searched for
  const times = [];

  function draw() {
    const start = performance.now();
    waiting = false;
    if (turning) yaw += SPIN;
    project();
    const color = shades(getComputedStyle(canvas).getPropertyValue("--weights"));
    for (let i = 0; i < pixels.length; i++) pixels[i] = color[counts[i] < 7 ? counts[i] : 7];
    context.putImageData(image, 0, 0);
    label();
    times.push(performance.now() - start);
    if (times.length > FRAMES) times.shift();
    canvas.dataset.frameMs = median(times).toFixed(2);
    canvas.dataset.frames = String(Number(canvas.dataset.frames ?? 0) + 1);
    if (turning) (time.textContent = `${canvas.dataset.frameMs} ms a frame`), ask();
  }
  const ask = () => waiting || ((waiting = true), requestAnimationFrame(draw));

  // Every point to its pixel, and a count of the points on each.
  function project() {
    counts.fill(0);
    const size = (zoom * 0.5 * Math.min(W, H)) / reach;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    for (let i = 0, k = 0; i < n; i++, k += 3) {
      const [px, py, pz] = [places[k], places[k + 1], places[k + 2]];
      const across = W / 2 + size * (cy * px + sy * pz);
      const up = H / 2 - size * (cp * py - sp * (cy * pz - sy * px));
      x[i] = across;
      y[i] = up;
      const [c, r] = [across | 0, up | 0];
      if (c < 0 || r < 0 || c >= W - 1 || r >= H - 1 || across < 0 || up < 0) continue;
      const at = r * W + c;
      counts[at]++;
      counts[at + 1]++;
      counts[at + W]++;
      counts[at + W + 1]++;
    }
  }

  function label() {
    const style = getComputedStyle(canvas);
    context.font = `${12 * scale}px ${style.fontFamily}`;
    for (const i of new Set([...marked.slice(0, LABELS), ...(named < 0 ? [] : [named])])) {
      context.fillStyle = style.getPropertyValue("--query");
      context.beginPath();
      context.arc(x[i], y[i], 4 * scale, 0, 2 * Math.PI);
      context.fill();
      context.fillStyle = style.color;
      context.fillText(visible(figure.labels[i], 20), x[i] + 7 * scale, y[i] + 4 * scale);
    }
  }

  function name(i) {
    if (i === named) return;
    named = i;
    out.textContent = i < 0 ? "" : `${visible(figure.labels[i])}: ${figure.axes.map((axis, d) => `${axis} ${plain(places[3 * i + d])}`).join(" · ")}`;
    if (i < 0) delete out.dataset.value, delete out.dataset.source;
    else Object.assign(out.dataset, { value: [...places.subarray(3 * i, 3 * i + 3)].join(" "), source: `${path}/${i}` });
    ask();
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const [px, py] = [((event.clientX - box.left) / box.width) * W, ((event.clientY - box.top) / box.height) * H];
    let [best, at] = [(12 * scale) ** 2, -1];
    for (let i = 0; i < n; i++) {
      const d = (x[i] - px) ** 2 + (y[i] - py) ** 2;
      if (d < best) [best, at] = [d, i];
    }
    return at;
  }

  const turn = (dx, dy) => ((yaw += dx), (pitch = Math.max(-1.5, Math.min(1.5, pitch + dy))), ask());
  let held = null;
  canvas.addEventListener("pointerdown", (event) => ((held = [event.clientX, event.clientY]), canvas.setPointerCapture(event.pointerId)));
  canvas.addEventListener("pointerup", () => (held = null));
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return name(nearest(event));
    turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointerleave", () => name(-1));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, -TURN], ArrowDown: [0, TURN] }[event.key];
    const nearer = { "+": 1.25, "=": 1.25, "-": 0.8 }[event.key];
    if (by) turn(...by);
    else if (nearer) (zoom = Math.max(0.2, Math.min(40, zoom * nearer))), ask();
    else if (event.key === "n" && marked.length) name(marked[(marked.indexOf(named) + 1) % marked.length]);
    else return;
    event.preventDefault();
  });
  spin.addEventListener("click", () => {
    turning = !turning;
    spin.setAttribute("aria-pressed", String(turning));
    spin.textContent = turning ? "Pause" : "Rotate";
    ask();
  });
  input.addEventListener("input", () => {
    marked = matching(figure.labels, input.value);
    found.textContent = input.value ? `${marked.length.toLocaleString("en-GB")} found` : "";
    name(marked[0] ?? -1);
    ask();
  });
  requestAnimationFrame(draw); // when it is on the page and has colours
  const keys = "turn: drag, or arrow keys · nearer: + and - · n: the next one found";
  return [element("div", { class: "line" }, input, spin, found, time), canvas, element("p", { class: "small" }, keys), out];
}

/** @param {string} base64 */
function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return readTensors(bytes.buffer).places.data;
}

// The distance from the middle within which nearly all points lie.
function radius(places) {
  const lengths = new Float32Array(places.length / 3).map((_, i) => Math.hypot(places[3 * i], places[3 * i + 1], places[3 * i + 2]));
  lengths.sort();
  return Math.max(1e-12, lengths[Math.floor(EDGE * (lengths.length - 1))]);
}

// Words that begin with what was searched for, those that are equal first; case and a space before a word aside.
/** @param {string[]} labels @param {string} text @returns {number[]} */
export function matching(labels, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const equal = [];
  const begins = [];
  labels.forEach((label, i) => {
    const own = label.trim().toLowerCase();
    if (own === wanted) equal.push(i);
    else if (own.startsWith(wanted)) begins.push(i);
  });
  return [...equal, ...begins];
}

// The colour of 0 to 7 points on a pixel, as little-endian RGBA.
function shades(color) {
  const [red, green, blue] = /^#(..)(..)(..)/.exec(color.trim())?.slice(1).map((part) => parseInt(part, 16)) ?? [47, 102, 191];
  return Uint32Array.from({ length: 8 }, (_, count) => (((count && Math.min(255, 80 + 25 * count)) << 24) | (blue << 16) | (green << 8) | red) >>> 0);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
