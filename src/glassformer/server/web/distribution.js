// The whole distribution at one position: the top rows, and all others as one row, so that the sum is 100 %.

import { bits, count, decimal, element, percent, shown } from "./numbers.js";
import { cutCell, keptLine, limitOf } from "./filters.js";
import { entropy, filtered, surprise } from "./sampling.js";
import { drawLine } from "./draw_line.js";
import { chip, lower, spelled } from "./vocabulary.js";

const FIRST_ROWS = 15;
const MORE_ROWS = 30;
const MAX_ROWS = 600;
const ONE_COLUMN = matchMedia("(max-width: 960px)"); // as in page.css: the list is below the text

export function distributionView(root, store, { branch, leave, name = "" }) {
  let limit = FIRST_ROWS;
  let search = ""; // in the texts of the tokens
  let last = [];
  let scrollPending = false; // until the logits are there
  const body = element("div", {});
  const find = element("input", {
    type: "search", id: name ? undefined : "find", placeholder: "find a token", "aria-label": "find a token", autocomplete: "off",
  });
  const tools = element("div", { class: "line find", hidden: true }, find);
  root.append(body);

  function draw(state) {
    const { selected, tokens, sampling, vocabulary, rows } = state;
    const row = rows.get(selected - 1);
    const id = tokens[selected]?.id;
    const now = [selected, id, row, sampling, vocabulary, limit, search, tokens.length > 0];
    if (now.every((value, i) => value === last[i])) return;
    if (last[0] !== selected) limit = FIRST_ROWS;
    last = now;
    tools.hidden = !row || selected === null;
    if (selected === null || !tokens.length) return empty("Click a token of the text to see all tokens that could have been there.");
    if (selected === 0) return empty("The first token has no probability: the model predicts a token from those before it.");
    if (!row) return body.replaceChildren(heading(state), element("p", { class: "faint" }, "reading …"));
    const sampled = filtered(row.logits, row.order, sampling);
    const line = drawLine(selected - 1, tokens[selected], sampled.probabilities, sampling, vocabulary);
    body.replaceChildren(heading(state), ...facts(selected - 1, id, row, sampled, sampling), line, tools, ...table(state, row, id, sampled));
    if (scrollPending) show();
  }

  // In one column the list is far below the clicked token.
  function show() {
    scrollPending = !store.state.rows.has(store.state.selected - 1) && store.state.selected > 0;
    if (ONE_COLUMN.matches) root.scrollIntoView({ block: "start" });
  }

  function empty(text) {
    body.replaceChildren(element("h2", {}, "Distribution"), element("p", { class: "faint" }, text));
  }

  // The table and the button below it.
  function table(state, row, actual, sampled) {
    const { vocabulary, selected, sampling } = state;
    const { probabilities } = sampled;
    const p = selected - 1;
    const { own, order } = row;
    const found = search ? order.filter((id) => lower(vocabulary, id).includes(search)) : order;
    const ids = [...found.subarray(0, limit)];
    if (actual !== undefined && !ids.includes(actual)) ids.push(actual);
    const widest = Math.max(own[order[0]], probabilities[order[0]]);
    const level = limitOf(own.length, sampling) / widest;
    const lines = ids.map((id) => {
      const gap = id === actual && id !== ids[0] && !found.subarray(0, limit).includes(id);
      const bars = { own: share(own[id], `probability/${p}/${id}`, widest, "own"), sampled: cutCell(p, id, row, sampled, sampling) ?? share(probabilities[id], `sampling/${p}/${id}`, widest, "sampled", level) };
      return line(p, id, row, bars, { cut: sampled.reasons[id] > 0, actual: id === actual, gap, vocabulary });
    });
    let ownShown = 0, sampledShown = 0;
    for (const id of ids) (ownShown += own[id]), (sampledShown += probabilities[id]);
    const others = own.length - ids.length;
    const rest = element("tr", { class: "rest" },
      element("td", { class: "rank" }),
      element("th", { scope: "row" }, "other ", shown(others, `others/${p}`, count), others === 1 ? " token" : " tokens"),
      share(restOf(ownShown), `probability/${p}/others`, widest, "own"),
      share(restOf(sampledShown), `sampling/${p}/others`, widest, "sampled"),
      element("td", { class: "logit" }));
    const head = element("thead", {}, element("tr", {},
      element("th", { class: "rank", scope: "col" }, "#"), element("th", { scope: "col" }, "token"),
      element("th", { scope: "col", class: "share" }, "probability", element("small", {}, "of the model")),
      element("th", { scope: "col", class: "share" }, "sampling", element("small", {}, "after temperature and filters")), element("th", { class: "logit", scope: "col" }, "logit")));
    const made = element("table", {}, head, element("tbody", {}, ...lines, rest));
    const first = made.querySelector("button");
    if (first) first.tabIndex = 0;
    const more = element("button", { type: "button", class: "quiet more", id: name ? undefined : "more" }, "show more");
    more.addEventListener("click", () => ((limit = Math.min(limit + MORE_ROWS, MAX_ROWS)), draw(store.state)));
    more.hidden = limit >= MAX_ROWS || found.length <= limit;
    return [made, more];
  }

  find.addEventListener("input", () => {
    search = find.value.toLowerCase().replaceAll(" ", "␣");
    draw(store.state);
    find.focus();
  });
  root.addEventListener("click", (event) => {
    if (event.target.closest(".back")) return leave();
    const button = event.target.closest("button[data-id]");
    if (button) branch(store.state.selected, Number(button.dataset.id));
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return leave();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...root.querySelectorAll("button[data-id]")];
    const at = buttons.indexOf(event.target);
    if (!step || (at < 0 && event.target !== find)) return;
    event.preventDefault();
    if (at + step < 0) return leave();
    focusRow(buttons, Math.min(at + step, buttons.length - 1));
  });
  store.subscribe((state) => draw(state));
  return { focus: () => focusRow([...root.querySelectorAll("button[data-id]")], 0), show };
}

