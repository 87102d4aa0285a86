// The logits of the selected position: requested once, kept until the text before them changes.

import { entropy, ranking, softmax } from "./sampling.js";

const MAX_NUMBERS = 2 ** 22; // kept

// Where the text begins that the model reads to predict the token after `position`.
export function startOf(tokens, position) {
  return (tokens[position + 1] ?? tokens.at(-1))?.start ?? 0;
}

export function rowsOf(store, api, failed) {
  let pending = null; // {position, abort}
  let failedPosition = null; // not requested again and again

  async function load(position) {
    const { model, tokens, rows } = store.state;
    if (pending) pending.abort.abort();
    const mine = (pending = { position, abort: new AbortController() });
    try {
      const start = startOf(tokens, position);
      const ids = tokens.slice(start, position + 1).map((token) => token.id);
      const logits = await api.logits(model, ids, mine.abort.signal);
      if (pending !== mine) return;
      const own = softmax(logits);
      rows.set(position, { logits, own, order: ranking(logits), entropy: entropy(own) });
      forget(rows, position, logits.length);
      pending = null;
      store.set({ rows });
    } catch (error) {
      if (pending === mine) pending = null;
      if (error.name === "AbortError") return;
      failedPosition = position;
      failed(error, () => load(position));
    }
  }

  // Keeps MAX_NUMBERS: what other branches have goes first.
  function forget(rows, position, size) {
    const others = store.state.branches.map((branch) => branch.rows).filter((some) => some !== rows);
    let left = [rows, ...others].reduce((n, some) => n + some.size, 0) - Math.max(1, Math.floor(MAX_NUMBERS / size));
    for (const some of [...others, rows]) {
      for (const old of some.keys()) {
        if (left <= 0) return;
        if (some === rows && old === position) continue;
        some.delete(old);
        left -= 1;
      }
    }
  }

  store.subscribe((state, changed) => {
    if (!["selected", "tokens", "rows", "vocabulary"].some((name) => changed.has(name))) return;
    if (changed.has("tokens")) pending?.abort.abort(), (pending = null);
    const position = state.selected === null ? -1 : state.selected - 1;
    if (changed.has("selected")) failedPosition = null;
    if (position < 0 || position >= state.tokens.length || state.rows.has(position) || !state.model) return;
    if (pending?.position !== position && failedPosition !== position) load(position);
  });
  return { load, forgetFailure: () => (failedPosition = null) };
}
