// Below the text: the mean surprise of its tokens, which is the loss, and the numbers of the token under the pointer.

import { bits, count, element, percent, shown } from "./numbers.js";
import { surprise } from "./sampling.js";
import { chip } from "./vocabulary.js";

const short = (value) => (value >= 1000 ? count(Math.round(value)) : value.toFixed(value < 10 ? 3 : 2));

// The mean surprise of tokens: {bits, nats, perplexity, n}; null where none has a probability.
export function meanOf(tokens) {
  const known = tokens.filter((token) => typeof token.probability === "number");
  if (!known.length) return null;
  let sum = 0;
  for (const token of known) sum += surprise(token.probability);
  const mean = sum / known.length;
  return { total: sum, bits: mean, nats: mean * Math.LN2, perplexity: 2 ** mean, n: known.length };
}

// "mean 2.3 bits a token (loss 1.6 nats, perplexity 4.9)" of some tokens; name: of them, in `data-source`.
export function meanLine(label, name, tokens) {
  const mean = meanOf(tokens);
  if (!mean) return [];
  return [`${label}: mean `, shown(mean.bits, `mean-bits/${name}`, bits), " a token over ", shown(mean.n, `predicted/${name}`, count),
    ", loss ", shown(mean.nats, `loss/${name}`, short), " nats, perplexity e", element("sup", {}, "loss"), " = ", shown(mean.perplexity, `perplexity/${name}`, short)];
}

// prefix: of `data-source`, where there are several on a page.
export function textSummary(root, list, store, prefix = "") {
  const mean = element("p", { class: "small mean", id: prefix ? undefined : "mean" });
  const readout = element("p", { class: "small readout", id: prefix ? undefined : "readout", "aria-hidden": "true" });
  root.append(readout, mean);

  function drawMean({ tokens }) {
    const parts = [["Text", `${prefix}all`, tokens], ["prompt", `${prefix}given`, tokens.filter((token) => token.given)], ["answer", `${prefix}written`, tokens.filter((token) => !token.given)]];
    const several = parts[1][2].length > 1 && parts[2][2].length > 0;
    mean.replaceChildren(...parts.slice(0, several ? 3 : 1).map(([label, name, some]) => element("span", {}, ...meanLine(label, name, some))));
  }

  function read(index) {
    const { tokens, vocabulary } = store.state;
    const token = tokens[index];
    if (!token) return readout.replaceChildren();
    const said = [chip(vocabulary, token.id), ` token ${index}, id ${token.id}`];
    if (typeof token.probability === "number") {
      said.push(": probability ", shown(token.probability, `${prefix}p/${index}`, percent), ", ", shown(surprise(token.probability), `${prefix}bits/${index}`, bits));
      if (token.rank) said.push(", rank ", shown(token.rank, `${prefix}token-rank/${index}`, count));
    }
    readout.replaceChildren(...said);
  }

  const pointed = (event) => {
    const index = event.target.closest("[data-index]")?.dataset.index;
    if (index !== undefined) read(Number(index));
  };
  list.addEventListener("pointerover", pointed);
  list.addEventListener("focusin", pointed);
  store.subscribe((state, changed) => {
    if (["tokens", "grown", "probabilities"].some((name) => changed.has(name))) drawMean(state);
    if (changed.has("tokens") && !state.tokens.length) readout.replaceChildren();
  });
}
