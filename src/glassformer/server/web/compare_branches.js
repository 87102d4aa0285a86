// Two branches beside each other, as figures: where they part, what each token cost, and the sums.

import { sharedLength } from "./branches.js";
import { bits, count, percent } from "./numbers.js";
import { surprise } from "./sampling.js";
import { spelled } from "./vocabulary.js";

const COLORS = [[47, 102, 191], [200, 56, 44]];
const DARK = [[90, 146, 234], [238, 106, 92]];
const LISTED = 60; // rows of the table

const known = (token) => typeof token?.probability === "number";

// Sums of surprise from the place where they part: [{tokens, total}] of the one and the other.
export function comparison(a, b, vocabularyOf) {
  const shared = sharedLength(a.tokens, b.tokens);
  const sides = [a, b].map((one) => ({ one, name: `branch ${one.id}`, rest: one.tokens.slice(shared), vocabulary: vocabularyOf(one) }));
  const sums = sides.map(({ rest }) => running(rest));
  return [note(sides, sums, shared), table(sides, shared), curves(sides, sums, shared)].filter(Boolean);
}

function running(tokens) {
  let sum = 0;
  return tokens.map((token) => (sum += known(token) ? surprise(token.probability) : 0));
}

function note(sides, sums, shared) {
  const n = Math.min(sums[0].length, sums[1].length);
  const said = sides.map(({ name, rest, one }, i) => `${name} (${one.model}) continues with ${rest.length} tokens of ${bits(sums[i].at(-1) ?? 0)} together`);
  let text = `Shared: ${shared} tokens. ${said.join("; ")}.`;
  if (n) {
    const [first, second] = sums.map((sum) => sum[n - 1]);
    const better = first <= second ? 0 : 1;
    text += ` Over the first ${n} of them ${sides[better].name} is likelier by ${bits(Math.abs(first - second))}: ${ratio(Math.abs(first - second))} times.`;
  }
  return { kind: "note", title: "Two branches compared", text, verbatim: false };
}

const ratio = (difference) => (difference > 30 ? `2^${difference.toFixed(0)}` : difference > 7 ? count(Math.round(2 ** difference)) : (2 ** difference).toFixed(1));

function table(sides, shared) {
  const column = (name, kind) => ({ name, kind, digits: 2, role: "data", color: COLORS[0], negative_color: COLORS[1] });
  const columns = [column("position", "count"), ...sides.flatMap(({ name }) => [column(name, "token"), column("probability", "share"), column("bits", "number"), column("rank", "count")])];
  const length = Math.min(LISTED, Math.max(...sides.map(({ rest }) => rest.length)));
  const rows = Array.from({ length }, (_, i) => [{ text: String(shared + i), value: shared + i }, ...sides.flatMap(({ rest, vocabulary }) => cells(rest[i], vocabulary))]);
  return rows.length ? { kind: "table", title: "", columns, rows, footer: [], marked: [] } : null;
}

function cells(token, vocabulary) {
  if (!token) return [{ text: "" }, { text: "" }, { text: "" }, { text: "" }];
  const text = { text: spelled(vocabulary, token.id) };
  if (!known(token)) return [text, { text: "" }, { text: "" }, { text: "" }];
  const cost = surprise(token.probability);
  return [text, { text: percent(token.probability), value: token.probability }, { text: cost.toFixed(2), value: cost }, token.rank ? { text: String(token.rank), value: token.rank } : { text: "" }];
}

function curves(sides, sums, shared) {
  if (sums.some((sum) => sum.length < 2)) return null;
  const lines = sides.map(({ name }, i) => ({ name, x: sums[i].map((_, at) => shared + at), y: sums[i], faint: false, dots: false, color: COLORS[i], dark_color: DARK[i] }));
  const [right, high] = [Math.max(...lines.map(({ x }) => x.at(-1))), Math.max(...sums.flat())];
  return { kind: "curves", title: "Surprise of all tokens so far", lines, x_axis: "position", y_axis: "bits", limits: [shared, right, 0, high || 1], levels: [], events: [], x_labels: [], x_log: false, y_log: false, compact: false };
}
