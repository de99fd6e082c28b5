// Attention of every head and loss of every token, at the chosen training step.

const { labels, snapshots, ablation } = report;
const T = labels.length;
const L = snapshots[0].scores.entropy.length;
const H = snapshots[0].scores.entropy[0].length;
const WEIGHTS_PER_MAP = (T * (T + 1)) / 2; // a key token is never later than its query token

const CELL = 12; // side of a cell of the large map
const LABEL_ROOM = 104; // left of the large map and below it
const MAP_SIDE = T * CELL;
const MAP_WIDTH = MAP_SIDE + LABEL_ROOM + 4;
const MAP_CENTER = MAP_SIDE / 2;

const SCORES = {
  entropy: "entropy [bits]",
  previous_token: "previous token",
  first_token: "first token",
  induction: "induction",
};

const chosen = {
  snapshot: snapshots.length - 1,
  ...mostImportantHead(),
  query: T - 1, // position of the token
  key: T - 1,
  lossOf: Math.min(1, T - 1), // position of the token whose loss is shown
};

let thumbnails; // see buildHeads
const cells = []; // of the large map, row by row
const attentionTokens = []; // buttons
const lossTokens = [];
let rowFrame; // around the row of the query token
let cellFrame; // around the chosen cell

function mostImportantHead() {
  if (!ablation) return { layer: 0, head: 0 };
  const increases = ablation.loss_increase.flat();
  const index = increases.indexOf(Math.max(...increases));
  return { layer: Math.floor(index / H), head: index % H };
}

// Attention maps come as the bytes of square roots, those of all heads one after the other
function unpackMaps() {
  for (const snapshot of snapshots)
    snapshot.maps = Uint8Array.from(atob(snapshot.maps), (byte) => byte.charCodeAt(0));
}

function rootOfWeight(query, key, layer = chosen.layer, head = chosen.head) {
  const map = (layer * H + head) * WEIGHTS_PER_MAP;
  return snapshots[chosen.snapshot].maps[map + (query * (query + 1)) / 2 + key] / 255;
}

const weight = (query, key) => rootOfWeight(query, key) ** 2;

// --- what is drawn once ---

function buildAttention() {
  unpackMaps();
  thumbnails = buildHeads($("heads"), L, H, chooseHead);
  buildMap();
  buildTokens($("attention-tokens"), attentionTokens, (i) => chooseCell(i, i));
  buildTokens($("loss-tokens"), lossTokens, chooseLoss);
}

function buildMap() {
  const map = svg("svg", {
    viewBox: `0 0 ${MAP_WIDTH} ${MAP_WIDTH}`,
    tabindex: 0,
    role: "img",
    "aria-label": "attention of the chosen head; arrow keys move from cell to cell",
  });
  for (let query = 0; query < T; query++)
    for (let key = 0; key <= query; key++) {
      const place = { x: LABEL_ROOM + key * CELL, y: query * CELL };
      cells.push(svg("rect", { class: "cell", width: CELL, height: CELL, ...place }));
    }
  rowFrame = svg("rect", { class: "row-frame", x: LABEL_ROOM, height: CELL });
  cellFrame = svg("rect", { class: "cell-frame", width: CELL, height: CELL });
  map.append(...cells, ...mapLabels(), ...mapTitles(), mapOutline(), rowFrame, cellFrame);
  listenToMap(map);
  $("map").append(map);
}

function mapLabels() {
  return labels.flatMap((label, i) => {
    const left = { x: LABEL_ROOM - 4, y: i * CELL + 9.5, "text-anchor": "end" };
    const turned = `translate(${LABEL_ROOM + i * CELL + 9.5} ${MAP_SIDE + 4}) rotate(-90)`;
    const below = { transform: turned, "text-anchor": "end" };
    return [svg("text", left, label), svg("text", below, label)];
  });
}

function mapTitles() {
  const turned = `translate(12 ${MAP_CENTER}) rotate(-90)`;
  const below = { x: LABEL_ROOM + MAP_CENTER, y: MAP_WIDTH - 4, "text-anchor": "middle" };
  return [
    svg("text", { transform: turned, "text-anchor": "middle" }, "query token"),
    svg("text", below, "key token"),
  ];
}

function mapOutline() {
  const corners = [];
  for (let i = 0; i < T; i++) {
    corners.push([LABEL_ROOM + i * CELL, i * CELL]);
    corners.push([LABEL_ROOM + (i + 1) * CELL, i * CELL]);
  }
  corners.push([LABEL_ROOM + MAP_SIDE, MAP_SIDE], [LABEL_ROOM, MAP_SIDE], [LABEL_ROOM, 0]);
  const points = corners.map((corner) => corner.join(",")).join(" ");
  return svg("polyline", { class: "outline", points });
}

function listenToMap(map) {
  map.addEventListener("pointermove", (event) => {
    const rectangle = map.getBoundingClientRect();
    const scale = MAP_WIDTH / rectangle.width;
    const query = Math.floor(((event.clientY - rectangle.top) * scale) / CELL);
    const key = Math.floor(((event.clientX - rectangle.left) * scale - LABEL_ROOM) / CELL);
    if (key <= query) chooseCell(query, key);
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  map.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    chooseCell(chosen.query + move[0], chosen.key + move[1]);
    event.preventDefault();
  });
}

