// Where it reads from: the attention of every head on the text.

const LARGEST_CELL = 16; // pixels
const MAP_SIDE = 560; // of the large map, at most, where its cells do not get too small
const MOST_LABELED = 48; // tokens up to which the large map has labels
const LABEL_ROOM = 96;

const SCORES = {
  previous_token: "previous token",
  first_token: "first token",
  induction: "induction",
  entropy: "entropy",
};

let thumbnails; // see buildHeads
const readButtons = []; // tokens below the head
let key = 0; // position of the token in the chosen column

function buildAttention() {
  thumbnails = buildHeads($("heads"), L, H, chooseHead);
  listenToMap($("map"));
}

function chooseHead(layer, head) {
  state.layer = layer;
  state.head = head;
  showHead();
}

// The attention of a token to itself and those before it
function attentionRow(layer, head, query) {
  return model.blocks[layer].attention.weights(reading.cache, head, query);
}

function attentionMap(layer, head) {
  return state.tokenIds.map((_, query) => attentionRow(layer, head, query));
}

// --- scores, as in analysis/attention.py ---

function scoresOf(map, tokenIds) {
  const T = map.length;
  const later = map.slice(1);
  return {
    previous_token: mean(later.map((row, i) => row[i])),
    first_token: mean(later.map((row) => row[0])),
    induction: mean(prefixMatches(map, tokenIds)),
    entropy: map.reduce((sum, row) => sum + entropyOf(row), 0) / T,
  };
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b) / values.length : 0);

const entropyOf = (row) => -row.reduce((sum, p) => (p > 0 ? sum + p * Math.log2(p) : sum), 0);

// Of each token that occurred before: attention to what followed its earlier occurrences
function prefixMatches(map, tokenIds) {
  const found = [];
  map.forEach((row, query) => {
    const followers = [...row.keys()].filter((s) => s && tokenIds[s - 1] === tokenIds[query]);
    if (followers.length) found.push(followers.reduce((sum, s) => sum + row[s], 0));
  });
  return found;
}

// --- what changes with the text ---

function* showAttention() {
  showHead();
  const text = state.tokenIds;
  const found = [];
  for (const thumbnail of thumbnails) {
    const map = attentionMap(thumbnail.layer, thumbnail.head);
    paintMap(thumbnail.canvas, map.length, (query, key) => Math.sqrt(map[query][key]));
    found.push({ ...thumbnail, scores: scoresOf(map, text) });
    yield;
  }
  showStrongest(found);
}

const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

// Buttons that lead to the head with the highest score of each kind
function showStrongest(found) {
  const buttons = ["previous_token", "first_token", "induction"].map((name) => {
    const best = found.reduce((a, b) => (b.scores[name] > a.scores[name] ? b : a));
    const score = fixed(best.scores[name]);
    const text = `most ${SCORES[name]}: ${best.layer}.${best.head} (${score})`;
    const button = el("button", { type: "button" }, text);
    button.addEventListener("click", () => chooseHead(best.layer, best.head));
    return button;
  });
  $("strongest").replaceChildren(...buttons);
}

function showHead() {
  const { layer, head, tokenIds } = state;
  markHead(thumbnails, layer, head);
  const map = attentionMap(layer, head);
  const isOff = reading.off.has(`${layer}.${head}`) ? ", switched off" : "";
  $("head-name").textContent = `Layer ${layer}, head ${head}${isOff}`;
  const scores = scoresOf(map, tokenIds);
  const unit = (name) => (name === "entropy" ? " bits" : "");
  $("head-about").textContent = Object.entries(SCORES)
    .map(([name, title]) => `${title} ${fixed(scores[name])}${unit(name)}`)
    .join(" · ");
  key = Math.min(key, state.position);
  drawMap(map);
  showReadTokens(map);
}

