// The tour: one step at a time, on the numbers of the loaded model. Its place is in the address, #tour/4.

import { addressOf, writeAddress } from "./address.js";
import { drawFigures } from "./figures.js";
import { element } from "./numbers.js";
import { baseOf } from "./time_travel.js";
import { STEPS } from "./tour_steps.js";
import { WIDGETS } from "./widgets.js";

const TEXT = "To be, or not to be";

export function tourView(root, store, api, { failed }) {
  const list = element("ol", { class: "view-list tour-list", "aria-label": "steps of the tour" });
  const title = element("h2", { id: "tour-title", tabindex: "-1" });
  const words = element("p", { class: "tour-text" });
  const task = element("p", { class: "tour-task" });
  const input = element("input", { id: "tour-text", type: "text", autocomplete: "off", spellcheck: "false", value: TEXT });
  const text = element("form", { class: "line" }, element("label", { for: "tour-text", class: "small" }, "your text"), input);
  const [before, after] = ["← Back", "Next →"].map((label) => element("button", { type: "button" }, label));
  after.className = "primary";
  const deeper = element("a", { class: "small" });
  const place = element("span", { class: "small", role: "status", id: "tour-place" });
  const state = element("p", { class: "small", role: "alert" });
  const shown = element("div", { class: "figures", id: "tour-figures", "aria-live": "off" });
  const card = element("div", { class: "card tour" }, element("div", { class: "line spread" }, title, place), words, text, state, shown, task, element("div", { class: "line actions" }, before, after, element("span", { class: "grow" }), deeper));
  root.replaceChildren(list, element("div", { class: "view" }, card));
  list.append(...STEPS.map((step, i) => element("li", {}, element("a", { href: `#tour/${i + 1}`, "data-step": i + 1 }, element("b", {}, step.title)))));

  let at = 0; // the step, from 0
  let running = null;

  const modelNow = () => store.state.models.find((one) => one.name === baseOf(store.state.model)) ?? {};
  const optionsOf = (step) => {
    const text = input.value || TEXT;
    return step.options({ text, model: modelNow(), token: knownIn(text, store.state.vocabulary) });
  };

  async function go({ view }) {
    at = Math.max(0, Math.min(STEPS.length - 1, Number(view ?? 1) - 1 || 0));
    const step = STEPS[at];
    writeAddress({ panel: "tour", view: String(at + 1), options: {} }, { replace: true });
    for (const link of list.querySelectorAll("a")) link.setAttribute("aria-current", Number(link.dataset.step) === at + 1 ? "step" : "false");
    list.querySelector("[aria-current=step]").scrollIntoView({ block: "nearest", inline: "nearest" });
    title.textContent = step.title;
    words.textContent = step.text;
    task.replaceChildren(element("b", {}, "Try: "), step.task);
    place.textContent = `${at + 1} of ${STEPS.length}`;
    [before.disabled, after.disabled] = [at === 0, at === STEPS.length - 1];
    text.hidden = deeper.hidden = !step.view;
    await draw();
  }

  async function draw() {
    running?.abort();
    const step = STEPS[at];
    state.textContent = "";
    if (step.widget) return shown.replaceChildren(WIDGETS[step.widget]());
    const mine = (running = new AbortController());
    const options = optionsOf(step);
    deeper.href = addressOf({ panel: "look", view: step.view, model: store.state.model, options });
    deeper.textContent = `open the view ${step.view} →`;
    shown.setAttribute("aria-busy", "true");
    if (!shown.childElementCount) shown.append(element("p", { class: "small" }, "computing …"));
    try {
      const figures = await api.look(step.view, store.state.model, options, null, mine.signal);
      shown.replaceChildren(drawFigures(figures, step.view));
    } catch (error) {
      if (error.name === "AbortError") return;
      shown.replaceChildren();
      if (error instanceof api.Refused) state.textContent = `Not with this model: ${error.message}`;
      else failed(error, () => go({ view: at + 1 }));
    } finally {
      if (running === mine) shown.removeAttribute("aria-busy");
    }
  }

  const to = (n) => {
    writeAddress({ panel: "tour", view: String(n + 1), options: {} });
    return go({ view: n + 1 }).then(() => title.focus());
  };
  before.addEventListener("click", () => to(at - 1));
  after.addEventListener("click", () => to(at + 1));
  text.addEventListener("submit", (event) => (event.preventDefault(), draw()));
  input.addEventListener("change", () => draw());
  card.addEventListener("keydown", (event) => {
    const by = { PageDown: 1, PageUp: -1 }[event.key] ?? 0;
    if (!by || at + by < 0 || at + by >= STEPS.length) return;
    event.preventDefault();
    to(at + by);
  });
  store.subscribe((_, changed) => {
    if (changed.has("model") && !root.hidden && store.state.model) draw();
  });
  return { go };
}

// The first word of a text that is one token of the vocabulary; else its first such letter.
function knownIn(text, vocabulary) {
  const known = new Set(vocabulary?.texts ?? []);
  return [...text.split(/\s+/), ...text].find((part) => part.trim() && (known.has(part) || known.has(` ${part}`))) ?? text[0];
}
