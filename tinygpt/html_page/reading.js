// A text as a model reads it, and work that leaves the page alive.

const CHUNK_WORK = 3e7; // multiplications between two looks at the clock
const LONGEST_TURN = 30; // milliseconds of work before the page may answer again

class Reading {
  // off: the parts that are switched off, see model.js
  constructor(model, off = new Set()) {
    this.model = model;
    this.off = off;
    this.cache = new KVCache(model.config);
    this.activations = new Float32Array(model.config.context_length * model.config.d_model);
    this.tokenIds = [];
    this.latest = null; // logits, with their position
    this.losses = []; // of each token but the first, given those before it [nats]
    const { n_layers, d_model, d_ff } = model.config;
    const inBlocks = n_layers * (4 * d_model + 2 * d_ff) * d_model;
    const work = inBlocks + model.lm_head.weight.length; // for a position
    this.chunk = 2 * Math.ceil(CHUNK_WORK / work / 2); // positions read at once
  }

  // Read token ids; what was read before is kept as far as it is the same. It stops to be resumed.
  *read(tokenIds) {
    const C = this.model.config.d_model;
    this.forgetFrom(this.tokenIds.findIndex((id, t) => id !== tokenIds[t]));
    while (this.tokenIds.length < tokenIds.length) {
      const first = this.tokenIds.length;
      const next = tokenIds.slice(first, first + this.chunk);
      this.activations.set(this.model.hidden(next, this.cache, { off: this.off }), first * C);
      this.tokenIds.push(...next);
      this.measureLosses(first);
      yield;
    }
  }

  forgetFrom(position) {
    if (position < 0) return;
    if (this.latest?.position >= position) this.latest = null;
    this.tokenIds.length = position;
    this.losses.length = position;
    this.cache.length = position;
  }

  // From a position on
  measureLosses(first) {
    const C = this.model.config.d_model;
    const from = Math.max(0, first - 1);
    const count = this.tokenIds.length - 1 - from;
    this.losses[0] = null;
    if (!count) return;
    if (count === 1) {
      this.losses[from + 1] = lossOf(this.logits(from), this.tokenIds[from + 1]);
      return;
    }
    const rows = this.activations.subarray(from * C, (from + count) * C);
    const logits = this.model.lm_head.forward(rows, count); // (count, V)
    const V = this.model.vocab_size;
    for (let t = 0; t < count; t++) {
      const target = this.tokenIds[from + t + 1];
      this.losses[from + t + 1] = lossOf(logits.subarray(t * V, (t + 1) * V), target);
    }
  }

  // Of the token after a position, (V,). The last ones are kept: while text is generated they are
  // needed twice, to choose a token and for its loss.
  logits(position) {
    if (this.latest?.position === position) return this.latest.logits;
    const C = this.model.config.d_model;
    const row = this.activations.subarray(position * C, (position + 1) * C);
    this.latest = { position, logits: this.model.lm_head.forward(row, 1) };
    return this.latest.logits;
  }

  // What is computed on the way to the prediction after a position, by name; (C,) each
  trace(position) {
    const { token_embedding, position_embedding, config } = this.model;
    const C = config.d_model;
    const id = this.tokenIds[position];
    const found = {
      embedding: token_embedding.slice(id * C, (id + 1) * C),
      positions: position_embedding?.slice(position * C, (position + 1) * C),
    };
    const length = this.cache.length;
    this.cache.length = position; // read this one again; its keys and values come out the same
    const record = (name, values) => (found[name] = values);
    this.model.hidden([id], this.cache, { off: this.off, record });
    this.cache.length = length;
    return found;
  }

  // Mean over the tokens of the text; null if there are none besides the first
  get loss() {
    if (this.tokenIds.length < 2) return null;
    return this.losses.reduce((sum, loss) => sum + loss, 0) / (this.tokenIds.length - 1);
  }
}

// -log of the probability that logits give a token [nats]
function lossOf(logits, target) {
  const highest = largest(logits);
  let total = 0;
  for (let id = 0; id < logits.length; id++) total += Math.exp(logits[id] - highest);
  return Math.log(total) + highest - logits[target];
}

const nextTurn = () => new Promise((resolve) => setTimeout(resolve));

// Do the steps of a generator, and let the page answer in between. Whether it came to the end:
// it stops where isWanted() says no.
async function workThrough(steps, isWanted) {
  let began = performance.now();
  while (!steps.next().done) {
    if (performance.now() - began < LONGEST_TURN) continue;
    await nextTurn();
    if (!isWanted()) return false;
    began = performance.now();
  }
  return true;
}

// Continue a text; gives each new token id. It ends after `count` tokens, after the end-of-text
// token, or where the context is full.
function* generateTokens(reading, tokenIds, settings, count) {
  const text = [...tokenIds];
  for (let i = 0; i < count && text.length <= reading.model.config.context_length; i++) {
    yield* reading.read(text);
    const id = choose(reading.logits(text.length - 1), settings, i);
    text.push(id);
    yield id;
    if (id === END_OF_TEXT) return;
  }
}
