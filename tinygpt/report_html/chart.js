"use strict";
const $ = (id) => document.getElementById(id);
const make =
  (space) =>
  (tag, attributes = {}, ...children) => {
    const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children); // texts stay texts
    return node;
  };
const el = make(null),
  vector = make("http://www.w3.org/2000/svg");
const say = (x, digits = 2) =>
  x === null ? "–" : x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const signed = (x, digits) => (x < 0 ? "−" : "+") + say(Math.abs(x), digits);

// --- charts: lines over a step or index, read by pointer or arrow keys ---
function ticks(low, high, log, room) {
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9),
      last = Math.floor(Math.log10(high) + 1e-9),
      by = Math.max(1, Math.ceil((last - first) / room));
    const found = [];
    for (let e = first; e <= last; e += by) found.push(10 ** e);
    if (found.length > 2) return found;
    return [1, 2, 5]
      .flatMap((f) => [first - 1, first, last].map((e) => f * 10 ** e))
      .filter((x, i, all) => x >= low && x <= high && all.indexOf(x) === i);
  }
  const rough = (high - low || 1) / room,
    size = 10 ** Math.floor(Math.log10(rough)),
    by = [1, 2, 5, 10].find((f) => f * size >= rough) * size;
  const found = [];
  for (let i = Math.ceil(low / by - 1e-9); i * by <= high + by * 1e-9; i++) found.push(i * by);
  return found;
}
const short = (x) =>
  Math.abs(x) >= 1e6
    ? `${+(x / 1e6).toPrecision(3)} M`
    : Math.abs(x) >= 1e4
      ? `${+(x / 1e3).toPrecision(3)} k`
      : `${+x.toPrecision(3)}`;