// The tokens, shaded by how much the chosen one reads from them
function showReadTokens(map) {
  const { tokenIds, position } = state;
  while (readButtons.length > tokenIds.length) readButtons.pop().remove();
  tokenIds.forEach((id, t) => {
    if (t === readButtons.length) {
      const button = el("button", { type: "button" });
      button.addEventListener("click", () => choosePosition(t));
      readButtons.push(button);
      $("attention-tokens").append(button);
    }
    readButtons[t].textContent = labelOf(id);
    const shade = t <= position ? Math.sqrt(map[position][t]).toFixed(3) : 0;
    readButtons[t].style.setProperty("--shade", shade);
    readButtons[t].setAttribute("aria-pressed", t === position);
  });
  const row = [...map[position]].map((weight, s) => ({ weight, s }));
  const most = row.sort((a, b) => b.weight - a.weight).slice(0, 3);
  const listed = most.map(({ weight, s }) => `${quoted(labelOf(tokenIds[s]))} ${fixed(weight)}`);
  const cell = `${quoted(labelOf(tokenIds[key]))} (token ${key + 1}) ${fixed(map[position][key])}`;
  $("attention-readout").textContent =
    `${quoted(labelOf(tokenIds[position]))} (token ${position + 1}) reads most from ` +
    `${listed.join(", ")}. In the frame: ${cell}.`;
}

// --- the large map ---

function mapGeometry() {
  const T = state.tokenIds.length;
  const cell = Math.max(2, Math.min(LARGEST_CELL, Math.floor(MAP_SIDE / T)));
  const room = T <= MOST_LABELED ? LABEL_ROOM : 0;
  return { T, cell, room, side: T * cell + room };
}

function drawMap(map) {
  const { T, cell, room, side } = mapGeometry();
  const canvas = $("map");
  const sharp = Math.max(1, Math.ceil(window.devicePixelRatio));
  Object.assign(canvas, { width: side * sharp, height: side * sharp });
  canvas.style.width = `${side}px`;
  const context = canvas.getContext("2d");
  context.scale(sharp, sharp);
  context.fillStyle = `rgb(${MAP_COLOR.join(",")})`;
  map.forEach((row, query) =>
    row.forEach((weight, s) => {
      context.globalAlpha = 0.04 + 0.96 * Math.sqrt(weight);
      context.fillRect(room + s * cell, query * cell, cell - 0.5, cell - 0.5);
    }),
  );
  context.globalAlpha = 1;
  if (room) drawMapLabels(context, cell, room);
  context.strokeStyle = cssValue("--c1");
  context.strokeRect(room, state.position * cell, (state.position + 1) * cell, cell);
  context.lineWidth = 2;
  context.strokeRect(room + key * cell, state.position * cell, cell, cell);
}

function drawMapLabels(context, cell, room) {
  const T = state.tokenIds.length;
  context.fillStyle = cssValue("--fg");
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  state.tokenIds.forEach((id, t) => {
    const label = [...labelOf(id)].slice(0, 13).join("");
    const center = (t + 0.5) * cell;
    context.fillText(label, room - 4, center, room - 4);
    context.save();
    context.translate(room + center, T * cell + 4);
    context.rotate(-Math.PI / 2);
    context.fillText(label, 0, 0, room - 4);
    context.restore();
  });
}

function listenToMap(canvas) {
  const choose = (event) => {
    const { T, cell, room } = mapGeometry();
    const query = Math.floor(event.offsetY / cell);
    const column = Math.floor((event.offsetX - room) / cell);
    if (query < T && column >= 0 && column <= query) chooseCell(query, column);
  };
  canvas.addEventListener("pointermove", choose);
  canvas.addEventListener("click", choose);
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    chooseCell(state.position + move[0], key + move[1]);
    event.preventDefault();
  });
}

function chooseCell(query, column) {
  if (query < 0 || query >= state.tokenIds.length || column < 0) return;
  if (query === state.position && column === key) return;
  key = Math.min(column, query);
  if (query === state.position) showHead();
  else choosePosition(query);
}
