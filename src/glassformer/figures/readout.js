"use strict";
// The number under the pointer: a picture is followed by its numbers as JSON (figures/json.py), and by an <output>.
for (const picture of document.querySelectorAll(".picture")) {
  const svg = picture.querySelector("svg"), out = picture.querySelector("output"), data = picture.querySelector("script");
  if (!svg.dataset.frame || !data) continue;
  const d = JSON.parse(data.textContent), resting = out.textContent;
  const [left, top, right, bottom] = svg.dataset.frame.split(" ").map(Number);
  const cursor = svg.querySelector(".cursor");
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
  const plain = v => v === null ? "–" : Math.abs(v) >= 1e5 ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(5)));
  const show = (x, text) => { cursor.setAttribute("d", `M${x} ${top}V${bottom}`); out.textContent = text; };
  const nearest = (places, x) => {
    let low = 0, high = places.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (places[middle] < x) low = middle; else high = middle; }
    return x - places[low] <= places[high] - x ? low : high;
  };
  const curves = x => {
    const [low, high] = d.limits, lines = d.lines.filter(line => line.x.length), share = (x - left) / (right - left);
    const place = d.x_log ? low * (high / low) ** share : low + (high - low) * share;
    const at = lines[0].x[nearest(lines[0].x, place)];
    const where = d.x_log ? Math.log(at / low) / Math.log(high / low) : (at - low) / (high - low || 1);
    const name = v => d.x_labels.length ? d.x_labels[v] : v.toLocaleString("en");
    show(left + where * (right - left), `${d.x_axis || "x"} ${name(at)}: ` + lines.map(line => {
      const i = nearest(line.x, at), other = line.x[i] === at ? "" : ` (${d.x_axis} ${name(line.x[i])})`;
      return `${line.name} ${plain(line.y[i])}${other}`;
    }).join(" · "));
  };
  const cell = (x, y) => {
    const R = d.rows.length, C = d.columns.length;
    const c = clamp(Math.floor((x - left) / (right - left) * C), 0, C - 1), r = clamp(Math.floor((y - top) / (bottom - top) * R), 0, R - 1);
    show(left + (c + 0.5) / C * (right - left), `${d.column_axis} ${d.columns[c]}: ${d.rows[r]} ${plain(d.values[r][c])}`);
  };
  let x = (left + right) / 2, y = top + 1;
  const read = () => d.kind === "curves" ? curves(x) : cell(x, y);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    x = clamp((event.clientX - box.left) / box.width * svg.viewBox.baseVal.width, left, right);
    y = clamp((event.clientY - box.top) / box.height * svg.viewBox.baseVal.height, top, bottom);
    read();
  });
  svg.addEventListener("keydown", event => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
    if (!dx && !(dy && d.kind === "heat_map")) return;
    event.preventDefault();
    x = clamp(x + dx * (right - left) / (d.kind === "heat_map" ? d.columns.length : 100), left, right - 0.01);
    y = clamp(y + dy * (d.kind === "heat_map" ? (bottom - top) / d.rows.length : 0), top, bottom - 0.01);
    read();
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("d", ""); out.textContent = resting; });
}
