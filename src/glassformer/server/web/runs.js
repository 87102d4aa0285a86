// Training runs: a list, and the figures of one as they grow.

import { writeAddress } from "./address.js";
import { drawFigures } from "./figures.js";
import { COMPARE, compareView } from "./compare_runs.js";
import { count, element } from "./numbers.js";
import { saveButtons } from "./save.js";
import { runButtons, startForm } from "./start_run.js";

const [LIVE, RESTING] = [500, 4000]; // milliseconds between two looks at a run that grows, and at one that does not
const OPEN_SECTIONS = 2; // the others are folded at first

export function runsView(root, store, api, { failed, useModel, open: reopen }) {
  const list = element("nav", { class: "view-list", "aria-label": "runs" });
  const title = element("h2", { id: "run-title" });
  const facts = element("dl", { class: "facts" });
  const state = element("p", { class: "small", role: "status", id: "run-state" });
  const checkpoints = element("div", { class: "line", id: "run-checkpoints" });
  const save = saveButtons((error) => failed(error, () => go({ view: name })));
  const buttons = runButtons(api, { changed: () => go({ view: name }), failed });
  const head = element("div", { class: "card", hidden: true }, element("div", { class: "line spread" }, title, save.element), state, buttons.element, facts, checkpoints);
  const body = element("div", { class: "run-sections" });
  const start = startForm(api, { began: (run) => ((start.element.hidden = true), go({ view: run })), failed });
  start.element.hidden = true;
  const comparison = compareView(api, { failed });
  const fresh = element("button", { type: "button", id: "new-run", hidden: true }, "New run");
  fresh.addEventListener("click", () => ((start.element.hidden = !start.element.hidden), start.element.hidden || start.open()));
  root.replaceChildren(element("div", { class: "run-list" }, fresh, list), element("div", { class: "view" }, start.element, comparison.element, head, body));

  let name = null; // of the run on the screen
  let tag = null; // of what is on the screen
  let last = null; // that is on the screen
  let timer = null;
  let job = null; // the run that the page started last: {run, state, error}; null: it may start none
  const folded = new Map(); // by the title of a section: whether it is open

  async function go({ view, options = {} }) {
    clearTimeout(timer);
    try {
      const [runs, now] = await Promise.all([api.runs(), api.trained()]);
      job = now;
      fresh.hidden = !job;
      drawList(runs);
      if (job?.state && job.run === view && !runs.some((run) => run.name === view)) return starting(view);
      comparison.element.hidden = true;
      if (!runs.length) return empty();
      if (view === COMPARE) return compare(options, runs);
      const chosen = runs.find((run) => run.name === view) ?? runs[0];
      if (chosen.name !== name) [name, tag] = [chosen.name, null];
      writeAddress({ panel: "train", view: name, options: {} }, { replace: true });
      await refresh();
    } catch (error) {
      failed(error, () => go({ view }));
    }
  }

  function compare(options, runs) {
    name = null;
    head.hidden = true;
    body.replaceChildren();
    for (const link of list.children) link.setAttribute("aria-current", link.dataset.run === COMPARE ? "page" : "false");
    return comparison.go(options, runs);
  }

  // A run that has begun and has written nothing yet.
  function starting(view) {
    head.hidden = true;
    body.replaceChildren(element("div", { class: "card" }, element("p", { role: "status" }, `${view} is being prepared …`)));
    timer = setTimeout(() => go({ view }), LIVE);
  }

  function empty() {
    head.hidden = true;
    const card = element("div", { class: "card nothing" }, element("h2", {}, job ? "No run is here yet" : "No training run is here"));
    if (job) {
      const demo = element("button", { type: "button", class: "primary", id: "train-demo" }, "Train the demo");
      demo.addEventListener("click", () => start.trainDemo());
      card.append(element("p", {}, "The demo is a small GPT on Shakespeare's plays: it writes after about a minute, and you can watch it learn and look inside."), demo, element("p", { class: "small" }, "Or choose a recipe: New run."));
    }
    else card.append(element("p", {}, "Serve a run, or a folder of runs; with --train this page starts runs too: "), element("code", {}, "glassformer serve runs/ --train"));
    if (job?.error) card.append(element("p", { role: "alert" }, job.error));
    body.replaceChildren(card);
  }

  function drawList(runs) {
    const link = (to, words, about) => element("a", { href: `#train/${encodeURIComponent(to)}`, "data-run": to }, element("b", {}, words), element("span", { class: "small" }, about));
    const links = runs.map((run) => {
      const steps = run.steps_asked ? `${count(run.steps)} of ${count(run.steps_asked)} steps` : `${count(run.steps)} steps`;
      return link(run.name, run.name, `${run.state} · ${steps}`);
    });
    list.replaceChildren(...links, ...(runs.length > 1 ? [link(COMPARE, "Compare", "curves with intervals; which is better")] : []));
  }

  // Look at the run again, and once more after a while as long as it is on the screen.
  async function refresh() {
    const mine = name;
    const asked = performance.now();
    const [found, now] = await Promise.all([api.run(name, tag), job ? api.trained() : null]);
    if (mine !== name || root.hidden) return;
    const ended = job?.state && !now.state;
    job = now;
    if (ended && !now.error && !store.state.models.some((model) => model.name === now.run)) await reopen(); // its model is served now
    if (ended) return go({ view: name });
    if (found) {
      tag = found.tag;
      draw((last = found.run));
    }
    if (last) buttons.draw(last, job);
    const took = performance.now() - asked; // reading a long run takes the server a while: most of the time it rests
    const wait = 3 * took + (head.dataset.state === "running" || job?.state ? LIVE : RESTING);
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
