// The cursor in the address: which place of the page, and of the model, is looked at. A link reopens exactly this.
//
//   #write                                             the text
//   #write?branch=3&ids=46.47                          one of the branches of this tab, and its text (write_link.js)
//   #train/demo-1                                      a run
//   #look/attention?model=demo-1&text=To+be&layer=1    a view and its options; lists repeat their name
//   #look/attention-walkthrough?model=demo-1&step=3    the third step of a view that has steps

export function readAddress(hash = location.hash) {
  const [place, query = ""] = hash.replace(/^#/, "").split("?");
  const [panel, view = null] = place.split("/");
  const options = {};
  let [model, step] = [null, 0];
  for (const [name, value] of new URLSearchParams(query)) {
    if (name === "model") model = value;
    else if (name === "step") step = Math.max(0, (Number.parseInt(value, 10) || 1) - 1);
    else if (name.endsWith("[]")) (options[name.slice(0, -2)] ??= []).push(value);
    else options[name] = value;
  }
  return { panel: panel || "write", view: view && decodeURIComponent(view), model, ...(step ? { step } : {}), options };
}

/** @param {{panel: string, view?: string | null, model?: string | null, step?: number, options?: Record<string, any>}} cursor */
export function addressOf({ panel, view, model, step, options }) {
  const query = new URLSearchParams(model ? { model } : {});
  for (const [name, value] of Object.entries(options)) {
    if (Array.isArray(value)) value.forEach((each) => query.append(`${name}[]`, each));
    else query.append(name, value);
  }
  if (step) query.append("step", String(step + 1));
  return `#${panel}${view ? `/${encodeURIComponent(view)}` : ""}${query.size ? `?${query}` : ""}`;
}

// Put a cursor into the address: as a new entry, to which Back returns, or in the place of this one.
/** @param {{panel: string, view?: string | null, model?: string | null, step?: number, options?: Record<string, any>}} cursor */
export function writeAddress(cursor, { replace = false } = {}) {
  const address = addressOf(cursor);
  if (address === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
}
