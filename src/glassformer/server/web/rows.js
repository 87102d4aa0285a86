// The logits of the place that is looked at: asked for once, kept while the text before them stays as it is.

import { entropy, ranking, softmax } from "./sampling.js";

const MOST = 2 ** 22; // numbers kept

// Where the text begins that the model reads for what comes after `position`.
export function startOf(tokens, position) {
  return (tokens[position + 1] ?? tokens.at(-1))?.start ?? 0;
}

export function rowsOf(store, api, failed) {
  let asking = null; // {position, abort}
  let refused = null; // the place whose question failed: it is not asked again and again

  async function need(position) {
    const { model, tokens, rows } = store.state;
    if (asking) asking.abort.abort();
    const mine = (asking = { position, abort: new AbortController() });
    try {
      const start = startOf(tokens, position);
      const ids = tokens.slice(start, position + 1).map((token) => token.id);
      const logits = await api.logits(model, ids, mine.abort.signal);
      if (asking !== mine) return;
      const own = softmax(logits);
      rows.set(position, { logits, own, order: ranking(logits), entropy: entropy(own) });
      for (const old of rows.keys()) {
        if (rows.size * logits.length <= MOST || old === position) break;
        rows.delete(old);
      }
      asking = null;
      store.set({ rows });
    } catch (error) {
      if (asking === mine) asking = null;
      if (error.name === "AbortError") return;
      refused = position;
      failed(error, () => need(position));
    }
  }

  store.subscribe((state, changed) => {
    if (!["selected", "tokens", "rows", "vocabulary"].some((name) => changed.has(name))) return;
    if (changed.has("tokens")) asking?.abort.abort(), (asking = null);
    const position = state.selected === null ? -1 : state.selected - 1;
    if (changed.has("selected")) refused = null;
    if (position < 0 || position >= state.tokens.length || state.rows.has(position) || !state.model) return;
    if (asking?.position !== position && refused !== position) need(position);
  });
  return { forgetFailure: () => (refused = null) };
}