function buildTokens(host, buttons, choose) {
  labels.forEach((label, i) => {
    const button = el("button", { type: "button" }, label);
    for (const kind of ["pointerenter", "focus", "click"])
      button.addEventListener(kind, () => choose(i));
    buttons.push(button);
    host.append(button, "\u200b"); // lines may break between tokens
  });
}

// --- what the user chooses ---

function chooseHead(layer, head) {
  chosen.layer = layer;
  chosen.head = head;
  showAttention();
  drawHistories();
}

function chooseCell(query, key) {
  if (query < 0 || query >= T || key < 0) return;
  chosen.query = query;
  chosen.key = Math.min(key, query);
  showCell();
}

function chooseLoss(token) {
  chosen.lossOf = token;
  showTokenLosses();
  drawHistories();
}

// --- what changes with the choice ---

function showAttention() {
  for (const { layer, head, canvas } of thumbnails)
    paintMap(canvas, T, (query, key) => rootOfWeight(query, key, layer, head));
  markHead(thumbnails, chosen.layer, chosen.head);
  showMap();
  const { step, scores } = snapshots[chosen.snapshot];
  const { layer, head } = chosen;
  const score = (name) => fixed(scores[name][layer][head]);
  const at = report.curves ? ` at step ${whole(step)}` : "";
  $("head-name").textContent = `Layer ${layer}, head ${head}${at}`;
  const facts = [
    `entropy ${score("entropy")} bits`,
    `previous token ${score("previous_token")}`,
    `first token ${score("first_token")}`,
    `induction ${score("induction")}`,
  ];
  if (ablation) {
    const increase = signed(ablation.loss_increase[layer][head], 4);
    facts.push(`loss increase of the final model without this head ${increase} nats/token`);
  }
  $("head-about").textContent = facts.join(" · ");
  showCell();
  showHeadTable();
}

function showMap() {
  let cell = 0;
  for (let query = 0; query < T; query++)
    for (let key = 0; key <= query; key++)
      cells[cell++].setAttribute("fill-opacity", rootOfWeight(query, key).toFixed(3));
}

function showCell() {
  const { query, key } = chosen;
  attentionTokens.forEach((button, i) => {
    const shade = i <= query ? rootOfWeight(query, i).toFixed(3) : 0;
    button.style.setProperty("--shade", shade);
    button.setAttribute("aria-pressed", i === query);
  });
  setAttributes(cellFrame, { x: LABEL_ROOM + key * CELL, y: query * CELL });
  setAttributes(rowFrame, { y: query * CELL, width: (query + 1) * CELL });
  const largest = labels
    .slice(0, query + 1)
    .map((label, i) => ({ label, weight: weight(query, i) }))
    .sort((a, b) => b.weight - a.weight)
    .slice(0, 3)
    .map((token) => `${quoted(token.label)} ${fixed(token.weight)}`);
  $("attention-readout").textContent =
    `Query token ${quoted(labels[query])} (position ${query}), key token ${quoted(labels[key])} ` +
    `(position ${key}): attention weight ${fixed(weight(query, key))}. ` +
    `Largest weights of this query: ${largest.join(", ")}.`;
}

function showTokenLosses() {
  const { losses } = snapshots[chosen.snapshot]; // the first token has none
  lossTokens.forEach((button, i) => {
    const shade = i ? Math.min(1, losses[i - 1] / 8).toFixed(3) : 0;
    button.style.setProperty("--shade", shade);
    button.setAttribute("aria-pressed", i === chosen.lossOf);
  });
  const token = quoted(labels[chosen.lossOf]);
  const loss = losses[chosen.lossOf - 1];
  $("loss-readout").textContent = chosen.lossOf
    ? `${token}: loss ${fixed(loss)} nats, probability ${fixed(100 * Math.exp(-loss), 1)} %`
    : `${token} is the first token, which is not predicted`;
}

function showHeadTable() {
  const { scores } = snapshots[chosen.snapshot];
  const rows = thumbnails.map(({ layer, head }) => {
    const button = el("button", { type: "button" }, `layer ${layer}, head ${head}`);
    button.addEventListener("click", () => {
      chooseHead(layer, head);
      $("head-name").scrollIntoView();
    });
    const columns = Object.keys(SCORES).map((name) => fixed(scores[name][layer][head]));
    if (ablation) {
      columns.push(signed(ablation.loss_increase[layer][head], 4));
      columns.push(fixed(ablation.standard_error[layer][head], 4));
    }
    const own = layer === chosen.layer && head === chosen.head;
    return { own, cells: [button, ...columns] };
  });
  const titles = ["head", ...Object.values(SCORES)];
  if (ablation) titles.push("loss increase without it", "standard error");
  $("head-table").replaceChildren(...table(titles, rows));
}

function showAblationText() {
  $("ablation-about").textContent = report.curves ? "Scores at the chosen step." : "";
  if (!ablation) return;
  $("ablation-about").textContent +=
    " The last two columns are the result of head ablation: the loss of the final model on " +
    `${whole(ablation.tokens)} validation tokens is ${fixed(ablation.loss, 4)}, and setting the ` +
    "output of a head to zero raises it by the loss increase (standard error over windows). " +
    "An attention map suggests what a head does; only ablation shows how much the head matters.";
}
