// A GPT: embeddings, blocks of attention and feed-forward, and a matrix back to the vocabulary.
//
// The forward pass of lm/model.py on typed arrays, with the same names and in the same order.
// Shapes: T new positions, S positions with those before them, C = d_model, H heads, D = C / H,
// V vocabulary. A matrix (T, C) is a Float32Array of T rows, one after the other.
//
// `options` of a forward pass, both optional:
//   off     a Set of parts that are switched off: "1.2" is head 2 of layer 1, "1.mlp" its MLP.
//           Their output is set to zero, biases stay: the zero ablation of analysis/ablation.py.
//   record  a function that receives the name and the values of what is computed on the way

class Linear {
  // weight: (outputs, inputs); bias: (outputs,) or undefined
  constructor(weight, bias, inputs) {
    this.weight = weight;
    this.bias = bias || new Float32Array(weight.length / inputs);
    this.inputs = inputs;
    this.outputs = weight.length / inputs;
  }

  // x times the transposed weight, plus bias, (T, inputs) -> (T, outputs)
  forward(x, T) {
    const y = new Float32Array(T * this.outputs);
    let t = 0;
    for (; t + 2 <= T; t += 2) this.twoPositions(x, t, y);
    if (t < T) this.onePosition(x, t, y);
    return y;
  }

  // Four outputs and two inputs at once: fewer loads and turns for as many multiplications
  onePosition(x, t, y) {
    const { weight, bias, inputs, outputs } = this;
    const a = t * inputs;
    const even = inputs - (inputs % 2);
    let o = 0;
    for (; o + 4 <= outputs; o += 4) {
      const w0 = o * inputs, w1 = w0 + inputs, w2 = w1 + inputs, w3 = w2 + inputs;
      let y0 = bias[o], y1 = bias[o + 1], y2 = bias[o + 2], y3 = bias[o + 3];
      for (let i = 0; i < even; i += 2) {
        const x0 = x[a + i], x1 = x[a + i + 1];
        y0 += x0 * weight[w0 + i] + x1 * weight[w0 + i + 1];
        y1 += x0 * weight[w1 + i] + x1 * weight[w1 + i + 1];
        y2 += x0 * weight[w2 + i] + x1 * weight[w2 + i + 1];
        y3 += x0 * weight[w3 + i] + x1 * weight[w3 + i + 1];
      }
      for (let i = even; i < inputs; i++) {
        y0 += x[a + i] * weight[w0 + i];
        y1 += x[a + i] * weight[w1 + i];
        y2 += x[a + i] * weight[w2 + i];
        y3 += x[a + i] * weight[w3 + i];
      }
      y.set([y0, y1, y2, y3], t * outputs + o);
    }
    for (; o < outputs; o++)
      y[t * outputs + o] = dot(x, a, weight, o * inputs, inputs) + bias[o];
  }

  // The same for two positions, which share each weight that is loaded
  twoPositions(x, t, y) {
    const { weight, bias, inputs, outputs } = this;
    const a = t * inputs, b = a + inputs;
    let o = 0;
    for (; o + 4 <= outputs; o += 4) {
      const w0 = o * inputs, w1 = w0 + inputs, w2 = w1 + inputs, w3 = w2 + inputs;
      let y0 = bias[o], y1 = bias[o + 1], y2 = bias[o + 2], y3 = bias[o + 3];
      let z0 = y0, z1 = y1, z2 = y2, z3 = y3;
      for (let i = 0; i < inputs; i++) {
        const ai = x[a + i], bi = x[b + i];
        const v0 = weight[w0 + i], v1 = weight[w1 + i], v2 = weight[w2 + i], v3 = weight[w3 + i];
        y0 += ai * v0;
        y1 += ai * v1;
        y2 += ai * v2;
        y3 += ai * v3;
        z0 += bi * v0;
        z1 += bi * v1;
        z2 += bi * v2;
        z3 += bi * v3;
      }
      y.set([y0, y1, y2, y3], t * outputs + o);
      y.set([z0, z1, z2, z3], (t + 1) * outputs + o);
    }
    for (; o < outputs; o++) {
      y[t * outputs + o] = dot(x, a, weight, o * inputs, inputs) + bias[o];
      y[(t + 1) * outputs + o] = dot(x, b, weight, o * inputs, inputs) + bias[o];
    }
  }
}

function dot(x, xStart, y, yStart, count) {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += x[xStart + i] * y[yStart + i];
  return sum;
}

function add(x, y) {
  const sum = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) sum[i] = x[i] + y[i];
  return sum;
}

