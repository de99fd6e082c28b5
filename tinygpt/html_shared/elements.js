"use strict";
// Elements, tables, sliders, and numbers as text.

const $ = (id) => document.getElementById(id);

// An HTML element; children that are strings become text, never elements
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// An element of a vector picture
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  setAttributes(node, attributes);
  node.append(...children);
  return node;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

// Head and body of a table; a row is { own, cells }, and own rows are emphasized
function table(titles, rows) {
  const header = el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)));
  const body = rows.map(({ own, cells }) =>
    el("tr", own ? { class: "own" } : {}, ...cells.map(tableCell)),
  );
  return [el("thead", {}, header), el("tbody", {}, ...body)];
}

function tableCell(content) {
  return content instanceof HTMLTableCellElement ? content : el("td", {}, content);
}

// The body of a table of names and values
function nameValueRows(entries) {
  const rows = entries.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)),
  );
  return el("tbody", {}, ...rows);
}

// Let a slider choose among `count` things, and show the last one
function startSlider(input, count, show) {
  input.max = count - 1;
  input.value = count - 1;
  input.disabled = count < 2;
  input.addEventListener("input", () => show(Number(input.value)));
  show(count - 1);
}

function fixed(x, digits = 2) {
  if (x === null) return "–";
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return x.toLocaleString("en", options);
}

const whole = (x) => fixed(x, 0);
const signed = (x, digits) => (x < 0 ? "−" : "+") + fixed(Math.abs(x), digits);
const quoted = (text) => `“${text}”`;

// At most three digits for the tick labels of an axis, e.g., 12.5 k
function short(x) {
  const digits = (value) => String(Number(value.toPrecision(3)));
  if (Math.abs(x) >= 1e6) return `${digits(x / 1e6)} M`;
  if (Math.abs(x) >= 1e4) return `${digits(x / 1e3)} k`;
  return digits(x);
}
