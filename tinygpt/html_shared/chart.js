// Line charts over steps or indices, read by pointer or arrow keys.
//
// What a chart shows is an object with these properties; all but the first three are optional:
//   title, xLabel   texts
//   lines           [{ name, x, y, color, dash, opacity }], x and y arrays
//   levels          horizontal lines, [{ name, y }]
//   mark            a star at { x, y }
//   height          in pixels
//   zero            whether y begins at 0
//   logX, logY      whether the axis is logarithmic
//   read            a function that writes a y value

const MARGIN = { left: 46, right: 12, top: 8, bottom: 34 };
const NARROWEST = 260; // pixels
const LEVEL_TEXT_HEIGHT = 14;
const MOST_READ = 8; // lines whose values fit below a chart
const DASHES = ["none", "7 3", "2 2", "9 3 2 3"];

// Add a chart to a figure. `describe` returns what it shows now; call the result to redraw.
function chart(figure, describe) {
  const caption = el("figcaption");
  const legend = el("div", { class: "legend" });
  const box = el("div");
  const readout = el("output", { "aria-live": "polite" });
  figure.append(caption, legend, box, readout);
  let position = null; // which of the x values is read
  let drawnWidth = 0;

  function draw() {
    const spec = describe();
    drawnWidth = box.clientWidth;
    const frame = makeFrame(spec, Math.max(NARROWEST, drawnWidth));
    caption.textContent = spec.title;
    legend.replaceChildren(...legendEntries(spec.lines));
    const cursor = drawCursor(frame);
    const picture = drawPicture(spec, frame);
    picture.append(cursor);

    const xs = [...new Set(spec.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    function read(index) {
      position = Math.max(0, Math.min(xs.length - 1, index));
      const x = xs[position];
      setAttributes(cursor, { x1: frame.x(x), x2: frame.x(x), visibility: "visible" });
      readout.textContent = valuesAt(spec, x);
    }
    listen(picture, {
      point: (x) => read(nearest(xs.map(frame.x), x * frame.width)),
      move: (by) => read(position === null ? 0 : position + by),
    });

    const wasFocused = box.firstChild !== null && box.firstChild === document.activeElement;
    box.replaceChildren(picture);
    if (wasFocused) picture.focus();
    if (position !== null) read(position);
  }

  const redrawIfResized = () => {
    if (box.clientWidth !== drawnWidth) draw();
  };
  new ResizeObserver(redrawIfResized).observe(box);
  draw();
  return draw;
}

// Call point(x) with the place of the pointer, 0 to 1, and move(1 or -1) for arrow keys
function listen(picture, { point, move }) {
  picture.addEventListener("pointermove", (event) => {
    const rectangle = picture.getBoundingClientRect();
    point((event.clientX - rectangle.left) / rectangle.width);
  });
  picture.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by === undefined) return;
    move(by);
    event.preventDefault();
  });
}

function nearest(values, wanted) {
  let best = 0;
  for (let i = 1; i < values.length; i++)
    if (Math.abs(values[i] - wanted) < Math.abs(values[best] - wanted)) best = i;
  return best;
}

function valuesAt(spec, x) {
  const write = spec.read || ((y) => String(Number(y.toPrecision(4))));
  const values = spec.lines
    .slice(0, MOST_READ)
    .map((line) => `${line.name} ${write(line.y[nearest(line.x, x)])}`);
  return `${spec.xLabel} ${whole(x)}: ${values.join(" · ")}`;
}

// The size of a chart, its ranges, and where a value lies in it
function makeFrame(spec, width) {
  const height = spec.height || 230;
  const rangeX = xRange(spec);
  const rangeY = yRange(spec);
  const x = scale(rangeX, [MARGIN.left, width - MARGIN.right], spec.logX);
  const y = scale(rangeY, [height - MARGIN.bottom, MARGIN.top], spec.logY);
  return { width, height, rangeX, rangeY, x, y };
}

function scale([low, high], [from, to], log) {
  const f = log ? Math.log : (value) => value;
  return (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from);
}

function xRange(spec) {
  const [low, high] = extremes(spec.lines.flatMap((line) => line.x));
  if (spec.logX && high / low < 1.01) return [low / 2, high * 2];
  if (low === high) return [low - 1, high + 1];
  return [low, high];
}

function yRange(spec) {
  const levels = (spec.levels || []).map((level) => level.y);
  const [lowest, highest] = extremes([...spec.lines.flatMap((line) => line.y), ...levels]);
  const low = spec.zero ? 0 : lowest;
  const flat = highest - low < 1e-12;
  if (spec.logY) return flat ? [low / 2, highest * 2] : [low, highest];
  const bottom = flat && !spec.zero ? low - 0.5 : low;
  const top = flat ? highest + 0.5 : highest;
  return [bottom, top + 0.04 * (top - bottom)];
}

