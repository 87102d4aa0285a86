// Starting a run: a recipe, its settings as a form made from its schema, and beside it what the run would cost.

import { drawFigures } from "./figures.js";
import { element } from "./numbers.js";
import { optionsForm } from "./options.js";

const DEMO = "shakespeare-fast"; // what `glassformer demo` trains
const WAIT = 400; // milliseconds after the last change before a plan is asked for

// `element`, `open()`; began(name): a run has begun. Errors that are no refusal go to failed.
export function startForm(api, { began, failed }) {
  const select = element("select", { id: "recipe" });
  const what = element("p", { class: "faint" });
  const fields = element("div", {});
  const plan = element("div", { class: "figures plan", id: "plan", "aria-live": "polite" });
  const state = element("span", { class: "small", role: "status", id: "start-state" });
  const start = element("button", { class: "primary", type: "submit" }, "Start training");
  const form = element("form", { class: "card start-run", id: "start-run", novalidate: true },
    element("h2", {}, "Start a run"),
    element("div", { class: "line" }, element("label", { for: "recipe" }, "recipe"), select), what,
    element("div", { class: "form-and-plan" }, fields, plan),
    element("div", { class: "line actions" }, start, state));
  let known = null; // {recipes, trains}
  let chosen = null; // {name, form}
  let timer = 0;
  let asking = null; // the plan under way

  async function load() {
    known ??= await api.recipes();
    if (select.options.length) return;
    select.append(...known.recipes.map((one) => element("option", { value: one.name }, one.name)));
    select.value = DEMO;
    await choose();
  }

  async function choose() {
    const name = select.value;
    what.textContent = known.recipes.find((one) => one.name === name).what;
    const { form: schema } = await api.recipe(name);
    if (select.value !== name) return;
    chosen = { name, form: optionsForm({ ...schema, required: schema.first }) };
    chosen.form.fill({});
    fields.replaceChildren(chosen.form.element);
    await drawPlan();
  }

  async function drawPlan() {
    asking?.abort();
    const mine = (asking = new AbortController());
    plan.setAttribute("aria-busy", "true");
    try {
      plan.replaceChildren(drawFigures(await api.plan(chosen.name, chosen.form.read(), mine.signal), "plan"));
      state.textContent = "";
    } catch (error) {
      if (error.name === "AbortError") return;
      plan.replaceChildren();
      refused(error);
    } finally {
      if (asking === mine) plan.removeAttribute("aria-busy");
    }
  }

  const refused = (error) => (error instanceof api.Refused ? (state.textContent = error.message) : failed(error, open));

  async function begin(name, settings) {
    start.disabled = true;
    try {
      began(await api.train(name, settings));
      state.textContent = "";
    } catch (error) {
      refused(error);
    } finally {
      start.disabled = false;
    }
  }

  select.addEventListener("change", () => choose().catch(refused));
  fields.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(drawPlan, WAIT);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (chosen) begin(chosen.name, chosen.form.read());
  });

  async function open() {
    try {
      await load();
    } catch (error) {
      failed(error, open);
    }
  }

  return { element: form, open, trainDemo: () => begin(DEMO, {}) };
}

// Pause, proceed, stop and resume of one run. changed(): its state is another one now.
export function runButtons(api, { changed, failed }) {
  const root = element("div", { class: "line", id: "run-buttons", hidden: true });
  const error = element("p", { class: "small", role: "alert" });
  const button = (action, words) => {
    const made = element("button", { type: "button", "data-action": action }, words);
    made.addEventListener("click", async () => {
      made.disabled = true;
      try {
        await api.trainAction(root.dataset.run, action);
      } catch (problem) {
        error.textContent = problem.message;
        if (!(problem instanceof api.Refused)) failed(problem, changed);
      }
      changed();
    });
    return made;
  };
  let drawn = "";

  // job: {run, state, error} of the run that the page started last, or null where it may start none
  function draw(run, job) {
    const own = job?.run === run.name ? job : null;
    const actions = own?.state === "running" ? ["pause", "stop"] : own?.state === "paused" ? ["proceed", "stop"] : job && !job.state && run.state === "stopped" ? ["resume"] : [];
    const key = `${run.name} ${actions} ${own?.error}`;
    if (key === drawn) return;
    drawn = key;
    root.dataset.run = run.name;
    error.textContent = own?.error ?? "";
    root.hidden = !actions.length && !own?.error;
    const words = { pause: "Pause", proceed: "Go on", stop: "Stop and save", resume: "Resume" };
    root.replaceChildren(...actions.map((action) => button(action, words[action])), error);
  }
  return { element: root, draw };
}
