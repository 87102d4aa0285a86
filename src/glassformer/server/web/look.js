// Looking inside: every view that the server has, its options as a form, its figures below.
//
// Nothing here knows a view: names, options and examples come from /api/views, figures from /api/look/VIEW.

import { addressOf, readAddress, writeAddress } from "./address.js";
import { drawFigures } from "./figures.js";
import { element } from "./numbers.js";
import { baseOf } from "./time_travel.js";
import { draftSteps } from "./drafts.js";
import { optionsForm } from "./options.js";
import { saveButtons } from "./save.js";
import { soundPlayer } from "./sound.js";
import { showSteps, stepKeys } from "./steps.js";
import { uploadField } from "./upload.js";

// A click on a figure moves the cursor where an axis or a column has one of these names.
const CURSOR = { layer: "layer", head: "head", block: "layer", queries: "position" };

// Options of an example that are right for every model; with others a view waits until it is asked for.
const FITS_ALL = new Set(["text", "layer", "head", "position", "neuron", "pattern", "corpus"]);

// Options that name a file, where a model reads files.
const FILES = ["text", "sound"];
const SETTLE = 60; // ms without a move of a slider, before the server is asked

export function lookView(root, store, api, { failed }) {
  const list = element("nav", { class: "view-list", "aria-label": "views" });
  const title = element("h2", { id: "view-title" });
  const about = element("p", { class: "faint" });
  const fields = element("div", {});
  const upload = uploadField(() => run());
  const show = element("button", { class: "primary", type: "submit" }, "Show");
  const state = element("span", { class: "small", role: "status", id: "view-state" });
  const save = saveButtons((error) => (state.textContent = error.message));
  const form = element("form", { class: "card", id: "view-form", novalidate: true }, title, about, upload.element, fields, element("div", { class: "line actions" }, show, state, element("span", { class: "grow" }), save.element));
  const figures = element("div", { class: "card figures", id: "figures", "aria-live": "off", hidden: true });
  root.replaceChildren(list, element("div", { class: "view" }, form, figures));
  stepKeys(figures);

  let views = null; // of the server
  let viewsOf = null; // the model that they were asked for
  let open = null; // {view, form}
  let running = null; // the request under way
  let at = 0; // the step that is shown, where a view has steps

  const known = (name) => views?.find((view) => view.name === name);

  // The views that apply to the model; after them the others, each with the reason.
  async function load() {
    const model = baseOf(store.state.model);
    if (views && viewsOf === model) return;
    const found = await api.views(model);
    views = [...found.filter((view) => !view.reason), ...found.filter((view) => view.reason)];
    viewsOf = model;
    list.replaceChildren(...views.map((view) => element("a", {
      href: addressOf({ panel: "look", view: view.name, options: {} }), "data-view": view.name, class: view.reason ? "unfit" : undefined,
    }, element("b", {}, view.name), element("span", { class: "small" }, view.reason ?? view.summary))));
  }

  // Show a view; options of the address stand over those of its example.
  async function go({ view, options, step = 0 }) {
    try {
      await load();
    } catch (error) {
      return failed(error, () => go({ view, options, step }));
    }
    at = step;
    const chosen = known(view) ?? views[0];
    for (const link of list.children) link.setAttribute("aria-current", link.dataset.view === chosen.name ? "page" : "false");
    list.querySelector("[aria-current=page]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (open?.view.name !== chosen.name) {
      open = { view: chosen, form: optionsForm(chosen.options) };
      fields.replaceChildren(open.form.element);
      title.textContent = chosen.name;
      about.textContent = chosen.summary;
      figures.hidden = true;
      save.offer(null);
    }
    const reads = store.state.models.find((model) => model.name === baseOf(store.state.model))?.reads;
    upload.use(chosen.file ? reads : null);
    for (const name of FILES) open.form.show(name, !upload.needed() || upload.optional());
    if (chosen.reason) {
      running?.abort();
      [figures.hidden, state.textContent] = [true, chosen.reason];
      return save.offer(null);
    }
    if (upload.needed()) {
      open.form.fill({ ...begun(chosen), text: "", ...options });
      if (!upload.file() && !(upload.optional() && options.text)) return;
      return run({ replace: true });
    }
    const given = Object.keys(options).length > 0;
    open.form.fill(given ? options : begun(chosen));
    if (given || (!missing() && Object.keys(begun(chosen)).every((name) => FITS_ALL.has(name)))) await run({ replace: true });
  }

  // What a view begins with: its example, about the text that was written last.
  function begun(view) {
    const text = store.state.lookText;
    const own = { ...view.example };
    if (text && "text" in own) own.text = text;
    for (const name of ["pin", "against"]) delete own[name]; // one token of the example's model, perhaps none of this one
    if ("corpus" in (view.options.properties ?? {})) own.corpus = (text || "To be, or not to be, that is the question.").split("\n");
    return own;
  }

  const missing = () => [...form.elements].find((input) => input.required && !input.value && !input.closest("[hidden]"));

  async function run({ replace = false } = {}) {
    running?.abort();
    const mine = (running = new AbortController());
    const { view } = open;
    const options = open.form.read();
    const model = store.state.model;
    const file = upload.needed() ? upload.file() : null;
    if (file) {
      const name = FILES.find((one) => one in (view.options.properties ?? {}));
      options[name] = options[name]?.includes(":") ? `${file.name}:${options[name].split(":").slice(1).join(":")}` : file.name;
    }
    state.textContent = "computing …";
    figures.setAttribute("aria-busy", "true");
    try {
      const found = await api.look(view.name, model, options, file?.data, mine.signal);
      if (typeof options.text === "string" && options.text !== view.example.text) store.set({ lookText: options.text });
      const cursor = { panel: "look", view: view.name, model, options };
      writeAddress({ ...cursor, step: at }, { replace });
      figures.replaceChildren(drawFigures(found, view.name, picked));
      draftSteps(figures, found);
      soundPlayer(figures, found, store.state.models.find(({ name }) => name === baseOf(model))?.reads === "frames" ? file?.blob : null);
      showSteps(figures, at, (step) => writeAddress({ ...cursor, step: (at = step) }, { replace: true }));
      open.form.place(found);
      figures.hidden = false;
      save.offer(view.name, (kind) => api.lookFile(view.name, model, options, file?.data, kind), figures);
      state.textContent = "";
    } catch (error) {
      if (error.name === "AbortError" || running !== mine) return;
      figures.hidden = true;
      save.offer(null);
      state.textContent = error instanceof api.Refused ? error.message : "";
      if (!(error instanceof api.Refused)) failed(error, () => run({ replace }));
    } finally {
      if (running === mine) running = null;
      figures.removeAttribute("aria-busy");
    }
  }

  // A cell or a row was clicked: its layer, head or position, where the view has such options.
  function picked(figure, row, column) {
    const links = figure.links?.[row] ?? [];
    const link = links.length === 1 ? links[0] : links[column];
    if (link) return follow(link);
    const moved = {};
    const take = (axis, label) => {
      const option = CURSOR[String(axis).toLowerCase().split(" ")[0]];
      const n = Number(/\d+/.exec(label ?? "")?.[0] ?? NaN);
      if (option && open.form.fields.includes(option) && Number.isInteger(n)) moved[option] = n;
    };
    if (figure.kind === "heat_map") take(figure.row_axis, figure.rows[row]), take(figure.column_axis, figure.columns[column]);
    if (figure.kind === "table") {
      const [layer, head] = /^(\d+)\.(\d+)$/.exec(figure.rows[row]?.[0]?.text ?? "")?.slice(1) ?? [];
      if (layer !== undefined) take("layer", layer), take("head", head);
      else take(figure.columns[0].name, figure.rows[row]?.[0]?.text);
    }
    if (!Object.keys(moved).length) return;
    open.form.fill({ ...open.form.read(), ...moved });
    run();
  }

  // Open VIEW?option=value about the same text, or ?option=value: the same view with this option.
  function follow(link) {
    const { view, options } = readAddress(`look/${link}`);
    const now = open.form.read();
    if (!view) return open.form.fill({ ...now, ...options }), run();
    const taken = Object.keys(known(view)?.options.properties ?? {});
    const shared = Object.fromEntries(["text", "target"].filter((name) => taken.includes(name) && now[name]).map((name) => [name, now[name]]));
    writeAddress({ panel: "look", view, model: store.state.model, options: { ...shared, ...options } });
    return go(readAddress());
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!open) return; // the views are still on their way
    const empty = missing();
    if (empty) return (state.textContent = `${empty.name.replaceAll("_", " ")} is missing`), empty.focus();
    if (upload.needed() && !upload.file() && !(upload.optional() && open.form.read().text)) return (state.textContent = "choose a file");
    run();
  });
  // A switch or a choice works at once, a slider while it is moved, when there is something to change.
  fields.addEventListener("change", ({ target }) => {
    if ((target instanceof HTMLSelectElement || target.type === "checkbox") && !figures.hidden && !missing()) run();
  });
  let moving = 0;
  fields.addEventListener("input", ({ target }) => {
    if (target.dataset.live === undefined || missing()) return;
    clearTimeout(moving);
    moving = setTimeout(() => run({ replace: true }), SETTLE);
  });
  store.subscribe((current, changed) => {
    if (!changed.has("model") || root.hidden || !open) return;
    if (readAddress().model === current.model) return; // an address that names the model is opened by `go`
    go({ view: open.view.name, options: open.form.read() });
  });
  return { go };
}
