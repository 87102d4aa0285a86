// The four sliders that say how a token is drawn. Moving one asks nobody: what is on the screen is computed anew.

import { element } from "./numbers.js";

// least and most: what may be typed; end: where the slider ends; off: where it changes nothing
const KNOBS = [
  { name: "temperature", label: "temperature", least: 0, most: 100, end: 2, step: 0.01, off: 1 },
  { name: "topK", label: "top-k", least: 0, most: 2 ** 31 - 1, end: 100, step: 1, off: 0 },
  { name: "topP", label: "top-p", least: 0.01, most: 1, end: 1, step: 0.01, off: 1 },
  { name: "minP", label: "min-p", least: 0, most: 1, end: 0.5, step: 0.005, off: 0 },
];
const SAID = {
  temperature: (t) => (t === 0 ? "always the likeliest" : t === 1 ? "as the model says" : t < 1 ? "sharper" : "flatter"),
  topK: (k) => (k === 0 ? "off" : `the ${k} likeliest`),
  topP: (p) => (p === 1 ? "off" : `the fewest that make ${Math.round(100 * p)} %`),
  minP: (p) => (p === 0 ? "off" : `at least ${+(100 * p).toFixed(1)} % of the best`),
};
export const USUAL = { temperature: 0.8, topK: 0, topP: 0.9, minP: 0 };

// The usual values, of this model: those that its folder asks for.
export function usualOf(models, model) {
  const asked = models.find((one) => one.name === model)?.defaults ?? {};
  const names = { temperature: "temperature", topK: "top_k", topP: "top_p", minP: "min_p" };
  return Object.fromEntries(Object.entries(USUAL).map(([name, value]) => [name, asked[names[name]] ?? value]));
}
export const NEUTRAL = Object.fromEntries(KNOBS.map((knob) => [knob.name, knob.off]));

export function controlsView(root, store) {
  const parts = KNOBS.map((knob) => knobView(knob, store));
  const neutral = element("button", { type: "button", class: "quiet", id: "neutral" }, "all off");
  const usual = element("button", { type: "button", class: "quiet", id: "usual" }, "back to the usual");
  neutral.addEventListener("click", () => store.set({ sampling: NEUTRAL }));
  usual.addEventListener("click", () => store.set({ sampling: usualOf(store.state.models, store.state.model) }));
  root.append(...parts.map((part) => part.root), element("div", { class: "line" }, neutral, usual));
  store.subscribe((state, changed) => {
    if (changed.has("sampling")) parts.forEach((part) => part.draw(state.sampling));
  });
}

function knobView(knob, store) {
  const { name, label, least, most, end, step } = knob;
  const range = element("input", { type: "range", min: Math.min(least, end), max: end, step, id: name });
  const typed = element("input", {
    type: "number", min: least, max: most, step: name === "topK" ? 1 : "any", id: `${name}-number`, "aria-label": label,
  });
  const said = element("span", { class: "faint said" });
  const change = (value) => store.set({ sampling: { ...store.state.sampling, [name]: value } });
  range.addEventListener("input", () => change(Number(range.value)));
  typed.addEventListener("input", () => {
    const value = Number(typed.value);
    const fits = typed.value !== "" && value >= (name === "topP" ? Number.MIN_VALUE : least) && value <= most;
    if (fits && (name !== "topK" || Number.isInteger(value))) change(value);
  });
  typed.addEventListener("change", () => draw(store.state.sampling)); // what does not fit is put back
  function draw(sampling) {
    const value = sampling[name];
    range.value = value;
    range.setAttribute("aria-valuetext", `${value}, ${SAID[name](value)}`);
    range.style.setProperty("--at", `${(100 * (Math.min(value, end) - range.min)) / (end - range.min)}%`);
    if (document.activeElement !== typed || Number(typed.value) !== value) typed.value = value;
    said.textContent = SAID[name](value);
    root.classList.toggle("off", value === knob.off);
  }
  const root = element("div", { class: "knob" }, element("label", { for: name }, label), range, typed, said);
  return { root, draw };
}
