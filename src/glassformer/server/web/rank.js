// Rank answers: two to four answers to a prompt, a key picks the best; pairs for a reward model or DPO are written.

import { element } from "./numbers.js";

export function rankView(root, store, api, { failed }) {
  const place = element("span", { class: "small", role: "status", id: "rank-place" });
  const prompt = element("div", { class: "rank-prompt", id: "rank-prompt" });
  const answers = element("div", { class: "rank-answers", role: "group", "aria-label": "answers" });
  const [skip, undo] = [element("button", { type: "button" }, "Skip (s)"), element("button", { type: "button" }, "Take back (u)")];
  const about = element("p", { class: "small" });
  const card = element("div", { class: "card" }, element("div", { class: "line spread" }, element("h2", {}, "Which answer is better?"), place), prompt, answers, element("div", { class: "line actions" }, skip, undo), about);
  root.replaceChildren(card);
  let current = null; // of the server: {place, prompts, pairs, prompt, answers, file}
  let busy = false;

  async function go() {
    await step(async () => {
      current = await api.ranking(store.state.model);
      draw();
    });
  }

  // One request at a time; the answers of the next prompt may take a while.
  async function step(work) {
    if (busy) return;
    busy = true;
    card.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      if (error instanceof api.Refused) about.textContent = error.message;
      else failed(error, go);
    } finally {
      busy = false;
      card.removeAttribute("aria-busy");
    }
  }

  function draw() {
    skip.hidden = !current?.answers.length;
    undo.hidden = !current;
    if (!current) {
      place.textContent = "";
      prompt.replaceChildren("People's choices between two answers are what a reward model, and DPO, learn from. Give prompts to rank: ", element("code", {}, "glassformer serve MODEL --rank prompts.jsonl --pairs pairs.jsonl"));
      return answers.replaceChildren();
    }
    place.textContent = `prompt ${Math.min(current.place + 1, current.prompts)} of ${current.prompts} · ${current.pairs} pairs`;
    about.textContent = `Each choice is written at once to ${current.file}. Then: glassformer tune dpo --data ${current.file} --model MODEL`;
    if (current.prompt === null) {
      prompt.textContent = "All prompts are ranked.";
      return answers.replaceChildren();
    }
    const turns = typeof current.prompt === "string" ? [{ content: current.prompt }] : current.prompt;
    prompt.replaceChildren(...turns.map((turn) => element("p", {}, turn.role ? element("b", {}, `${turn.role}: `) : "", turn.content ?? "")));
    answers.replaceChildren(...current.answers.map((text, i) => {
      const button = element("button", { type: "button", class: "rank-answer", "data-pick": i }, element("kbd", {}, String(i + 1)), element("span", {}, text));
      button.addEventListener("click", () => pick(i));
      return button;
    }));
    /** @type {HTMLElement | null} */ (answers.querySelector("button"))?.focus();
  }

  const pick = (i) => step(async () => {
    await api.pick(current.place, i);
    current = await api.ranking(store.state.model);
    draw();
  });
  const back = () => step(async () => {
    await api.undoPick();
    current = await api.ranking(store.state.model);
    draw();
  });

  skip.addEventListener("click", () => pick(null));
  undo.addEventListener("click", back);
  root.addEventListener("keydown", (event) => {
    if (!current || event.ctrlKey || event.altKey || event.metaKey) return;
    const n = Number(event.key) - 1;
    if (n >= 0 && n < current.answers.length) pick(n);
    else if (event.key === "s" && current.answers.length) pick(null);
    else if (event.key === "u") back();
    else return;
    event.preventDefault();
  });
  return { go };
}
