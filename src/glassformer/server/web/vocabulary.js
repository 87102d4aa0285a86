// How a token is spelled on the screen.

import { element } from "./numbers.js";

const ESCAPES = { "\n": "\\n", "\t": "\\t", "\r": "\\r" };

// In a list: every space is visible.
export function spelled(vocabulary, id) {
  const text = vocabulary?.texts[id] ?? `#${id}`;
  return text.replace(/[\n\t\r]/g, (c) => ESCAPES[c]).replaceAll(" ", "␣");
}

// For the search: all spellings in lower case, made once.
export function lower(vocabulary, id) {
  vocabulary.lower ??= vocabulary.texts.map((_, i) => spelled(vocabulary, i).toLowerCase());
  return vocabulary.lower[id] ?? "";
}

// A token in a list, its spaces paler than its letters.
export function chip(vocabulary, id) {
  const kind = vocabulary?.special.has(id) ? "special" : vocabulary?.parts.has(id) ? "part" : "";
  const made = element("span", { class: `token-text ${kind}` });
  for (const piece of spelled(vocabulary, id).split(/(␣|\\[ntr])/)) {
    if (piece) made.append(/^(␣|\\[ntr])$/.test(piece) ? element("span", { class: "blank" }, piece) : piece);
  }
  return made;
}

// In a text: a new line is marked, and begins.
export function flowing(vocabulary, id) {
  const text = vocabulary?.texts[id] ?? `#${id}`;
  return vocabulary?.special.has(id) ? text : text.replaceAll("\n", "↵\n");
}

// The longest token at the beginning of a text; null where there is none.
export function tokenAtStart(vocabulary, text) {
  if (!vocabulary.byText) {
    const ordinary = vocabulary.texts.map((token, id) => [token, id]).filter(([token, id]) => token && !vocabulary.special.has(id) && !vocabulary.parts.has(id));
    vocabulary.byText = new Map(ordinary.reverse());
    vocabulary.longest = ordinary.reduce((most, [token]) => Math.max(most, token.length), 0);
  }
  for (let n = Math.min(text.length, vocabulary.longest); n > 0; n--) {
    const id = vocabulary.byText.get(text.slice(0, n));
    if (id !== undefined) return id;
  }
  return null;
}

// The text of ids, special tokens left out; parts of characters are put together again.
export function textOf(vocabulary, ids) {
  const encoder = new TextEncoder();
  const bytes = [];
  for (const id of ids) {
    const text = vocabulary.special.has(id) ? "" : (vocabulary.texts[id] ?? "");
    const pieces = vocabulary.parts.has(id) ? text.split(/(\\x[0-9a-f]{2})/) : [text];
    for (const piece of pieces) bytes.push(...(/^\\x[0-9a-f]{2}$/.test(piece) ? [parseInt(piece.slice(2), 16)] : encoder.encode(piece)));
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}
