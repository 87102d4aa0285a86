// The actions: open, read, write, continue, branch, stop, retry. One at a time; a new one stops the old one.

import { DEFAULTS, defaultsOf } from "./controls.js";
import { forkAt, openBranch, plant, replaceTokens, seedUsed, sharedLength } from "./branches.js";
import { asked, withSystem } from "./turns.js";
import { startOf } from "./rows.js";
import { baseOf } from "./time_travel.js";

const NOTHING = "No model is loaded yet: train one here (Training), or start the server with one.";
const LOOKS_ONLY = "This model continues no text: look inside.";

export function createActions(store, api) {
  let abort = null; // of the running action
  let again = null; // the action of "try again"
  /** @type {any} */
  let defaults = DEFAULTS; // of the model, to see whether a slider was moved
  const status = (kind, text) => store.set({ status: { kind, text } });
  const ids = () => store.state.tokens.map((token) => token.id);

  function failed(error, retry) {
    if (error instanceof api.KeyNeeded) return status("key", "The server needs its key.");
    again = retry;
    if (error instanceof api.ServerGone) return status("gone", error.message);
    status("error", error.message);
  }

  // Run one action to its end; an error is shown, and the action can be tried again.
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
    status("loading", "connecting …");
    await run(async () => {
      const models = await api.models();
      const known = models.some((model) => model.name === baseOf(store.state.model));
      store.set({ models });
      if (!models.length) return status("nothing", NOTHING);
      const first = models.find((model) => model.writes) ?? models[0];
      await useModel(known ? store.state.model : first.name, !known);
    }, open);
  }

  async function useModel(name, reset = true, signal = undefined) {
    const model = store.state.models.find((one) => one.name === baseOf(name));
    if (reset && model.writes && store.state.tokens.length && baseOf(name) === baseOf(store.state.model)) return readAgain(name, signal);
    if (reset) store.set({ tokens: [], branch: null, selected: null, rows: new Map(), seed: null });
    if (reset && store.state.sampling === defaults) store.set({ sampling: (defaults = defaultsOf(store.state.models, name)) });
    if (!model.chats) store.set({ mode: "text" });
    store.set({ model: name, vocabulary: null });
    if (model.vocab_size) store.set({ vocabulary: await api.vocabulary(model.name) });
    if (!model.writes) return status("idle", LOOKS_ONLY);
    status("idle", store.state.tokens.length ? summary() : "Ready.");
  }

  // The same text by another checkpoint of the same model.
  async function readAgain(name, signal) {
    const tokens = store.state.tokens.map(({ id, given, chosen, u }) => ({ id, given, chosen, u, probability: null, start: 0 }));
    store.set({ model: name });
    replaceTokens(store, tokens);
    status("reading", "reading …");
    const { block_size: blockSize } = store.state.models.find((one) => one.name === baseOf(name));
    if (tokens.length <= blockSize) await stream({ maxTokens: 0, score: true }, signal);
    else status("idle", summary());
  }

  const summary = (prefix = "") => {
    const written = store.state.tokens.filter((token) => !token.given).length;
    return `${prefix}${store.state.tokens.length - written} tokens read, ${written} written.`;
  };

  // Read the prompt, and generate up to `maxTokens` tokens after it.
  // In a chat: after the turns so far, or in the place of the one that is edited. again: answer once more to these turns.
  function begin(maxTokens, again = null) {
    const { model, mode, prompt, tokens: before, branch } = store.state;
    const messages = mode === "chat" ? (again ?? asked(store.state)) : null;
    return run(async (signal) => {
      status("reading", "reading …");
      const read = await api.tokenize(model, messages ? { messages: withSystem(store.state, messages) } : { text: prompt }, signal);
      const tokens = read.ids.map((id) => ({ id, given: true, probability: null, start: 0 }));
      const chat = messages && { messages, answerStart: tokens.length };
      const continues = chat && store.state.chat ? { parent: branch, at: sharedLength(before, tokens) } : {};
      plant(store, { tokens, endTokens: read.end_tokens, chat, ...continues });
      if (messages && maxTokens) store.set({ prompt: "", editing: null });
      await stream({ maxTokens, score: true }, signal);
    }, () => begin(maxTokens, messages));
  }

  const continueText = () => run((signal) => stream({ maxTokens: store.state.maxTokens, score: false }, signal), continueText);

  // Replace a token by another, remove all after it, and continue.
  function branch(index, id) {
    const { tokens, rows } = store.state;
    const row = rows.get(index - 1);
    const replacement = { id, given: false, chosen: true, probability: row ? row.own[id] : null, rank: row ? row.order.indexOf(id) + 1 : null, start: startOf(tokens, index - 1) };
    forkAt(store, index, replacement);
    return continueText();
  }

  // When the context is full, generation continues from its last half, as the engine does. `start` of a token: the
  // beginning of the context that it was sampled from.
  async function stream({ maxTokens, score }, signal) {
    const { model, models, sampling, seedInput, endTokens, tokens } = store.state;
    const blockSize = models.find((one) => one.name === baseOf(model)).block_size;
    let start = tokens.at(-1).start ?? 0;
    let left = maxTokens;
    let seed = seedInput === "" ? null : Number(seedInput);
    status(maxTokens ? "streaming" : "reading", maxTokens ? "writing …" : "reading …");
    try {
      for (;;) {
        if (!score && tokens.length - start >= blockSize) start = tokens.length - Math.max(1, Math.floor(blockSize / 2));
        const body = {
          model, ids: ids().slice(start), max_tokens: left, score, end_tokens: endTokens, seed,
          temperature: sampling.temperature, top_k: sampling.topK, top_p: sampling.topP, min_p: sampling.minP,
          repetition_penalty: 1, // the page has no slider for it
        };
        let reason = null;
        for await (const event of api.generate(body, signal)) {
          if (signal.aborted) return;
          if (event.type === "start") {
            if (maxTokens && left === maxTokens) seedUsed(store, event.seed);
            seed = (event.seed + 1) % 2 ** 53; // of the next window
          }
          if (event.type === "prompt") {
            event.probabilities.forEach((probability, i) => Object.assign(tokens[i], { probability, rank: event.ranks[i] }));
            store.set({ probabilities: store.state.probabilities + 1 });
          }
          if (event.type === "token") {
            tokens.push({ id: event.id, given: false, probability: event.probability, rank: event.rank, u: event.u, start });
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
      failed(error, continueText); // the written text stays
    }
  }

  function ended(reason, maxTokens) {
    status("done", summary(!maxTokens ? "Read: " : reason === "end_of_text" ? "End of text: " : "Written: "));
  }

  function stop({ quiet = false } = {}) {
    abort?.abort();
    abort = null;
    if (!quiet) status("stopped", summary("Stopped: "));
  }

  async function retry() {
    const work = again;
    again = null;
    await open();
    if (work && work !== open && store.state.status.kind === "idle") await work();
  }

  // A text of a link: its tokens are read by the model that it names.
  function openText(model, { tokens, selected, sampling }) {
    return run(async (signal) => {
      const named = store.state.models.find((one) => one.name === baseOf(model) && one.writes);
      if (named && model !== store.state.model) await useModel(model, false);
      const unknown = tokens.find((token) => !store.state.vocabulary?.texts[token.id]);
      if (unknown) throw new api.Refused(`The link has token ${unknown.id}, which ${store.state.model} does not have; open it with the model that wrote it.`);
      store.set({ sampling: { ...store.state.sampling, ...sampling } });
      plant(store, { tokens, endTokens: null });
      await stream({ maxTokens: 0, score: true }, signal);
      store.set({ selected });
    }, () => openText(model, { tokens, selected, sampling }));
  }

  // Go to a branch; the model that wrote it is opened.
  function goTo(id) {
    stop({ quiet: true });
    return run(async () => {
      const branch = store.state.branches.find((one) => one.id === id);
      if (branch.model !== store.state.model) await useModel(branch.model, false);
      openBranch(store, id);
      status("idle", summary());
    }, () => goTo(id));
  }

  const switchModel = (name) => run((signal) => useModel(name, true, signal), () => switchModel(name));
  return { open, begin, continueText, branch, goTo, openText, stop: () => stop(), retry, failed, useModel: switchModel };
}
