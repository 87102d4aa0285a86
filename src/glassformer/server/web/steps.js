// A walk-through: figures in steps, of which one is shown. The space bar or the right arrow key shows the next one.

import { element } from "./numbers.js";

// Show step `at` (from 0) of those in `root`; moved(at) is called when another one is chosen. Without steps: nothing.
export function showSteps(root, at, moved) {
  const steps = [...root.querySelectorAll(".step")];
  if (!steps.length) return;
  const dots = steps.map((step, i) => element("button", { type: "button", class: "step-dot", "aria-label": step.querySelector(".note")?.innerText ?? `step ${i + 1}` }, String(i + 1)));
  const back = element("button", { type: "button", "data-by": -1 }, "\u2190");
  const next = element("button", { type: "button", class: "primary", "data-by": 1 }, "Next");
  const bar = element("nav", { class: "steps line", "aria-label": "steps" }, back, ...dots, next, element("span", { class: "small" }, "space bar or arrow keys"));
  back.setAttribute("aria-label", "previous step");
  steps[0].before(bar);

  function show(to) {
    at = Math.max(0, Math.min(steps.length - 1, to));
    steps.forEach((step, i) => (step.hidden = i !== at));
    dots.forEach((dot, i) => dot.setAttribute("aria-current", i === at ? "step" : "false"));
    [back.disabled, next.disabled] = [at === 0, at === steps.length - 1];
  }
  const move = (to) => (show(to), moved(at));
  dots.forEach((dot, i) => dot.addEventListener("click", () => move(i)));
  for (const button of [back, next]) button.addEventListener("click", () => move(at + Number(button.dataset.by)));
  root.stepBy = (by) => move(at + by);
  show(at);
}

// Keys move the steps of `root` unless something with keys of its own has the focus.
export function stepKeys(root) {
  addEventListener("keydown", (event) => {
    const by = { " ": 1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || !root.querySelector(".step") || !root.offsetParent || event.altKey || event.ctrlKey || event.metaKey) return;
    const own = event.key === " " ? "input, textarea, select, button, summary, a, [role=button]" : "input, textarea, select, svg, canvas, [role=listbox]";
    if (event.target instanceof Element && event.target.closest(own)) return;
    event.preventDefault();
    root.stepBy(by);
  });
}
