// The state of the page. `set` changes some of it and calls every listener with the names of what changed.

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

const STORAGE_KEY = "glassformer";
const KEPT = ["model", "mode", "system", "prompt", "lookText", "branches", "branch", "sampling", "maxTokens", "seedInput"];

// The state that survives a reload of this tab; it is kept no longer and never leaves the browser.
export function remember(state) {
  const kept = Object.fromEntries(KEPT.map((name) => [name, state[name]]));
  kept.branches = kept.branches.map((branch) => ({ ...branch, rows: undefined })); // the server has them
  try {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify(kept));
  } catch {
    // no storage (private window, full): the page works without
  }
}

export function remembered() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORAGE_KEY)) ?? {};
    for (const branch of kept.branches ?? []) branch.rows = new Map();
    return kept;
  } catch {
    return {};
  }
}
