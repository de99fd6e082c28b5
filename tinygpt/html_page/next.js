// What comes next: the likeliest tokens, what sampling leaves of them, and generation.

const MOST_BARS = 20;
const SHOWN_EVERY = 60; // milliseconds, while text is generated

const CONTROLS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, accepts: (x) => x >= 0 && x <= 100 },
  { name: "top_k", min: 1, step: 1, off: "", accepts: (x) => Number.isInteger(x) && x >= 1 },
  { name: "top_p", min: 0.05, max: 1, step: 0.05, off: 1, accepts: (x) => x > 0 && x <= 1 },
  { name: "min_p", min: 0, max: 1, step: 0.01, off: 0, accepts: (x) => x > 0 && x <= 1 },
  { name: "seed", min: 0, step: 1, accepts: (x) => Number.isSafeInteger(x) && x >= 0 },
];

let generating = null; // the generation that is running, { isStopped }
let textBefore = null; // token ids before the last generation

function buildNext() {
  $("next-help").textContent =
    "The outline is the model's own probability. The filled part is what sampling leaves of it: " +
    "the temperature first, then top-k, top-p and min-p, each on what the one before it left. " +
    "Choose a token to append it.";
  $("controls").append(...CONTROLS.map(controlFor));
  const count = el("input", { id: "count", type: "number", min: 1, max: CONTEXT, value: 100 });
  $("controls").append(el("label", {}, "tokens", count));
  $("generate").addEventListener("click", generate);
  $("stop").addEventListener("click", () => (generating.isStopped = true));
  $("undo").addEventListener("click", () => changeText(textBefore));
}

function controlFor({ name, off, accepts, ...limits }) {
  const type = limits.max === undefined ? "number" : "range";
  const input = el("input", { id: name, type, ...limits });
  const value = el("output", { id: `${name}-value`, for: name });
  input.addEventListener("input", () => {
    const number = Number(input.value);
    const isOff = off !== undefined && (input.value === "" || number === off);
    if (isOff) state.settings[name] = null;
    else if (input.value !== "" && accepts(number)) state.settings[name] = number;
    showControls();
    showNext();
    writeAddress();
    if (state.view === "training") VIEWS.training.show();
  });
  return el("label", {}, name.replace("_", "-"), input, value);
}

// Inputs that the user is typing in stay as they are
function showControls() {
  for (const { name, off } of CONTROLS) {
    const value = state.settings[name];
    const input = $(name);
    if (input !== document.activeElement) input.value = value === null ? off : value;
    const isShown = input.type === "number" && value !== null;
    $(`${name}-value`).textContent = isShown ? "" : value === null ? "off" : String(value);
  }
}

function showNext() {
  const { tokenIds, position, settings } = state;
  const logits = reading.logits(position);
  const probabilities = softmax(logits);
  const left = filtered(logits, settings);
  const chance = new Map();
  left.tokenIds.forEach((id, i) => chance.set(id, left.probabilities[i]));
  const shown = ranked(probabilities, MOST_BARS);
  const most = [...shown].reduce((a, id) => Math.max(a, probabilities[id], chance.get(id) || 0), 0);
  const rows = [...shown].map((id) => {
    const outline = probabilities[id];
    return tokenBar(id, outline, chance.get(id) || 0, most, () => append(id));
  });
  $("bars").replaceChildren(...rows);

  const isLast = position === tokenIds.length - 1;
  const kept = `${whole(left.tokenIds.length)} of ${whole(logits.length)} tokens can be drawn.`;
  const actual = isLast ? "" : ` In your text ${quoted(labelOf(tokenIds[position + 1]))} follows.`;
  $("next-about").textContent = `After ${quoted(labelOf(tokenIds[position]))}: ${kept}${actual}`;
  $("generate").textContent = isLast ? "Generate" : "Generate again from here";
  $("generate").disabled = position + 1 >= CONTEXT;
}

// A row of the bars: the outline is one probability, the filled part another; `most` fills a row
function tokenBar(id, outline, filled, most, choose) {
  const width = (value) => `width:${(100 * value) / most}%`;
  const name = el("button", { type: "button", class: "token" }, labelOf(id));
  name.addEventListener("click", choose);
  const track = el("span", { class: "track", "aria-hidden": "true" });
  track.append(el("i", { class: "filled", style: width(filled) }));
  track.append(el("i", { class: "outline", style: width(outline) }));
  const numbers = el("span", { class: "numbers" }, percent(outline));
  if (filled !== outline) numbers.append(" → ", el("b", {}, filled ? percent(filled) : "0"));
  return el("div", { class: "token-bar" }, name, track, numbers);
}

// Put a token behind the chosen one; what stood there is replaced
function append(id) {
  const before = state.tokenIds.slice(0, state.position + 1);
  if (before.length < CONTEXT) changeText([...before, id]);
}

async function generate() {
  stopShowing();
  const me = { isStopped: false };
  generating = me;
  const start = state.tokenIds.slice(0, state.position + 1);
  textBefore = state.tokenIds;
  const most = Math.max(1, Math.floor(Number($("count").value)) || 1);
  const text = [...start];
  setGenerating(true);
  $("page").setAttribute("aria-busy", "true");
  let shownAt = performance.now();
  const began = shownAt;
  for (const id of generateTokens(reading, start, state.settings, most)) {
    if (id === undefined) continue; // a part of the text was read
    text.push(id);
    if (performance.now() - shownAt < SHOWN_EVERY) continue;
    showGenerated(text);
    await nextTurn();
    if (generating !== me) return; // the user changed the text meanwhile
    if (me.isStopped) break;
    shownAt = performance.now();
  }
  const seconds = (performance.now() - began) / 1000;
  const count = text.length - start.length;
  const shown = changeText(text.slice(0, CONTEXT));
  // A browser's clock may not have moved during a few tokens
  const rate = seconds > 0 ? ` ${whole(count / seconds)} tokens/s.` : "";
  $("generated").textContent = ending(text, count, most) + rate;
  await shown;
}

function setGenerating(isOn) {
  $("stop").disabled = !isOn;
  $("undo").disabled = isOn || textBefore === null;
  $("generate").disabled = isOn;
}

function showGenerated(text) {
  state.tokenIds = text.slice(0, CONTEXT);
  state.position = state.tokenIds.length - 1;
  $("prompt").value = tokenizer.decode(text);
  showTokens();
}

function ending(text, count, most) {
  const tokens = `${whole(count)} ${count === 1 ? "token" : "tokens"}`;
  if (text.at(-1) === END_OF_TEXT) return `${tokens}; the model ended the text.`;
  if (text.length > CONTEXT) return `${tokens}; the context is full.`;
  return count === most ? `${tokens}.` : `${tokens}, stopped.`;
}
