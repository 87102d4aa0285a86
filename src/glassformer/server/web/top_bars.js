// The likeliest tokens of a position as bars, as the lecture draws them: what the text is sampled from.

import { count, element, percent, shown } from "./numbers.js";
import { filtered } from "./sampling.js";
import { chip } from "./vocabulary.js";

const ROWS = 20;

export function topBars(root, store, name) {
  function draw({ selected, tokens, rows, sampling, vocabulary }) {
    const row = rows.get(selected - 1);
    if (selected === null || !row) return root.replaceChildren(selected ? element("p", { class: "faint" }, "reading …") : "");
    const { probabilities } = filtered(row.logits, row.order, sampling);
    const ids = [...row.order.subarray(0, ROWS)];
    const came = tokens[selected]?.id;
    const widest = probabilities[ids[0]];
    const place = `${name}/${selected - 1}`;
    const lines = ids.map((id) => {
      const bar = element("span", { class: "bar sampled", "aria-hidden": "true" });
      bar.style.width = `${((100 * probabilities[id]) / widest).toFixed(2)}%`;
      return element("li", { class: id === came ? "came" : undefined, "data-token": id }, chip(vocabulary, id), element("span", { class: "track" }, bar), shown(probabilities[id], `${place}/${id}`, percent));
    });
    const left = ids.reduce((rest, id) => rest - probabilities[id], 1);
    const others = row.order.length - ids.length;
    if (others > 0) lines.push(element("li", { class: "rest" }, `other ${count(others)}`, element("span", {}), shown(left > 1e-9 ? left : 0, `${place}/others`, percent)));
    root.replaceChildren(element("p", { class: "small" }, `token ${selected} is drawn from`), element("ol", { class: "top-bars" }, ...lines));
  }
  store.subscribe((state, changed) => {
    if (["selected", "rows", "tokens", "sampling", "vocabulary"].some((one) => changed.has(one))) draw(state);
  });
}
