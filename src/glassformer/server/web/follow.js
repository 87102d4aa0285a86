// While the model writes, the distribution of each new token, as fast as the server sends them: "the ability to see the
// underlying distribution for each new word that it chooses".

// load(position): gets the logits of a position; it is shown when they are there, and tokens that came meanwhile are skipped.
export function follow(input, store, load) {
  let writing = false;
  let loading = false;

  async function next(tokens) {
    const last = tokens.length - 1;
    loading = true;
    await load(last - 1);
    loading = false;
    if (input.checked && writing && store.state.tokens === tokens) store.set({ selected: last });
  }

  store.subscribe(({ status, tokens, selected }, changed) => {
    if (!changed.has("grown") && !changed.has("status")) return;
    const ended = writing && status.kind !== "streaming";
    writing = status.kind === "streaming";
    if (!input.checked || tokens.length < 2) return;
    if (ended && selected !== tokens.length - 1) store.set({ selected: tokens.length - 1 });
    if (writing && !loading && !tokens.at(-1).given) next(tokens);
  });
}