// The rest of a sum of probabilities to 1; less than 1e-9 is rounding.
function restOf(sum) {
  return sum < 1 - 1e-9 ? 1 - sum : 0;
}

function focusRow(buttons, index) {
  for (const button of buttons) button.tabIndex = -1;
  if (!buttons[index]) return;
  buttons[index].tabIndex = 0;
  buttons[index].focus();
}

// The tokens before this position, and the token at it.
function heading({ selected, tokens, vocabulary }) {
  const before = element("span", { class: "context" });
  for (const token of tokens.slice(Math.max(0, selected - 6), selected)) before.append(chip(vocabulary, token.id));
  const actual = tokens[selected];
  const after = actual ? chip(vocabulary, actual.id) : element("span", { class: "token-text nothing" }, "?");
  after.classList.add("actual");
  return element("h2", { class: "position" }, element("button", { type: "button", class: "quiet back" }, "↑ text"), element("span", { class: "faint" }, selected > 6 ? "after … " : "after "), before,
    element("span", { class: "arrow", "aria-label": "followed by" }, "→"), after);
}

// Numbers of the position as a whole.
function facts(p, actual, row, sampled, sampling) {
  const tile = (name, ...what) => element("div", { class: "fact" }, element("dt", {}, name), element("dd", {}, ...what));
  const tiles = [];
  if (actual !== undefined) {
    tiles.push(tile("surprise", shown(surprise(row.own[actual]), `surprise/${p}/${actual}`, bits)));
    tiles.push(tile("rank", shown(row.order.indexOf(actual) + 1, `rank/${p}/${actual}`, count)));
  }
  tiles.push(tile("entropy", shown(row.entropy, `entropy/${p}`, bits)));
  tiles.push(tile("after filters", shown(entropy(sampled.probabilities), `entropy-sampled/${p}`, bits)));
  return [element("dl", { class: "facts" }, ...tiles), keptLine(p, row, sampled, sampling)];
}

function line(p, id, row, bars, { cut, actual, gap, vocabulary }) {
  const go = element("button", {
    type: "button", tabindex: -1, "data-id": id, title: "continue from this token",
    "aria-label": `${spelled(vocabulary, id)}: continue from this token`,
  }, chip(vocabulary, id));
  const rank = row.order.indexOf(id) + 1;
  const classes = [actual && "actual", gap && "gap", cut && "cut"].filter(Boolean).join(" ");
  const mark = actual ? [element("span", { class: "tick", title: "the token of the text" }, "✓")] : [];
  return element("tr", { class: classes, "data-token": id },
    element("td", { class: "rank" }, shown(rank, `rank/${p}/${id}`, count)),
    element("th", { scope: "row" }, go, ...mark),
    bars.own, bars.sampled,
    element("td", { class: "logit" }, shown(row.logits[id], `logits/${p}/${id}`, decimal)));
}

// A probability as a number and a bar; limit: where the bar ends at a very high temperature.
function share(value, source, widest, kind, limit = 0) {
  const bar = element("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  bar.style.width = `${Math.min(100, Math.max((100 * value) / widest, value > 0 ? 0.6 : 0)).toFixed(2)}%`; // of all others it may be more
  const track = element("span", { class: "track" }, bar);
  if (limit) {
    const mark = element("span", { class: "limit", "aria-hidden": "true" });
    mark.style.left = `${Math.min(100 * limit, 100).toFixed(2)}%`;
    track.append(mark);
  }
  return element("td", { class: "share" }, element("span", { class: "cell" }, shown(value, source, percent), track));
}