function extremes(values) {
  if (!values.length) return [0, 0];
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  return [low, high];
}

// About `most` round numbers between low and high
function ticks([low, high], log, most) {
  return log ? logTicks(low, high, most) : linearTicks(low, high, most);
}

function logTicks(low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const stride = Math.max(1, Math.ceil((last - first) / most));
  const powers = [];
  for (let exponent = first; exponent <= last; exponent += stride) powers.push(10 ** exponent);
  if (powers.length > 2) return powers;
  const found = new Set(); // a short axis needs numbers between the powers
  for (const exponent of [first - 1, first, last])
    for (const factor of [1, 2, 5]) found.add(factor * 10 ** exponent);
  return [...found].filter((tick) => tick >= low && tick <= high);
}

function linearTicks(low, high, most) {
  const rough = (high - low || 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const stride = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / stride - 1e-9); i * stride <= high + stride * 1e-9; i++)
    found.push(i * stride);
  return found;
}

function drawPicture(spec, frame) {
  const picture = svg("svg", {
    viewBox: `0 0 ${frame.width} ${frame.height}`,
    height: frame.height,
    role: "img",
    tabindex: 0,
    "aria-label": `${spec.title}; arrow keys read values`,
  });
  picture.append(...drawAxes(spec, frame), ...drawLevels(spec.levels || [], frame));
  for (const line of spec.lines) picture.append(...drawLine(line, frame));
  if (spec.mark) {
    const place = { x: frame.x(spec.mark.x), y: frame.y(spec.mark.y) + 6 };
    picture.append(svg("text", { class: "mark", "text-anchor": "middle", ...place }, "★"));
  }
  return picture;
}

function drawAxes(spec, frame) {
  const drawn = [];
  for (const tick of ticks(frame.rangeY, spec.logY, 5)) {
    const y = frame.y(tick);
    const label = { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" };
    drawn.push(drawHorizontal("axis", y, frame), svg("text", label, short(tick)));
  }
  const below = frame.height - MARGIN.bottom + 16;
  for (const tick of ticks(frame.rangeX, spec.logX, Math.max(2, Math.floor(frame.width / 75)))) {
    const label = { x: frame.x(tick), y: below, "text-anchor": "middle" };
    drawn.push(svg("text", label, short(tick)));
  }
  const center = (frame.width + MARGIN.left) / 2;
  const title = { x: center, y: frame.height - 3, "text-anchor": "middle" };
  drawn.push(svg("text", title, spec.xLabel));
  return drawn;
}

function drawHorizontal(kind, y, frame) {
  const right = frame.width - MARGIN.right;
  return svg("line", { class: kind, x1: MARGIN.left, x2: right, y1: y, y2: y });
}

// Horizontal lines with their names; those that would overlap share a line of text
function drawLevels(levels, frame) {
  const drawn = [];
  const labels = [];
  for (const level of [...levels].sort((a, b) => b.y - a.y)) {
    const y = frame.y(level.y);
    drawn.push(drawHorizontal("base", y, frame));
    const above = labels.at(-1);
    if (above && y - above.y < LEVEL_TEXT_HEIGHT) above.names.push(level.name);
    else labels.push({ y, names: [level.name] });
  }
  for (const { y, names } of labels) {
    const place = { x: frame.width - MARGIN.right, y: y - 3, "text-anchor": "end" };
    drawn.push(svg("text", place, names.join(", ")));
  }
  return drawn;
}

function drawLine(line, frame) {
  const points = line.x.map((x, i) => [frame.x(x).toFixed(1), frame.y(line.y[i]).toFixed(1)]);
  const curve = svg("polyline", {
    class: "curve",
    style: lineStyle(line),
    points: points.map((point) => point.join(",")).join(" "),
  });
  if (points.length >= 30) return [curve];
  const style = `fill:${line.color};opacity:${line.opacity || 1}`;
  return [curve, ...points.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5, style }))];
}

function drawCursor(frame) {
  const bottom = frame.height - MARGIN.bottom;
  return svg("line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
}

function legendEntries(lines) {
  if (lines.length < 2) return [];
  return lines.map((line) => {
    const ends = { x1: 0, x2: 32, y1: 6, y2: 6 };
    const stroke = svg("line", { class: "curve", style: lineStyle(line), ...ends });
    return el("span", {}, svg("svg", { viewBox: "0 0 32 12" }, stroke), line.name);
  });
}

function lineStyle({ color, dash = "none", opacity = 1 }) {
  return `stroke:${color};stroke-dasharray:${dash};opacity:${opacity}`;
}

// Lines for several layers: from faint to strong, dashes in turn
function layerLines(lines) {
  return lines.map((line, i) => ({
    ...line,
    color: "var(--fg)",
    dash: DASHES[i % DASHES.length],
    opacity: 0.3 + (0.7 * (i + 1)) / lines.length,
  }));
}