function chart(host, describe) {
  const legend = el("div", { class: "legend" }),
    box = el("div"),
    readout = el("output", { "aria-live": "polite" }),
    caption = el("figcaption");
  host.append(caption, legend, box, readout);
  let at = null,
    drawnWidth = 0;
  function draw() {
    const c = describe(),
      W = Math.max(260, box.clientWidth),
      HEIGHT = c.height || 230,
      m = { l: 46, r: 12, t: 8, b: 34 };
    drawnWidth = box.clientWidth;
    caption.textContent = c.title;
    legend.replaceChildren(
      ...(c.lines.length > 1 ? c.lines : []).map((s) =>
        el(
          "span",
          {},
          vector(
            "svg",
            { viewBox: "0 0 32 12" },
            vector("line", { x1: 0, x2: 32, y1: 6, y2: 6, class: "curve", style: style(s) }),
          ),
          s.name,
        ),
      ),
    );
    const all = c.lines.flatMap((s) => s.y).concat((c.levels || []).map((level) => level.y)),
      xs = c.lines.flatMap((s) => s.x);
    let [x0, x1, y0, y1] = [
      Math.min(...ends(xs, -1)),
      Math.max(...ends(xs, 1)),
      Math.min(...ends(all, -1)),
      Math.max(...ends(all, 1)),
    ];
    if (c.zero) y0 = 0;
    if (c.logX && x1 / x0 < 1.01) {
      x0 /= 2;
      x1 *= 2;
    }
    if (x1 === x0) {
      x0 -= 1;
      x1 += 1;
    }
    if (y1 - y0 < 1e-12) {
      y1 += c.logY ? y1 : 0.5;
      y0 = c.logY ? y0 / 2 : y0 - (c.zero ? 0 : 0.5);
    }
    if (!c.logY) y1 += 0.04 * (y1 - y0);
    const scale = (low, high, from, to, log) => {
      const f = log ? Math.log : (v) => v;
      return (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
    };
    const X = scale(x0, x1, m.l, W - m.r, c.logX),
      Y = scale(y0, y1, HEIGHT - m.b, m.t, c.logY);
    const s = vector("svg", {
      viewBox: `0 0 ${W} ${HEIGHT}`,
      height: HEIGHT,
      role: "img",
      tabindex: 0,
      "aria-label": `${c.title}; arrow keys read values`,
    });
    for (const y of ticks(y0, y1, c.logY, 5))
      s.append(
        vector("line", { class: "axis", x1: m.l, x2: W - m.r, y1: Y(y), y2: Y(y) }),
        vector("text", { x: m.l - 6, y: Y(y) + 4, "text-anchor": "end" }, short(y)),
      );
    for (const x of ticks(x0, x1, c.logX, Math.max(2, Math.floor(W / 75))))
      s.append(vector("text", { x: X(x), y: HEIGHT - m.b + 16, "text-anchor": "middle" }, short(x)));
    s.append(vector("text", { x: (W + m.l) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, c.xLabel));
    const groups = []; // names of levels too close for two lines of text share one
    for (const level of [...(c.levels || [])].sort((a, b) => b.y - a.y)) {
      s.append(vector("line", { class: "base", x1: m.l, x2: W - m.r, y1: Y(level.y), y2: Y(level.y) }));
      const last = groups.at(-1);
      if (last && Y(level.y) - last.y < 14) last.names.push(level.name);
      else groups.push({ y: Y(level.y), names: [level.name] });
    }
    for (const { y, names } of groups) s.append(vector("text", { x: W - m.r, y: y - 3, "text-anchor": "end" }, names.join(", ")));
    for (const line of c.lines) {
      s.append(
        vector("polyline", {
          class: "curve",
          style: style(line),
          points: line.x.map((x, i) => `${X(x).toFixed(1)},${Y(line.y[i]).toFixed(1)}`).join(" "),
        }),
      );
      if (line.x.length < 30)
        for (let i = 0; i < line.x.length; i++)
          s.append(
            vector("circle", {
              cx: X(line.x[i]),
              cy: Y(line.y[i]),
              r: 2.5,
              style: `fill:${line.colour};opacity:${line.opacity || 1}`,
            }),
          );
    }
    if (c.mark)
      s.append(
        vector(
          "text",
          { x: X(c.mark.x), y: Y(c.mark.y) + 6, "text-anchor": "middle", style: "font-size:18px;fill:var(--c2)" },
          "★",
        ),
      );
    const cursor = vector("line", { class: "cursor", y1: m.t, y2: HEIGHT - m.b, visibility: "hidden" });
    s.append(cursor);
    const places = [...new Set(c.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const read = (index) => {
      at = Math.max(0, Math.min(places.length - 1, index));
      const x = places[at];
      cursor.setAttribute("x1", X(x));
      cursor.setAttribute("x2", X(x));
      cursor.setAttribute("visibility", "visible");
      const values = c.lines.map((line) => [line.name, line.y[nearest(line.x, x)]]).slice(0, 8);
      readout.textContent =
        `${c.xLabel} ${say(x, 0)}: ` + values.map(([name, y]) => `${name} ${c.read ? c.read(y) : +y.toPrecision(4)}`).join(" · ");
    };
    s.addEventListener("pointermove", (event) => {
      const r = s.getBoundingClientRect(),
        px = ((event.clientX - r.left) * W) / r.width;
      read(places.reduce((best, x, i) => (Math.abs(X(x) - px) < Math.abs(X(places[best]) - px) ? i : best), 0));
    });
    s.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) {
        read((at === null ? -by : at) + by);
        event.preventDefault();
      }
    });
    const focused = box.firstChild === document.activeElement && box.firstChild;
    box.replaceChildren(s);
    if (focused) s.focus();
    if (at !== null) read(at);
  }
  new ResizeObserver(() => {
    if (box.clientWidth !== drawnWidth) draw();
  }).observe(box);
  draw();
  return draw;
}
const style = (line) => `stroke:${line.colour};stroke-dasharray:${line.dash || "none"};opacity:${line.opacity || 1}`;
const ends = (values, sign) => (values.length ? [values.reduce((a, b) => (sign * b > sign * a ? b : a))] : [0]);
const nearest = (values, x) => values.reduce((best, v, i) => (Math.abs(v - x) < Math.abs(values[best] - x) ? i : best), 0);
const DASHES = ["none", "7 3", "2 2", "9 3 2 3"];
const byLayer = (count, lines) =>
  Array.from({ length: count }, (_, i) => ({
    ...lines(i),
    colour: "var(--fg)",
    dash: DASHES[i % 4],
    opacity: 0.3 + (0.7 * (i + 1)) / count,
  }));
