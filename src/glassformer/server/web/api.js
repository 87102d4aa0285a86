// Requests to the server. Three kinds of error: it does not answer, it needs its key, it refuses the request.

import { readTensors } from "./safetensors.js";

const STORAGE_KEY = "glassformer-key";

export class ServerGone extends Error {}
export class KeyNeeded extends Error {}
export class Refused extends Error {}

export function useKey(key) {
  sessionStorage.setItem(STORAGE_KEY, key.replace(/[^\x20-\x7e]/g, "")); // a header can hold only these
}

/** @param {string} path @param {{body?: any, signal?: AbortSignal, tag?: string | null}} given */
async function request(path, { body, signal, tag } = {}) {
  const key = sessionStorage.getItem(STORAGE_KEY);
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  if (tag) headers["If-None-Match"] = tag;
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerGone("The server does not answer.");
  }
  if (response.ok || response.status === 304) return response;
  const json = await response.json().catch(() => null);
  const message = json?.error?.message ?? `the server answers with status ${response.status}`;
  throw response.status === 401 ? new KeyNeeded(message) : new Refused(message);
}

export async function models() {
  return (await (await request("/api/models")).json()).models;
}

// {name, summary, options: a JSON schema, example, reason: why it does not apply to the model, or null} of every view
export async function views(model) {
  return (await (await request(`/api/views?model=${encodeURIComponent(model)}`)).json()).views;
}

// The figures of a view.
// file: of a model that reads files, the bytes of one in base64.
export async function look(view, model, options, file, signal) {
  const body = { model, options, ...(file ? { file } : {}) };
  return (await (await request(`/api/look/${encodeURIComponent(view)}`, { body, signal })).json()).figures;
}

// The figures of a view as a file: "html" or "csv".
export async function lookFile(view, model, options, file, save) {
  const body = { model, options, save, ...(file ? { file } : {}) };
  return (await request(`/api/look/${encodeURIComponent(view)}`, { body })).blob();
}

// Training from the page; see server/training.py.
export const recipes = async () => (await request("/api/recipes")).json();
export const recipe = async (name) => (await request(`/api/recipes/${encodeURIComponent(name)}`)).json();
export const plan = async (recipe, settings, signal) => (await (await request("/api/plan", { body: { recipe, settings }, signal })).json()).figures;
export const trained = async () => (await request("/api/train")).json();
export const train = async (recipe, settings) => (await (await request("/api/train", { body: { recipe, settings } })).json()).run;
export const trainAction = async (run, action) => (await request(`/api/train/${encodeURIComponent(run)}/${action}`, { body: {} })).json();

export async function compareRuns(names, signal) {
  const query = new URLSearchParams(names.map((name) => ["run", name]));
  return (await (await request(`/api/runs/compare/figures?${query}`, { signal })).json()).figures;
}

// Ranking answers; see server/ranking.py.
export const ranking = async (model) => (await request(`/api/rank?model=${encodeURIComponent(model)}`)).json();
export const pick = async (place, pick) => (await request("/api/rank", { body: { place, pick } })).json();
export const undoPick = async () => (await request("/api/rank/undo", { body: {} })).json();

export async function runFile(name, save) {
  return (await request(`/api/runs/${encodeURIComponent(name)}?save=${save}`)).blob();
}

export async function runs() {
  return (await (await request("/api/runs")).json()).runs;
}

// {tag, run}, or null where the run is as it was when it had this tag
export async function run(name, tag) {
  const response = await request(`/api/runs/${encodeURIComponent(name)}`, { tag });
  return response.status === 304 ? null : { tag: response.headers.get("ETag"), run: await response.json() };
}

// {texts, parts: Set, special: Set}; see _vocabulary in inspect.py
export function vocabulary(model) {
  if (!vocabularies.has(model)) vocabularies.set(model, fetchVocabulary(model).catch((error) => (vocabularies.delete(model), Promise.reject(error))));
  return vocabularies.get(model);
}

const vocabularies = new Map(); // by model: the promise of its tokens, asked for once

async function fetchVocabulary(model) {
  const { texts, parts, special } = await (await request(`/api/vocabulary?model=${encodeURIComponent(model)}`)).json();
  return { texts, parts: new Set(parts), special: new Set(special) };
}

// {ids, texts, bytes, end_tokens} of {text} or {messages}; of a text also `decoded` and, with {merges: n}, `chunks`
export async function tokenize(model, input, signal) {
  return (await request("/api/tokenize", { body: { model, ...input }, signal })).json();
}

// The logits of the token after these ids, one for each token of the vocabulary.
export async function logits(model, ids, signal) {
  const body = { model, ids, positions: [ids.length - 1] };
  const response = await request("/api/logits", { body, signal });
  return readTensors(await response.arrayBuffer()).logits.data;
}

// The events of a generation, as they arrive.
export async function* generate(body, signal) {
  const response = await request("/api/generate", { body, signal });
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const bytes of chunks(response.body)) {
      text += decoder.decode(bytes, { stream: true });
      const events = text.split("\n\n");
      text = events.pop();
      for (const line of events) {
        const event = JSON.parse(line.slice("data: ".length));
        if (event.type === "error") throw new Refused(event.message);
        yield event;
        if (event.type === "end") return;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refused) throw error;
  }
  throw new ServerGone("The server stopped in the middle of the text.");
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
