// The model, what the user chose, and the address that holds it.

const facts = JSON.parse($("data").textContent);
const tokenizer = new Tokenizer(takeJson("tokenizer"));
const END_OF_TEXT = tokenizer.endOfText;
const weights = unpackWeights(fromBase64(takeText($("weights"))), facts.shapes, facts.dtype);
const model = new GPT(facts.config, weights);
const { n_layers: L, n_heads: H, context_length: CONTEXT } = facts.config;

const FIRST_PROMPT = "Once upon a time";
const DEFAULTS = { temperature: 0.8, top_k: null, top_p: 0.9, min_p: null, seed: 1337 };
const VISIBLE = { " ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥" };

const state = {
  tokenIds: [END_OF_TEXT], // of the text, after the end-of-text token
  position: 0, // of the chosen token
  settings: { ...DEFAULTS },
  ...mostImportantHead(),
  view: "attention",
};

const reading = new Reading(model); // of the text, without what is switched off

// The one whose absence costs most, as far as `plot` has measured it
function mostImportantHead() {
  const increases = facts.ablation ? facts.ablation.loss_increase.flat() : [0];
  const index = increases.indexOf(Math.max(...increases));
  return { layer: Math.floor(index / H), head: index % H };
}

// The text of a data element, whose memory is then free
function takeText(element) {
  if (element === null) {
    $("check").classList.add("wrong");
    $("check").textContent =
      "This copy was saved by a browser, without the model. Copy the file that tinygpt wrote.";
    throw new Error("the page has no model");
  }
  const text = element.textContent;
  element.remove();
  return text;
}

function takeJson(id) {
  return JSON.parse(takeText($(id)));
}

// A token as a short text that shows white space and broken characters; never empty
function labelOf(id) {
  if (id === END_OF_TEXT) return "<|endoftext|>";
  const bytes = tokenizer.bytes[id];
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.replace(/[\x00-\x20\x7f-\x9f]/g, (c) => VISIBLE[c] || escaped(c.charCodeAt()));
  } catch {
    return [...bytes].map(escaped).join("");
  }
}

const escaped = (byte) => `\\x${byte.toString(16).padStart(2, "0")}`;

const percent = (probability) =>
  probability < 0.001 ? "<0.1\u00a0%" : `${fixed(100 * probability, 1)}\u00a0%`;

const partName = (part) => {
  const [layer, name] = part.split(".");
  return name === "mlp" ? `layer ${layer}, MLP` : `layer ${layer}, head ${name}`;
};

const headParts = () => layers().flatMap((layer) => heads().map((head) => `${layer}.${head}`));
const mlpParts = () => layers().map((layer) => `${layer}.mlp`);
const layers = () => [...Array(L).keys()];
const heads = () => [...Array(H).keys()];

// --- the address ---

function writeAddress() {
  const chosen = new URLSearchParams({ prompt: tokenizer.decode(state.tokenIds) });
  for (const [name, value] of Object.entries(state.settings))
    if (value !== DEFAULTS[name]) chosen.set(name, value === null ? "none" : value);
  if (reading.off.size) chosen.set("off", [...reading.off].sort().join(","));
  if (state.view !== "attention") chosen.set("view", state.view);
  history.replaceState(null, "", `#${chosen}`);
}

// The text that an address holds; settings, switches and view are taken over
function readAddress() {
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const { name, accepts } of CONTROLS) {
    const value = chosen.get(name);
    if (value === null) state.settings[name] = DEFAULTS[name];
    else if (value === "none" && DEFAULTS[name] === null) state.settings[name] = null;
    else if (value === "none" && name === "top_p") state.settings[name] = null;
    else if (accepts(Number(value))) state.settings[name] = Number(value);
  }
  const known = new Set([...headParts(), ...mlpParts()]);
  const off = (chosen.get("off") || "").split(",").filter((part) => known.has(part));
  reading.off = new Set(off);
  if (Object.hasOwn(VIEWS, chosen.get("view"))) state.view = chosen.get("view");
  return chosen.get("prompt") ?? FIRST_PROMPT;
}
