// The four sliders of the sampling settings. Moving one sends no request: the page computes the numbers itself.

import { element } from "./numbers.js";

// min and max: what may be typed; end: the end of the slider; off: the value without an effect
const SLIDERS = [
  { name: "temperature", label: "temperature", min: 0, max: 100, end: 5, step: 0.01, off: 1 },
  { name: "topK", label: "top-k", min: 0, max: 2 ** 31 - 1, end: 100, step: 1, off: 0 },
  { name: "topP", label: "top-p", min: 0.01, max: 1, end: 1, step: 0.01, off: 1 },
  { name: "minP", label: "min-p", min: 0, max: 1, end: 0.5, step: 0.005, off: 0 },
];
const EFFECTS = {
  temperature: (t) => (t === 0 ? "always the most likely" : t === 1 ? "unchanged" : t < 1 ? "sharper" : "flatter"),
  topK: (k) => (k === 0 ? "off" : `the ${k} most likely`),
  topP: (p) => (p === 1 ? "off" : `the top ${Math.round(100 * p)} %`),
  minP: (p) => (p === 0 ? "off" : `at least ${+(100 * p).toFixed(1)} % of the best`),
};
export const DEFAULTS = { temperature: 0.8, topK: 0, topP: 0.9, minP: 0 };

// The defaults of a model: those of its folder, else ours.
export function defaultsOf(models, model) {
  const own = models.find((one) => one.name === model)?.defaults ?? {};
  const names = { temperature: "temperature", topK: "top_k", topP: "top_p", minP: "min_p" };
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, own[names[name]] ?? value]));
}
export const NEUTRAL = Object.fromEntries(SLIDERS.map((slider) => [slider.name, slider.off]));

export function controlsView(root, store) {
  const parts = SLIDERS.map((slider) => sliderView(slider, store));
  const neutral = element("button", { type: "button", class: "quiet", id: "neutral" }, "all off");
  const defaults = element("button", { type: "button", class: "quiet", id: "defaults" }, "defaults");
  neutral.addEventListener("click", () => store.set({ sampling: NEUTRAL }));
  defaults.addEventListener("click", () => store.set({ sampling: defaultsOf(store.state.models, store.state.model) }));
  root.append(...parts.map((part) => part.root), element("div", { class: "line" }, neutral, defaults));
  store.subscribe((state, changed) => {
    if (changed.has("sampling")) parts.forEach((part) => part.draw(state.sampling));
  });
}

function sliderView(slider, store) {
  const { name, label, min, max, end, step } = slider;
  const range = element("input", { type: "range", min: Math.min(min, end), max: end, step, id: name });
  const typed = element("input", {
    type: "number", min, max, step: name === "topK" ? 1 : "any", id: `${name}-number`, "aria-label": label,
  });
  const effect = element("span", { class: "faint effect" });
  const change = (value) => store.set({ sampling: { ...store.state.sampling, [name]: value } });
  range.addEventListener("input", () => change(Number(range.value)));
  typed.addEventListener("input", () => {
    const value = Number(typed.value);
    const valid = typed.value !== "" && value >= (name === "topP" ? Number.MIN_VALUE : min) && value <= max;
    if (valid && (name !== "topK" || Number.isInteger(value))) change(value);
  });
  typed.addEventListener("change", () => draw(store.state.sampling)); // an invalid value is replaced
  function draw(sampling) {
    const value = sampling[name];
    range.value = value;
    range.setAttribute("aria-valuetext", `${value}, ${EFFECTS[name](value)}`);
    range.style.setProperty("--at", `${(100 * (Math.min(value, end) - range.min)) / (end - range.min)}%`);
    if (document.activeElement !== typed || Number(typed.value) !== value) typed.value = value;
    effect.textContent = EFFECTS[name](value);
    root.classList.toggle("off", value === slider.off);
  }
  const root = element("div", { class: "slider" }, element("label", { for: name }, label), range, typed, effect);
  return { root, draw };
}