class LayerNorm {
  constructor(weight, bias) {
    this.weight = weight;
    this.bias = bias;
  }

  // (T, C) -> (T, C)
  forward(x, T) {
    const { weight, bias } = this;
    const C = weight.length;
    const y = new Float32Array(T * C);
    for (let t = 0; t < T; t++) {
      const { mean, scale } = this.statistics(x, t);
      for (let i = 0; i < C; i++)
        y[t * C + i] = (x[t * C + i] - mean) * scale * weight[i] + bias[i];
    }
    return y;
  }

  // Mean of a row, and one over its standard deviation
  statistics(x, t) {
    const C = this.weight.length;
    let mean = 0;
    for (let i = t * C; i < (t + 1) * C; i++) mean += x[i];
    mean /= C;
    let squares = 0;
    for (let i = t * C; i < (t + 1) * C; i++) squares += (x[i] - mean) * (x[i] - mean);
    return { mean, scale: 1 / Math.sqrt(squares / C + 1e-5) };
  }
}

// Queries, keys and values of earlier positions, so that a new token costs one position and not all
class KVCache {
  constructor(config) {
    const rows = () => new Float32Array(config.context_length * config.d_model); // (S, C)
    this.layers = Array.from({ length: config.n_layers }, () => ({
      queries: rows(), // forward needs only those of new positions; attention maps need all
      keys: rows(),
      values: rows(),
    }));
    this.length = 0; // positions held
  }

  // Write the rows of qkv (T, 3C) behind those of earlier positions
  extend(layer, qkv, T, C) {
    Object.values(this.layers[layer]).forEach((rows, part) => {
      for (let t = 0; t < T; t++) {
        const start = t * 3 * C + part * C;
        rows.set(qkv.subarray(start, start + C), (this.length + t) * C);
      }
    });
  }
}

// Causal multi-head self-attention (Vaswani et al. 2017, §3.2.2)
class CausalSelfAttention {
  constructor(config, parameters, layer) {
    this.n_heads = config.n_heads;
    this.layer = layer;
    this.qkv = parameters.linear(`blocks.${layer}.attention.qkv`, config.d_model);
    this.out = parameters.linear(`blocks.${layer}.attention.out`, config.d_model);
  }

  // Mix each position with those before it, (T, C) -> (T, C)
  forward(x, T, cache, options) {
    const C = this.out.inputs;
    const D = C / this.n_heads;
    cache.extend(this.layer, this.qkv.forward(x, T), T, C);
    const { values } = cache.layers[this.layer];
    const y = new Float32Array(T * C);
    for (let head = 0; head < this.n_heads; head++) {
      if (options.off?.has(`${this.layer}.${head}`)) continue;
      for (let t = 0; t < T; t++) {
        const weights = this.weights(cache, head, cache.length + t); // (S,)
        const at = t * C + head * D;
        for (let s = 0; s < weights.length; s++) {
          const from = s * C + head * D;
          for (let i = 0; i < D; i++) y[at + i] += weights[s] * values[from + i];
        }
      }
    }
    options.record?.(`${this.layer}.heads`, y);
    return this.out.forward(y, T);
  }

  // How much a position attends to itself and each before it; they sum to 1
  weights(cache, head, position) {
    const { queries, keys } = cache.layers[this.layer];
    const C = this.out.inputs;
    const D = C / this.n_heads;
    const scores = new Float32Array(position + 1);
    const query = position * C + head * D;
    for (let s = 0; s <= position; s++) // variance near 1: softmax is unsaturated
      scores[s] = dot(queries, query, keys, s * C + head * D, D) / Math.sqrt(D);
    return softmax(scores);
  }
}

// Position-wise feed-forward network (Vaswani et al. 2017, §3.3)
class MLP {
  constructor(config, parameters, layer) {
    this.activation = config.activation === "relu" ? relu : gelu;
    this.layer = layer;
    this.up = parameters.linear(`blocks.${layer}.mlp.up`, config.d_model);
    this.down = parameters.linear(`blocks.${layer}.mlp.down`, config.d_ff);
  }

  // Transform each position by itself, (T, C) -> (T, C)
  forward(x, T, options) {
    if (options.off?.has(`${this.layer}.mlp`))
      return this.down.forward(new Float32Array(T * this.down.inputs), T);
    return this.down.forward(this.up.forward(x, T).map(this.activation), T);
  }
}

const relu = (x) => Math.max(x, 0);

// In its tanh form
const gelu = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));

