// Every text of this tab, as a forest: a new text is a root, and another token at some place makes a branch. Each
// keeps its tokens with their probabilities, its seed and model, and the distributions that were looked at.
//
//   {id, parent, at, tokens, rows, endTokens, seed, model, mode, prompt}   at: where it leaves its parent

const MOST_BRANCHES = 40;
const MOST_TOKENS = 20_000; // of all together

// What the page shows of the branch on the screen.
export function currentOf({ branches, branch }) {
  const { tokens, rows, endTokens, seed, chat = null } = branches.find((one) => one.id === branch) ?? NOTHING;
  return { tokens, rows, endTokens, seed, chat };
}
const NOTHING = { tokens: [], rows: new Map(), endTokens: null, seed: null };

function added(store, branch) {
  const { branches, model, mode, prompt } = store.state;
  const id = Math.max(0, ...branches.map((one) => one.id)) + 1;
  const made = { id, parent: null, at: 0, seed: null, model, mode, prompt, rows: new Map(), ...branch };
  const all = kept([...branches, made]);
  store.set({ branches: all, branch: id, ...currentOf({ branches: all, branch: id }), selected: branch.selected ?? null });
}

// A new text.
export function plant(store, { tokens, endTokens, chat = null, parent = null, at = 0 }) {
  added(store, { tokens, endTokens, chat, parent, at });
}

// The text on the screen up to a place, and another token there.
export function forkAt(store, index, replacement) {
  const { tokens, rows, endTokens, branch, chat } = store.state;
  const shared = new Map([...rows].filter(([position]) => position < index));
  const inside = chat && index < chat.answerStart; // the messages are no longer what the model reads
  added(store, { parent: branch, at: index, tokens: [...tokens.slice(0, index), replacement], rows: shared, endTokens, chat: inside ? null : chat, selected: index });
}

// Show a branch.
export function openBranch(store, id) {
  const { mode, prompt } = store.state.branches.find((one) => one.id === id);
  store.set({ branch: id, ...currentOf({ ...store.state, branch: id }), selected: null, mode, prompt: mode === "chat" ? "" : prompt, editing: null });
}

// The same text by another checkpoint.
export function replaceTokens(store, tokens) {
  const { branches, branch, model } = store.state;
  const all = branches.map((one) => (one.id === branch ? { ...one, tokens, rows: new Map(), model } : one));
  store.set({ branches: all, ...currentOf({ branches: all, branch }) });
}

export function seedUsed(store, seed) {
  const { branches, branch } = store.state;
  store.set({ seed, branches: branches.map((one) => (one.id === branch ? { ...one, seed } : one)) });
}

export function without(branches, id) {
  const gone = branches.find((one) => one.id === id);
  return branches.filter((one) => one !== gone).map((one) => (one.parent === id ? { ...one, parent: gone.parent, at: Math.min(one.at, gone.at) } : one));
}

// Without the oldest, as long as there are too many.
function kept(branches) {
  const size = (some) => some.reduce((n, one) => n + one.tokens.length, 0);
  while (branches.length > MOST_BRANCHES || (branches.length > 1 && size(branches) > MOST_TOKENS)) branches = without(branches, branches[0].id);
  return branches;
}

// The branches in the order of a tree, each with its depth.
export function asTree(branches, parent = null, depth = 0) {
  return branches.filter((one) => one.parent === parent).flatMap((one) => [{ ...one, depth }, ...asTree(branches, one.id, depth + 1)]);
}

// Where two texts part: the number of equal tokens at their beginnings.
export function sharedLength(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n].id === b[n].id) n += 1;
  return n;
}
