// What the page knows, in one place. `set` changes some of it and tells everybody what was changed; views read and draw.

export function createStore(initial) {
  const state = { ...initial };
  const listeners = [];
  return {
    state,
    set(changes) {
      Object.assign(state, changes);
      const names = new Set(Object.keys(changes));
      for (const listener of listeners) listener(state, names);
    },
    subscribe(listener) {
      listeners.push(listener);
    },
  };
}

const PLACE = "glassformer";
const KEPT = ["model", "mode", "prompt", "tokens", "endTokens", "sampling", "maxTokens", "seed", "seedAsked"];

// The state that outlives a reload of this tab. Nothing is kept longer, and nothing leaves the browser.
export function remember(state) {
  const kept = Object.fromEntries(KEPT.map((name) => [name, state[name]]));
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(kept));
  } catch {
    // a browser that keeps nothing (private window, full): the page works without
  }
}

export function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(PLACE)) ?? {};
  } catch {
    return {};
  }
}