// Attention, then feed-forward, each added to the residual stream
class Block {
  constructor(config, parameters, layer) {
    this.pre_norm = config.norm === "pre";
    this.norm_1 = parameters.norm(`blocks.${layer}.norm_1`);
    this.attention = new CausalSelfAttention(config, parameters, layer);
    this.norm_2 = parameters.norm(`blocks.${layer}.norm_2`);
    this.mlp = new MLP(config, parameters, layer);
  }

  // (T, C) -> (T, C)
  forward(x, T, cache, options) {
    if (this.pre_norm) { // GPT-2: the residual stream itself is never normalized
      x = add(x, this.attention.forward(this.norm_1.forward(x, T), T, cache, options));
      const y = this.mlp.forward(this.norm_2.forward(x, T), T, options);
      options.record?.(`${this.attention.layer}.mlp`, y);
      x = add(x, y);
    } else { // Vaswani et al. 2017
      x = this.norm_1.forward(add(x, this.attention.forward(x, T, cache, options)), T);
      x = this.norm_2.forward(add(x, this.mlp.forward(x, T, options)), T);
    }
    options.record?.(`${this.attention.layer}.stream`, x);
    return x;
  }
}

// Modules from the weights by name
class Parameters {
  constructor(weights) {
    this.weights = weights;
  }

  linear(name, inputs) {
    return new Linear(this.weights[`${name}.weight`], this.weights[`${name}.bias`], inputs);
  }

  norm(name) {
    return new LayerNorm(this.weights[`${name}.weight`], this.weights[`${name}.bias`]);
  }
}

// The language model
class GPT {
  // weights: Float32Arrays by the names of lm/model.py; tied ones once
  constructor(config, weights) {
    const parameters = new Parameters(weights);
    this.config = config;
    this.token_embedding = weights["token_embedding.weight"]; // (V, C)
    this.vocab_size = this.token_embedding.length / config.d_model;
    this.position_embedding =
      config.positions === "sinusoidal"
        ? sinusoids(config.context_length, config.d_model)
        : weights["position_embedding.weight"]; // undefined where there are none
    this.blocks = Array.from(
      { length: config.n_layers },
      (_, layer) => new Block(config, parameters, layer),
    );
    this.norm = config.norm === "pre" ? parameters.norm("norm") : null;
    const head = config.tie_embeddings ? "token_embedding" : "lm_head"; // Press & Wolf 2017
    this.lm_head = parameters.linear(head, config.d_model);
  }

  // Logits of the next token at every position, (T, V)
  forward(tokenIds, cache = new KVCache(this.config), options = {}) {
    return this.lm_head.forward(this.hidden(tokenIds, cache, options), tokenIds.length);
  }

  // The activations that lm_head turns into logits, (T, C); the cache moves on
  hidden(tokenIds, cache, options = {}) {
    const T = tokenIds.length;
    let x = this.embed(tokenIds, cache.length);
    for (const block of this.blocks) x = block.forward(x, T, cache, options);
    cache.length += T;
    return this.norm ? this.norm.forward(x, T) : x;
  }

  // Tokens and their positions, from `first` on, as vectors, (T, C)
  embed(tokenIds, first) {
    const end = first + tokenIds.length;
    const { context_length, d_model: C } = this.config;
    if (end > context_length)
      throw new RangeError(`${end} tokens exceed the context of ${context_length}`);
    const x = new Float32Array(tokenIds.length * C);
    tokenIds.forEach((id, t) => x.set(this.token_embedding.subarray(id * C, (id + 1) * C), t * C));
    if (!this.position_embedding) return x;
    return add(x, this.position_embedding.subarray(first * C, end * C));
  }
}

// Fixed position embeddings (Vaswani et al. 2017, §3.5), (length, d_model)
function sinusoids(length, d_model) {
  const waves = new Float32Array(length * d_model);
  const f = Math.fround; // every step in 32 bits, as in lm/model.py
  for (let i = 0; i < d_model; i += 2) {
    const rate = f(Math.exp(f(i * f(-Math.log(10_000) / d_model))));
    for (let t = 0; t < length; t++) {
      const angle = f(t * rate);
      waves[t * d_model + i] = Math.sin(angle);
      waves[t * d_model + i + 1] = Math.cos(angle);
    }
  }
  return waves;
}

// Probabilities in proportion to exp(logit / temperature), as in lm/sampling.py
function softmax(logits, temperature = 1) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const weights = new Float32Array(logits.length);
  let total = 0;
  for (let i = 0; i < logits.length; i++) {
    weights[i] = Math.exp((logits[i] - largest) / Math.max(temperature, 1e-30));
    total += weights[i];
  }
  for (let i = 0; i < logits.length; i++) weights[i] /= total;
  return weights;
}
