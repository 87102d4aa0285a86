// Everything that is asked of the server. Three things can go wrong: it is gone, it wants its key, it refuses and says why.

import { readTensors } from "./safetensors.js";

const PLACE = "glassformer-key";

export class ServerGone extends Error {}
export class KeyNeeded extends Error {}
export class Refused extends Error {}

export function useKey(key) {
  sessionStorage.setItem(PLACE, key.replace(/[^\x20-\x7e]/g, "")); // a header holds nothing else
}

async function ask(path, { body, signal } = {}) {
  const key = sessionStorage.getItem(PLACE);
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
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
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  const message = said?.error?.message ?? `the server answers with ${answer.status}`;
  throw answer.status === 401 ? new KeyNeeded(message) : new Refused(message);
}

export async function models() {
  return (await (await ask("/api/models")).json()).models;
}

// {texts, parts: Set, special: Set}; see inside.py
export async function vocabulary(model) {
  const answer = await (await ask(`/api/vocabulary?model=${encodeURIComponent(model)}`)).json();
  return { texts: answer.texts, parts: new Set(answer.parts), special: new Set(answer.special) };
}

// {ids, end_tokens} of {text} or {messages}
export async function tokenize(model, given, signal) {
  return (await ask("/api/tokenize", { body: { model, ...given }, signal })).json();
}

// The logits of what comes after these ids, one for each token of the vocabulary.
export async function logits(model, ids, signal) {
  const body = { model, ids, positions: [ids.length - 1] };
  const answer = await ask("/api/logits", { body, signal });
  return readTensors(await answer.arrayBuffer()).logits.data;
}

// The events of a generation, one after the other.
export async function* generate(body, signal) {
  const answer = await ask("/api/generate", { body, signal });
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const bytes of chunks(answer.body)) {
      text += decoder.decode(bytes, { stream: true });
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const said = JSON.parse(event.slice("data: ".length));
        if (said.type === "error") throw new Refused(said.message);
        yield said;
        if (said.type === "end") return;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refused) throw error;
  }
  throw new ServerGone("The server went away in the middle of the text.");
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
