// "You are the GPT": guess the next token of a text before the model's distribution appears; score in bits.

import { NEUTRAL } from "./controls.js";
import { distributionView } from "./distribution.js";
import { drawFigures } from "./figures.js";
import { littleText } from "./little_store.js";
import { bits, count, element, shown } from "./numbers.js";
import { surprise } from "./sampling.js";
import { tokensView } from "./tokens.js";
import { chip, tokenAtStart } from "./vocabulary.js";

const GIVEN = 20; // tokens that are shown at first, at most
const EXAMPLE = "To be, or not to be, that is the question.";
const PLAYERS = [["you", [200, 56, 44], [238, 106, 92]], ["model", [47, 102, 191], [90, 146, 234]], ["uniform", [120, 126, 136], [150, 156, 166]]];

export function guessView(root, main, api) {
  const text = element("textarea", { id: "guess-text", rows: 3, spellcheck: "false" });
  const begin = element("form", { class: "card", id: "guess-begin" }, element("label", { for: "guess-text" }, "A text that you do not know by heart: guess it token by token"), text,
    element("div", { class: "line actions" }, element("button", { class: "primary", id: "guess-start" }, "Begin"), element("span", { class: "small", role: "status", id: "guess-status" })));
  const guess = element("input", { id: "guess", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const sure = element("input", { id: "sure", type: "range", min: 1, max: 99, value: 50 });
  const sureShown = element("output", { for: "sure" }, "50 %");
  const taken = element("span", { id: "guess-token" });
  const play = element("form", { class: "card", id: "guess-play", hidden: true },
    element("div", { class: "line" }, element("label", { for: "guess" }, "Next token"), guess, element("button", { class: "primary" }, "Guess"), taken),
    element("div", { class: "line" }, element("label", { for: "sure" }, "how sure you are"), sure, sureShown),
    element("p", { class: "small" }, "Your guess is the longest token at the beginning of what you type; spaces count, \\n is a new line. If you are sure with probability c, the right token costs −log₂ c bits; a wrong guess costs −log₂ ((1 − c) / (V − 1)): the rest is shared by all other tokens."));
  const list = element("div", { class: "tokens", role: "listbox", "aria-label": "text so far", "aria-orientation": "horizontal", tabindex: -1 });
  const verdict = element("p", { id: "verdict", role: "status" });
  const score = element("div", { class: "figures", id: "score" });
  const shownCard = element("div", { class: "card", hidden: true }, list, verdict, score);
  const distribution = element("div", { class: "card", hidden: true });
  root.replaceChildren(element("section", { class: "left" }, begin, play, shownCard), element("section", { class: "right" }, distribution));

  let whole = []; // all tokens of the text, with the model's probabilities
  let scores = []; // of the tokens that were guessed: bits of [you, model, uniform]
  let little = null; // what is shown
  let place = 0; // of the token to be guessed

  async function start() {
    const { models, model } = main.state;
    const hidden = littleText(models, api, { sampling: NEUTRAL, maxTokens: 0 });
    const status = root.querySelector("#guess-status");
    await hidden.actions.useModel(model);
    hidden.store.set({ prompt: text.value });
    status.textContent = "reading …";
    await hidden.actions.begin(0);
    whole = hidden.store.state.tokens;
    if (hidden.store.state.status.kind !== "done" || whole.length < 2) return (status.textContent = whole.length === 1 ? "This is one token; give a longer text." : hidden.store.state.status.text);
    status.textContent = "";
    scores = [];
    place = Math.max(1, Math.min(GIVEN, Math.ceil(whole.length / 3)));
    if (!little) view(models);
    little.store.set({ model, vocabulary: hidden.store.state.vocabulary, rows: new Map(), selected: null, tokens: whole.slice(0, place) });
    for (const part of [play, shownCard]) part.hidden = false;
    distribution.hidden = true;
    score.replaceChildren();
    verdict.textContent = "";
    next();
  }

  function view(models) {
    little = littleText(models, api, { sampling: NEUTRAL });
    tokensView(list, little.store, { onLeave: () => {}, onSelect: () => {} });
    distributionView(distribution, little.store, { branch: () => {}, leave: () => guess.focus(), name: "guess" });
  }

  function next() {
    guess.value = "";
    taken.replaceChildren();
    play.querySelector("button").disabled = guess.disabled = place >= whole.length;
    if (place < whole.length) guess.focus();
  }

  const typed = () => tokenAtStart(little.store.state.vocabulary, guess.value.replaceAll("\\n", "\n"));

  function tell() {
    const { vocabulary, tokens } = little.store.state;
    const id = typed();
    const V = vocabulary.texts.length;
    const confidence = Number(sure.value) / 100;
    const came = whole[place];
    const right = id === came.id;
    scores.push([surprise(right ? confidence : (1 - confidence) / (V - 1)), surprise(came.probability), Math.log2(V)]);
    little.store.set({ tokens: [...tokens, came], selected: place });
    distribution.hidden = false;
    const [mine, its] = scores.at(-1);
    verdict.replaceChildren(right ? "Right: " : "It was ", chip(vocabulary, came.id), right ? "" : element("span", {}, ", you said ", chip(vocabulary, id)),
      ". You: ", shown(mine, `your-bits/${place}`, bits), ", the model: ", shown(its, `model-bits/${place}`, bits), ".");
    place += 1;
    score.replaceChildren(drawFigures(figures(scores, whole.length - place), "score"));
    next();
  }

  begin.addEventListener("submit", (event) => (event.preventDefault(), start()));
  play.addEventListener("submit", (event) => {
    event.preventDefault();
    if (typed() === null) return taken.replaceChildren(element("span", { class: "faint" }, "no token begins like this"));
    tell();
  });
  guess.addEventListener("input", () => {
    const id = typed();
    taken.replaceChildren(id === null ? "" : element("span", { class: "small" }, "your guess: ", chip(little.store.state.vocabulary, id)));
  });
  sure.addEventListener("input", () => (sureShown.textContent = `${sure.value} %`));
  return { go: () => (text.value ||= main.state.prompt || EXAMPLE) };
}

// The means so far, and their course.
function figures(scores, left) {
  const sums = PLAYERS.map((_, i) => { let sum = 0; return scores.map((one) => (sum += one[i])); });
  const column = (name, kind) => ({ name, kind, digits: 2, role: "value", color: PLAYERS[0][1], negative_color: PLAYERS[0][1] });
  const means = sums.map((sum) => sum.at(-1) / scores.length);
  const rows = PLAYERS.map(([name], i) => [{ text: String(name) }, { text: means[i].toFixed(2), value: means[i], bar: means[i] / Math.max(...means) }, { text: 2 ** means[i] < 100 ? (2 ** means[i]).toFixed(1) : count(Math.round(2 ** means[i])), value: 2 ** means[i] }]);
  const table = { kind: "table", title: `Score after ${count(scores.length)}, ${left ? `${count(left)} to go` : "the end"}`, columns: [column("", "text"), column("bits a token", "number"), column("as unsure as among", "number")], rows, footer: [], marked: [] };
  if (scores.length < 2) return [table];
  const x = scores.map((_, i) => i + 1);
  const lines = PLAYERS.map(([name, color, dark_color], i) => ({ name, x, y: sums[i].map((sum, n) => sum / (n + 1)), faint: false, dots: false, color, dark_color }));
  const high = Math.max(...lines.flatMap((line) => line.y));
  return [table, { kind: "curves", title: "Mean so far", lines, x_axis: "guesses", y_axis: "bits a token", limits: [1, x.length, 0, high], levels: [], events: [], x_labels: [], x_log: false, y_log: false, compact: true }];
}
