// The checkpoints of the model's run, as a slider: every panel looks at the one that is chosen.

import { count, element } from "./numbers.js";

export const baseOf = (name) => name?.replace(/@\d+$/, "") ?? null;

export function timeTravel(root, store, api, { useModel }) {
  const slider = element("input", { type: "range", min: 0, step: 1, id: "checkpoint", "aria-label": "checkpoint" });
  const shown = element("output", { for: "checkpoint", id: "checkpoint-shown" });
  root.append(element("label", { for: "checkpoint" }, "checkpoint"), slider, shown);
  let steps = []; // of the checkpoints; after them, the model of the run
  let run = null;
  let asked = null; // for the checkpoints of this run

  const nameAt = (i) => (i < steps.length ? `${run}@${steps[i]}` : run);
  const textAt = (i) => (i < steps.length ? `step ${count(steps[i])}` : "best");

  async function load(model) {
    const base = baseOf(model);
    if (base !== run) {
      run = base;
      asked = api.runs().then((runs) => runs.find((one) => one.name === base)?.checkpoints ?? []).catch(() => []);
    }
    steps = await asked;
    if (model !== store.state.model) return; // another one by now
    root.hidden = !steps.length;
    slider.max = String(steps.length);
    const at = model === base ? steps.length : steps.indexOf(Number(model.split("@").at(-1)));
    slider.value = String(at);
    show(at);
  }

  const show = (i) => {
    shown.textContent = textAt(i);
    slider.setAttribute("aria-valuetext", textAt(i));
    slider.style.setProperty("--at", `${(100 * i) / Math.max(1, steps.length)}%`);
  };

  slider.addEventListener("input", () => show(Number(slider.value)));
  slider.addEventListener("change", () => useModel(nameAt(Number(slider.value))));
  store.subscribe((state, changed) => {
    if (changed.has("model") && state.model) load(state.model);
  });
}
