// A form made from the JSON schema of a view's options.

import { element } from "./numbers.js";

const LONG = new Set(["text", "target"]); // texts that get a field of several lines
const CURSOR = new Set(["layer", "head", "position", "keys_as_rows"]); // always in view

// The fields of a schema: `element`, `fill(options)` and `read()`, which leaves out what is empty or the default.
export function optionsForm(schema) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) => fieldOf(name, property, required.has(name)));
  const [first, later] = [true, false].map((always) => fields.filter(({ name }) => (required.has(name) || CURSOR.has(name) || schema.properties[name].slider > 0 || name === "size") === always));
  const rows = (some) => element("div", { class: "options" }, ...some.map((field) => field.row));
  const more = element("details", { class: "more-options" }, element("summary", {}, "more options"), rows(later));
  return {
    element: element("div", {}, rows(first), later.length ? more : ""),
    fields: fields.map((field) => field.name),
    // Move the sliders of empty fields to the numbers of the rows of a table that have their names.
    place(figures) {
      const rows = figures.filter((figure) => figure.kind === "table").flatMap((figure) => figure.rows);
      for (const field of fields.filter((one) => one.place && one.read() === undefined)) {
        const value = rows.find((row) => row[0].text === field.name)?.[1]?.value;
        if (value !== undefined) field.place(value);
      }
    },
    show(name, visible) {
      const field = fields.find((one) => one.name === name);
      if (field) field.row.hidden = !visible;
    },
    fill(options) {
      for (const field of fields) field.write(options[field.name]);
      if (later.some((field) => field.read() !== undefined)) more.open = true;
    },
    read() {
      const found = fields.map((field) => [field.name, field.read()]);
      return Object.fromEntries(found.filter(([, value]) => value !== undefined));
    },
  };
}

// The one type of a property: {type, enum, items}; null, which means that it may be left out, and others aside.
function typeOf(property) {
  const kinds = (property.anyOf ?? [property]).filter((kind) => kind.type !== "null");
  const chosen = kinds.find((kind) => kind.enum || kind.const) ?? kinds.find((kind) => kind.type === "array") ?? kinds[0];
  return { ...chosen, type: kinds.some((kind) => kind.type === "string" && !kind.enum) && chosen.type !== "array" ? "string" : chosen.type };
}

function fieldOf(name, property, required) {
  const type = typeOf(property);
  const id = `option-${name}`;
  const words = name.replaceAll("_", " ");
  const about = property.description ? element("span", { class: "about", id: `${id}-about` }, property.description) : "";
  const common = { id, name, "aria-describedby": about ? `${id}-about` : undefined, required };
  const [input, write, read] = inputOf(type, property, name, common);
  const row = element("div", { class: `option ${type.type}${LONG.has(name) || type.type === "array" ? " wide" : ""}` });
  row.append(element("label", { for: id }, words), input, about);
  if (!property.slider) return { name, row, write, read };
  const slider = sliderOf(input, property.slider, words);
  input.after(slider);
  const place = (value) => ((slider.value = String(value)), (input.placeholder = String(value)));
  return { name, row, write: (value) => (write(value), input.value && (slider.value = input.value)), read, place };
}

// A slider beside a number. It is moved to the number that counts while the field is empty (`place`).
function sliderOf(input, step, words) {
  const slider = element("input", { type: "range", min: input.min, max: input.max, step, "aria-label": `${words}, slider`, "data-live": true });
  slider.addEventListener("input", () => (input.value = slider.value));
  input.addEventListener("input", () => input.value && (slider.value = input.value));
  return slider;
}

function inputOf(type, property, name, common) {
  const fallback = property.default ?? null;
  if (type.enum) {
    const open = fallback === null && !common.required; // something else decides
    const choices = [...(open ? [["", "default"]] : []), ...type.enum.map((value) => [value, String(value)])];
    const input = element("select", common, ...choices.map(([value, words]) => element("option", { value }, words)));
    const write = (value) => (input.value = value ?? fallback ?? choices[0][0]);
    return [input, write, () => (input.value === fallback || input.value === "" ? undefined : input.value)];
  }
  if (type.type === "boolean") {
    const input = element("input", { ...common, required: undefined, type: "checkbox" });
    const write = (value) => (input.checked = value === undefined ? fallback === true : value === true || value === "true");
    return [input, write, () => (input.checked === (fallback === true) ? undefined : input.checked)];
  }
  if (type.type === "array") {
    const input = element("textarea", { ...common, rows: 3, spellcheck: "false", placeholder: "one a line" });
    const write = (value) => (input.value = (value ?? fallback ?? []).map(String).join("\n"));
    const lines = () => input.value.split("\n").filter((line) => line.trim());
    const numbers = ["number", "integer"].includes(type.items?.type);
    return [input, write, () => (lines().length ? lines().map((line) => (numbers ? Number(line) : line)) : undefined)];
  }
  if (type.type === "integer" || type.type === "number") {
    const range = { min: type.minimum ?? property.minimum, max: type.maximum ?? property.maximum };
    const step = type.type === "integer" ? 1 : "any";
    const placeholder = fallback === null ? "default" : undefined;
    const input = element("input", { ...common, type: "number", step, placeholder, ...range });
    const write = (value) => (input.value = value ?? fallback ?? "");
    return [input, write, () => (input.value === "" || Number(input.value) === fallback ? undefined : Number(input.value))];
  }
  const input = LONG.has(name) ? element("textarea", { ...common, rows: 2, spellcheck: "false" }) : element("input", { ...common, type: "text", autocomplete: "off", spellcheck: "false" });
  const write = (value) => (input.value = value ?? fallback ?? "");
  return [input, write, () => (input.value === "" || input.value === fallback ? undefined : input.value)];
}
