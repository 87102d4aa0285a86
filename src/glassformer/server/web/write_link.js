// The text on the screen in the address, so that a link reopens it elsewhere: its tokens, the selected one, the sliders.
//
//   #write?model=demo-1&branch=2&ids=46.47.47&given=2&token=2&temperature=0.8&topK=0&topP=0.9&minP=0

import { readAddress, writeAddress } from "./address.js";

const MOST_IDS = 1500; // of a link; a longer text stays in its tab
const PAUSE = 300; // ms after the last change
const SLIDERS = ["temperature", "topK", "topP", "minP"];

const optionsOf = ({ branch, tokens, selected, sampling }) => ({
  branch,
  ...(tokens.length <= MOST_IDS ? { ids: joined(tokens), given: tokens.filter((token) => token.given).length } : {}),
  ...(selected === null ? {} : { token: selected }),
  ...Object.fromEntries(SLIDERS.map((name) => [name, sampling[name]])),
});
const joined = (tokens) => tokens.map((token) => token.id).join(".");

// Whether a branch has the text of the address, or has grown from it.
export const fits = (branch, { ids }) => !ids || `${joined(branch.tokens)}.`.startsWith(`${ids}.`);

// What an address describes: {tokens, selected, sampling}; null where it has no text.
export function linkedText({ ids, given, token, ...options }) {
  if (!/^\d+(\.\d+)*$/.test(ids ?? "")) return null;
  const tokens = ids.split(".").map((id, i) => ({ id: Number(id), given: i < Number(given ?? Infinity), probability: null, start: 0 }));
  const known = SLIDERS.filter((name) => options[name] !== undefined && Number.isFinite(Number(options[name])));
  const selected = token !== undefined && Number(token) <= tokens.length ? Number(token) : null;
  return { tokens, selected, sampling: Object.fromEntries(known.map((name) => [name, Number(options[name])])) };
}

// Keep the address up to date while the text is on the screen; another branch is a new entry of the history.
export function keepLink(store) {
  let timer = null;
  function put() {
    const { panel, options } = readAddress();
    const { branch, model } = store.state;
    if (panel !== "write" || branch === null) return;
    const same = options.branch === undefined || Number(options.branch) === branch;
    writeAddress({ panel, view: null, model, options: optionsOf(store.state) }, { replace: same });
  }
  store.subscribe((state, changed) => {
    if (changed.has("branch")) return put();
    if (!["status", "selected", "sampling"].some((name) => changed.has(name)) || state.status.kind === "streaming") return;
    clearTimeout(timer);
    timer = setTimeout(put, PAUSE);
  });
}
