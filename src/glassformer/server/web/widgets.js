// Small machines of the tour: a line fitted to points, arrows with their dot product, softmax of one's own logits, GPT-3.

import { count, element, percent, shown } from "./numbers.js";
import { entropy, softmax } from "./sampling.js";
import { cosine, dot, GPT3, leastSquares, meanSquare, weightsOf } from "./sums.js";
import { drawing, svg, tenth } from "./svg.js";

const POINTS = [[1, 1.6], [2, 2.9], [3, 2.7], [4, 4.4], [5, 4.1], [6, 5.8]];
const SIZE = 320;
const number = (source, digits = 3) => (value) => shown(value, source, (v) => v.toFixed(digits));

// A slider with its number; change(value) at once.
function slider(name, words, min, max, step, value, change) {
  const input = element("input", { type: "range", id: `widget-${name}`, min, max, step, value });
  const out = element("output", { for: input.id }, String(value));
  const show = () => {
    out.textContent = input.value;
    input.style.setProperty("--at", `${(100 * (Number(input.value) - min)) / (max - min)}%`);
  };
  input.addEventListener("input", () => (show(), change(Number(input.value))));
  show();
  const root = element("div", { class: "widget-slider" }, element("label", { for: input.id }, words), input, out);
  return { root, set: (v) => ((input.value = String(v)), show(), change(Number(input.value))) };
}

function line() {
  const state = { slope: 0, start: 3 };
  const picture = drawing("points and a line", SIZE, SIZE);
  const loss = element("p", {});
  const [x, y] = [(v) => 20 + 42 * v, (v) => SIZE - 20 - 42 * v];
  const draw = () => {
    const far = POINTS.map(([px, py]) => svg("path", { class: "cursor", d: `M${tenth(x(px))} ${tenth(y(py))}V${tenth(y(state.slope * px + state.start))}` }));
    const dots = POINTS.map(([px, py]) => svg("circle", { class: "data-dot", cx: tenth(x(px)), cy: tenth(y(py)), r: 5 }));
    const made = svg("path", { class: "weights-line", d: `M${x(0)} ${tenth(y(state.start))}L${x(7)} ${tenth(y(7 * state.slope + state.start))}` });
    picture.replaceChildren(svg("rect", { class: "frame", x: 20, y: 20, width: SIZE - 40, height: SIZE - 40 }), ...far, made, ...dots);
    loss.replaceChildren("loss, the mean of squared distances: ", number("widget/loss")(meanSquare(POINTS, state)));
  };
  const slope = slider("slope", "slope", -1, 2, 0.01, state.slope, (v) => ((state.slope = v), draw()));
  const start = slider("start", "start", -1, 6, 0.01, state.start, (v) => ((state.start = v), draw()));
  const fit = element("button", { type: "button" }, "Fit");
  fit.addEventListener("click", () => {
    const best = leastSquares(POINTS);
    slope.set(best.slope.toFixed(2));
    start.set(best.start.toFixed(2));
    Object.assign(state, best); // exactly, and not on the slider's steps
    draw();
  });
  draw();
  return element("div", { class: "widget" }, element("div", { class: "figure" }, picture), element("div", {}, slope.root, start.root, fit, loss));
}

function arrows() {
  const state = { a: [35, 1], b: [100, 0.8] }; // degrees and length
  const picture = drawing("two arrows", SIZE, SIZE);
  const out = element("p", {});
  const vector = (/** @type {number[]} */ [degrees, length]) => [length * Math.cos((degrees * Math.PI) / 180), length * Math.sin((degrees * Math.PI) / 180)];
  const draw = () => {
    const made = Object.entries(state).map(([name, arrow]) => {
      const [vx, vy] = vector(arrow).map((v) => v * 130);
      return svg("path", { class: `arrow ${name}`, d: `M${SIZE / 2} ${SIZE / 2}l${tenth(vx)} ${tenth(-vy)}`, "marker-end": `url(#tip-${name})` });
    });
    const tips = ["a", "b"].map((name) => svg("marker", { id: `tip-${name}`, class: `tip ${name}`, viewBox: "0 0 10 10", refX: 8, refY: 5, markerWidth: 6, markerHeight: 6, orient: "auto" }, svg("path", { d: "M0 0L10 5L0 10z" })));
    picture.replaceChildren(svg("defs", {}, ...tips), svg("rect", { class: "frame", x: 8, y: 8, width: SIZE - 16, height: SIZE - 16 }), ...made);
    const [a, b] = [vector(state.a), vector(state.b)];
    out.replaceChildren("dot product ", number("widget/dot")(dot(a, b)), " · cosine ", number("widget/cosine")(cosine(a, b)));
  };
  const turns = Object.keys(state).map((name) => slider(`turn-${name}`, `${name}: angle, degrees`, 0, 360, 1, state[name][0], (v) => ((state[name][0] = v), draw())));
  const lengths = Object.keys(state).map((name) => slider(`length-${name}`, `${name}: length`, 0.1, 1, 0.01, state[name][1], (v) => ((state[name][1] = v), draw())));
  draw();
  return element("div", { class: "widget" }, element("div", { class: "figure" }, picture), element("div", {}, ...[...turns, ...lengths].map((one) => one.root), out));
}

function softmaxOfOnesOwn() {
  const state = { logits: [2, 1, 0, -1], temperature: 1 };
  const bars = element("div", { class: "softmax-bars" });
  const draw = () => {
    const shares = softmax(state.logits.map((v) => v / state.temperature));
    bars.replaceChildren(...[...shares].map((share, i) => {
      const bar = element("i", {});
      bar.style.width = `${100 * share}%`;
      return element("div", { class: "line" }, element("span", { class: "bar-track" }, bar), shown(share, `widget/softmax/${i}`, percent));
    }), element("p", { class: "small" }, "entropy ", number("widget/entropy", 2)(entropy(shares)), " bits"));
  };
  const logits = state.logits.map((v, i) => slider(`logit-${i}`, `logit ${i + 1}`, -5, 5, 0.1, v, (now) => ((state.logits[i] = now), draw())));
  const heat = slider("heat", "temperature", 0.1, 5, 0.1, 1, (now) => ((state.temperature = now), draw()));
  draw();
  return element("div", { class: "widget" }, element("div", {}, ...logits.map((one) => one.root), heat.root), bars);
}

function gpt3() {
  const state = { ...GPT3 };
  const body = element("tbody", {});
  const draw = () => {
    const rows = weightsOf({ ...state, heads: state.width / state.headWidth, hidden: 4 * state.width });
    const total = rows.reduce((sum, [, , n]) => sum + n, 0);
    const row = (name, how, n, source) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, how), element("td", { class: "n" }, shown(n, source, count)), element("td", { class: "n" }, percent(n / total)));
    body.replaceChildren(...rows.map(([name, how, n]) => row(name, how, n, `widget/gpt3/${name}`)), row("together", "", total, "widget/gpt3/together"));
  };
  const layers = slider("layers", "layers", 1, 192, 1, state.layers, (v) => ((state.layers = v), draw()));
  const width = slider("width", "width", 128, 24576, 128, state.width, (v) => ((state.width = v), draw()));
  draw();
  const table = element("table", { class: "figure-table" }, body);
  return element("div", { class: "widget wide" }, element("div", {}, layers.root, width.root), element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "weights of GPT-3" }, table));
}

export const WIDGETS = { line, arrows, softmax: softmaxOfOnesOwn, gpt3 };
