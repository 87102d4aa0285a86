// From a text to numbers: each token with its id and bytes, the merges one by one, and the same text by several tokenizers.

import { drawFigures } from "./figures.js";
import { mergeSteps } from "./merge_steps.js";
import { count, element, shown } from "./numbers.js";
import { chip, flowing, textOf } from "./vocabulary.js";
import { baseOf } from "./time_travel.js";

const EXAMPLE = "tokenisation, unbelievably: hii there 😀";
const MOST = 400; // tokens that are shown
const CHUNKS = 24;
const PAUSE = 250; // ms after the last key

export function tokensPanel(root, main, api) {
  const text = element("textarea", { id: "tokens-text", rows: 3, spellcheck: "false" });
  const status = element("p", { class: "small", role: "status", id: "tokens-status" });
  const facts = element("p", { id: "tokens-facts" });
  const trip = element("p", { class: "small", id: "round-trip" });
  const chips = element("ol", { class: "chips", id: "chips", "aria-label": "tokens" });
  const merges = element("section", { class: "card", id: "merges", hidden: true });
  const compare = element("button", { type: "button", id: "compare-tokenizers" }, "Compare tokenizers");
  const figures = element("div", { class: "figures", id: "tokenizers", hidden: true });
  const stepper = mergeSteps(merges);
  root.replaceChildren(
    element("section", { class: "card" }, element("label", { for: "tokens-text" }, "A text becomes numbers"), text, status, facts, chips, trip), merges,
    element("section", { class: "card" }, element("div", { class: "line" }, compare, element("span", { class: "small" }, "this model's tokenizer beside characters, a BPE of 512 (learned from a text of 2,000 characters or more) and GPT-2's: ids, vocabulary, embedding parameters, bits a byte")), figures));

  let timer = null;
  let running = null; // the request under way
  let read = null; // {model, text} of what is shown

  async function run() {
    const [model, asked] = [main.state.model, text.value];
    if (!asked || !model) return;
    running?.abort();
    const mine = (running = new AbortController());
    try {
      const found = await api.tokenize(model, { text: asked, merges: CHUNKS }, mine.signal);
      const vocabulary = await api.vocabulary(baseOf(model));
      if (running !== mine) return;
      read = { model, text: asked };
      draw(found, vocabulary, asked);
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = error.message;
    }
  }

  function draw(found, vocabulary, asked) {
    status.textContent = "";
    const size = new TextEncoder().encode(asked).length;
    const n = found.ids.length;
    facts.replaceChildren(shown([...asked].length, "text/characters", count), " characters, ", shown(size, "text/bytes", count), " bytes, ", shown(n, "text/tokens", count), " tokens of a vocabulary of ", shown(vocabulary.texts.length, "vocabulary", count));
    chips.replaceChildren(...found.ids.slice(0, MOST).map((id, i) => tokenOf(id, i, found.bytes[i], vocabulary)));
    if (n > MOST) chips.append(element("li", { class: "small" }, `and ${count(n - MOST)} more`));
    const same = found.decoded === asked;
    trip.dataset.same = String(same);
    trip.replaceChildren(same ? "decode(encode(text)) is the text, character for character." : `decode(encode(text)) is another text: this tokenizer cannot spell all of it. It reads: `, same ? "" : element("q", {}, found.decoded));
    stepper.show(found.chunks ?? []);
  }

  text.addEventListener("input", () => {
    clearTimeout(timer);
    figures.hidden = true;
    timer = setTimeout(run, PAUSE);
  });
  compare.addEventListener("click", async () => {
    figures.setAttribute("aria-busy", "true");
    try {
      const found = await api.look("tokenizers", main.state.model, { text: text.value, corpus: [text.value] }, null);
      figures.replaceChildren(drawFigures(found, "tokenizers"));
      figures.hidden = false;
      status.textContent = "";
    } catch (error) {
      status.textContent = error.message;
    }
    figures.removeAttribute("aria-busy");
  });
  main.subscribe((state, changed) => {
    if (changed.has("vocabulary") && state.vocabulary && !root.hidden) run();
  });
  return {
    go() {
      const written = main.state.tokens.map((token) => token.id);
      if (!text.value) text.value = (written.length && main.state.vocabulary ? textOf(main.state.vocabulary, written) : main.state.prompt) || EXAMPLE;
      if (read?.model !== main.state.model || read?.text !== text.value) run();
    },
  };
}

const hex = (byte) => byte.toString(16).padStart(2, "0");

function tokenOf(id, i, bytes, vocabulary) {
  const part = vocabulary.parts.has(id);
  return element("li", { class: `chip${part ? " part" : ""}${i % 2 ? " odd" : ""}`, "data-index": i, title: flowing(vocabulary, id) },
    chip(vocabulary, id), shown(id, `ids/${i}`, String), element("code", { "data-bytes": bytes.map(hex).join(" ") }, bytes.map(hex).join(" ")));
}
