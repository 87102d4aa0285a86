// Training runs: a list, and the figures of one as they grow.

import { writeAddress } from "./address.js";
import { drawFigures } from "./figures.js";
import { count, element } from "./numbers.js";
import { saveButtons } from "./save.js";

const [LIVE, RESTING] = [500, 4000]; // milliseconds between two looks at a run that grows, and at one that does not
const OPEN_SECTIONS = 2; // the others are folded at first

export function runsView(root, store, api, { failed, useModel }) {
  const list = element("nav", { class: "view-list", "aria-label": "runs" });
  const title = element("h2", { id: "run-title" });
  const facts = element("dl", { class: "facts" });
  const state = element("p", { class: "small", role: "status", id: "run-state" });
  const checkpoints = element("div", { class: "line", id: "run-checkpoints" });
  const save = saveButtons((error) => failed(error, () => go({ view: name })));
  const head = element("div", { class: "card", hidden: true }, element("div", { class: "line spread" }, title, save.element), state, facts, checkpoints);
  const body = element("div", { class: "run-sections" });
  root.replaceChildren(list, element("div", { class: "view" }, head, body));

  let name = null; // of the run on the screen
  let tag = null; // of what is on the screen
  let timer = null;
  const folded = new Map(); // by the title of a section: whether it is open

  async function go({ view }) {
    clearTimeout(timer);
    try {
      const runs = await api.runs();
      drawList(runs);
      if (!runs.length) return empty();
      const chosen = runs.find((run) => run.name === view) ?? runs[0];
      if (chosen.name !== name) [name, tag] = [chosen.name, null];
      writeAddress({ panel: "train", view: name, options: {} }, { replace: true });
      await refresh();
    } catch (error) {
      failed(error, () => go({ view }));
    }
  }

  function empty() {
    head.hidden = true;
    body.replaceChildren(element("div", { class: "card" }, element("p", {}, "No training run is here. Serve one, or a folder of runs: "), element("code", {}, "glassformer serve runs/")));
  }

  function drawList(runs) {
    list.replaceChildren(...runs.map((run) => {
      const steps = run.steps_asked ? `${count(run.steps)} of ${count(run.steps_asked)} steps` : `${count(run.steps)} steps`;
      return element("a", { href: `#train/${encodeURIComponent(run.name)}`, "data-run": run.name }, element("b", {}, run.name), element("span", { class: "small" }, `${run.state} · ${steps}`));
    }));
  }

  // Look at the run again, and once more after a while as long as it is on the screen.
  async function refresh() {
    const mine = name;
    const found = await api.run(name, tag);
    if (mine !== name || root.hidden) return;
    if (found) {
      tag = found.tag;
      draw(found.run);
    }
    const wait = head.dataset.state === "running" ? LIVE : RESTING;
    timer = setTimeout(() => refresh().catch((error) => failed(error, () => go({ view: name }))), wait);
  }

  function draw(run) {
    head.hidden = false;
    save.offer(run.name, (kind) => api.runFile(run.name, kind), body);
    head.dataset.state = run.state;
    title.textContent = run.name;
    const asked = run.steps_asked ? ` of ${count(run.steps_asked)}` : "";
    state.replaceChildren(`${run.state}, step `, element("span", { class: "number", "data-value": String(run.steps), "data-source": "run/steps" }, count(run.steps)), asked);
    facts.replaceChildren(...run.headline.map((fact) => element("div", { class: "fact" }, element("dt", {}, fact.name), element("dd", {}, fact.text))));
    drawCheckpoints(run);
    for (const link of list.children) link.setAttribute("aria-current", link.dataset.run === run.name ? "page" : "false");
    body.replaceChildren(...run.sections.map((section, i) => {
      const inside = element("div", { class: "figures" }, section.note ? element("p", { class: "small" }, section.note) : "", drawFigures(section.figures, `${run.name}/${i}`));
      if (!section.title) return element("div", { class: "card" }, inside);
      const open = folded.get(section.title) ?? i < OPEN_SECTIONS;
      const made = element("details", { class: "card", open }, element("summary", {}, element("h2", {}, section.title)), inside);
      made.addEventListener("toggle", () => folded.set(section.title, made.open));
      return made;
    }));
  }

  // Each checkpoint is a model of its own, for every other panel.
  function drawCheckpoints(run) {
    const known = store.state.models.some((model) => model.name === run.name);
    const steps = known ? run.checkpoints : [];
    checkpoints.replaceChildren(...(steps.length ? [element("span", { class: "small" }, "look inside the checkpoint of step")] : []));
    for (const step of steps) {
      const button = element("button", { type: "button" }, count(step));
      button.addEventListener("click", async () => {
        await useModel(`${run.name}@${step}`);
        location.hash = "#look";
      });
      checkpoints.append(button);
    }
  }

  const stop = () => clearTimeout(timer);
  return { go, stop };
}
