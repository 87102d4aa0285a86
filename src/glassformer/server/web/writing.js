// What can be done: open, read, write, go on, branch, stop, try again. One thing at a time; a new one ends the old one.

import { USUAL, usualOf } from "./controls.js";
import { startOf } from "./rows.js";

export function writer(store, api) {
  let abort = null; // of what is under way
  let again = null; // what "try again" does
  let usual = USUAL; // the sliders, as long as they are where a model's folder wants them
  const status = (kind, text) => store.set({ status: { kind, text } });
  const ids = () => store.state.tokens.map((token) => token.id);

  function failed(error, retry) {
    if (error instanceof api.KeyNeeded) return status("key", "The server asks for its key.");
    again = retry;
    if (error instanceof api.ServerGone) return status("gone", error.message);
    status("error", error.message);
  }

  // Run one thing to its end; what goes wrong is told, and can be tried again.
  async function run(work, retry) {
    abort?.abort();
    const mine = (abort = new AbortController());
    try {
      await work(mine.signal);
    } catch (error) {
      if (error.name === "AbortError" || abort !== mine) return;
      failed(error, retry);
    } finally {
      if (abort === mine) abort = null;
    }
  }

  async function open() {
    status("loading", "asking the server …");
    await run(async () => {
      const models = (await api.models()).filter((model) => model.writes);
      if (!models.length) return status("error", "No model here writes; serve one that does, for example smollm2-135m-instruct.");
      const known = models.some((model) => model.name === store.state.model);
      store.set({ models });
      await useModel(known ? store.state.model : models[0].name, !known);
    }, open);
  }

  async function useModel(name, anew = true) {
    const model = store.state.models.find((one) => one.name === name);
    if (anew) store.set({ tokens: [], selected: null, rows: new Map(), seed: null });
    if (anew && store.state.sampling === usual) store.set({ sampling: (usual = usualOf(store.state.models, name)) });
    if (!model.chats) store.set({ mode: "text" });
    store.set({ model: name, vocabulary: null });
    store.set({ vocabulary: await api.vocabulary(name) });
    status("idle", store.state.tokens.length ? said("") : "Ready.");
  }

  const said = (what) => {
    const written = store.state.tokens.filter((token) => !token.given).length;
    const text = `${store.state.tokens.length - written} tokens read, ${written} written`;
    return what ? `${what}: ${text}.` : `${text}.`;
  };

  // Read the prompt, and write so many tokens after it.
  function begin(maxTokens) {
    const { model, mode, prompt } = store.state;
    const given = mode === "chat" ? { messages: [{ role: "user", content: prompt }] } : { text: prompt };
    return run(async (signal) => {
      status("reading", "reading …");
      const read = await api.tokenize(model, given, signal);
      const tokens = read.ids.map((id) => ({ id, given: true, probability: null, chance: null, start: 0 }));
      store.set({ tokens, endTokens: read.end_tokens, selected: null, rows: new Map(), seed: null });
      await stream({ maxTokens, score: true }, signal);
    }, () => begin(maxTokens));
  }

  const goOn = () => run((signal) => stream({ maxTokens: store.state.maxTokens, score: false }, signal), goOn);

  // Put another token in the place of one, forget what came after it, and go on.
  function branch(index, id) {
    const { tokens, rows } = store.state;
    const row = rows.get(index - 1);
    const chosen = { id, given: false, probability: row ? row.own[id] : null, chance: null, start: startOf(tokens, index - 1) };
    const kept = new Map([...rows].filter(([position]) => position < index));
    store.set({ tokens: [...tokens.slice(0, index), chosen], selected: index, rows: kept });
    return goOn();
  }

  // A model reads so many tokens at once. When they are full it goes on from the last half of them, as the engine does;
  // `start` of a token is where the text began that it was drawn after.
  async function stream({ maxTokens, score }, signal) {
    const { model, models, sampling, seedAsked, endTokens, tokens } = store.state;
    const most = models.find((one) => one.name === model).block_size;
    let start = tokens.at(-1).start ?? 0;
    let left = maxTokens;
    let seed = seedAsked === "" ? null : Number(seedAsked);
    status(maxTokens ? "streaming" : "reading", maxTokens ? "writing …" : "reading …");
    try {
      for (;;) {
        if (!score && tokens.length - start >= most) start = tokens.length - Math.max(1, Math.floor(most / 2));
        const body = {
          model, ids: ids().slice(start), max_tokens: left, score, end_tokens: endTokens, seed,
          temperature: sampling.temperature, top_k: sampling.topK, top_p: sampling.topP, min_p: sampling.minP,
          repetition_penalty: 1, // the page shows none
        };
        let reason = null;
        for await (const event of api.generate(body, signal)) {
          if (signal.aborted) return;
          if (event.type === "start") {
            if (maxTokens && left === maxTokens) store.set({ seed: event.seed });
            seed = (event.seed + 1) % 2 ** 53; // of the next window, if there is one
          }
          if (event.type === "prompt") {
            event.probabilities.forEach((probability, i) => (tokens[i].probability = probability));
            store.set({ probabilities: store.state.probabilities + 1 });
          }
          if (event.type === "token") {
            const { id, probability, sampling_probability: chance } = event;
            tokens.push({ id, given: false, probability, chance, start });
            left -= 1;
            store.set({ grown: store.state.grown + 1 });
          }
          if (event.type === "end") reason = event.reason;
        }
        score = false;
        if (reason !== "full" || !left) return ended(reason, maxTokens);
      }
    } catch (error) {
      if (!(error instanceof api.ServerGone) || store.state.tokens !== tokens || !maxTokens) throw error;
      failed(error, goOn); // what was written stays
    }
  }

  function ended(reason, maxTokens) {
    status("done", said(!maxTokens ? "Read" : reason === "end_of_text" ? "The text has ended" : "Written"));
  }

  function stop() {
    abort?.abort();
    abort = null;
    status("stopped", said("Stopped"));
  }

  async function retry() {
    const work = again;
    again = null;
    await open();
    if (work && work !== open && store.state.status.kind === "idle") await work();
  }

  const useAnother = (name) => run(() => useModel(name), () => useAnother(name));
  return { open, begin, goOn, branch, stop, retry, failed, useModel: useAnother };
}
