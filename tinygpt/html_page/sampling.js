// From logits to text, as lm/sampling.py:
//
//     logits -> softmax (with temperature) -> top_k -> top_p -> min_p -> draw -> token
//
// A filter takes probabilities and returns the ids of the tokens that stay, in ascending order; the
// next one sees only these, renormalized. Ties go to the lowest token id. The same seed gives the
// same random numbers as `tinygpt sample --seed`.

// The k likeliest tokens (Fan et al. 2018)
function topK(probabilities, k) {
  const count = Math.min(k, probabilities.length);
  return likeliest(probabilities, count, descending(probabilities)[count - 1]);
}

// The fewest tokens whose probabilities sum to at least `mass` (Holtzman et al. 2020)
function topP(probabilities, mass) {
  let count, sum, values;
  for (const floor of [(1 - mass) / 256, 0]) { // usually few tokens matter
    values = descending(probabilities.filter((probability) => probability > floor));
    count = sum = 0;
    while (count < values.length && sum < mass) sum += values[count++];
    if (sum >= mass) break;
  }
  return likeliest(probabilities, count, values[count - 1]);
}

// The tokens at least `share` times as likely as the likeliest (Nguyen et al. 2024)
function minP(probabilities, share) {
  const least = Math.fround(Math.fround(share) * largest(probabilities));
  return byId(probabilities).filter((id) => probabilities[id] >= least);
}

// The `count` likeliest tokens, the last of which has probability `least`
function likeliest(probabilities, count, least) {
  const likelier = probabilities.reduce((sum, probability) => sum + (probability > least), 0);
  let ties = count - likelier;
  return byId(probabilities).filter(
    (id) => probabilities[id] > least || (probabilities[id] === least && ties-- > 0),
  );
}

// The `count` likeliest tokens, the likeliest first
function ranked(probabilities, count) {
  return topK(probabilities, count).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
}

const largest = (values) => values.reduce((a, b) => Math.max(a, b));

const byId = (probabilities) => new Uint32Array(probabilities.length).map((_, id) => id);

const descending = (values) => values.slice().sort().reverse(); // numbers, as the array is typed

// The token at which the running sum of the probabilities passes `uniform`, in [0, 1)
function draw(probabilities, uniform) {
  const total = probabilities.reduce((a, b) => a + b, 0);
  let sum = 0;
  let last = 0;
  for (let id = 0; id < probabilities.length; id++) {
    if (!probabilities[id]) continue;
    last = id;
    sum += probabilities[id];
    if (sum > uniform * total) return id;
  }
  return last;
}

// What temperature and filters leave of the model's distribution: token ids and probabilities.
// settings: temperature, and top_k, top_p, min_p or null; temperature 0 leaves the likeliest token.
function filtered(logits, settings) {
  if (settings.temperature === 0) {
    const id = logits.indexOf(largest(logits));
    return { tokenIds: Uint32Array.of(id), probabilities: Float32Array.of(1) };
  }
  let probabilities = softmax(logits, settings.temperature);
  let tokenIds = byId(probabilities);
  for (const [name, filter] of Object.entries({ top_k: topK, top_p: topP, min_p: minP })) {
    if (settings[name] === null) continue;
    const kept = filter(probabilities, settings[name]);
    tokenIds = kept.map((index) => tokenIds[index]);
    probabilities = renormalized(Float32Array.from(kept, (index) => probabilities[index]));
  }
  return { tokenIds, probabilities };
}

function renormalized(probabilities) {
  const total = probabilities.reduce((a, b) => a + b, 0);
  return probabilities.map((probability) => probability / total);
}

// The next token; `position` counts the tokens generated so far
function choose(logits, settings, position) {
  const { tokenIds, probabilities } = filtered(logits, settings);
  if (tokenIds.length === 1) return tokenIds[0];
  return tokenIds[draw(probabilities, uniform(settings.seed, position))];
}

// The random number in [0, 1) of one token: a hash of its place, so that no other token affects it
function uniform(seed, position, sample = 0) {
  const digest = blake2b64([BigInt(seed), BigInt(sample), BigInt(position)]);
  return Number(digest >> 11n) * 2 ** -53;
}

// --- BLAKE2b (RFC 7693) of one block, with 8 bytes of output ---

const BITS_64 = (1n << 64n) - 1n;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
  "905724afe1bc683d", "2c6a0b834d75fe19",
  "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
];

function blake2b64(words) {
  const bytes = 8 * words.length;
  const m = [...words, ...Array(16 - words.length).fill(0n)];
  const h0 = IV[0] ^ 0x01010008n; // no key, 8 bytes of output
  const v = [h0, ...IV.slice(1), ...IV];
  v[12] ^= BigInt(bytes);
  v[14] ^= BITS_64; // the last block
  const rotated = (x, by) => ((x >> by) | (x << (64n - by))) & BITS_64;
  function mix(a, b, c, d, x, y) {
    v[a] = (v[a] + v[b] + x) & BITS_64;
    v[d] = rotated(v[d] ^ v[a], 32n);
    v[c] = (v[c] + v[d]) & BITS_64;
    v[b] = rotated(v[b] ^ v[c], 24n);
    v[a] = (v[a] + v[b] + y) & BITS_64;
    v[d] = rotated(v[d] ^ v[a], 16n);
    v[c] = (v[c] + v[d]) & BITS_64;
    v[b] = rotated(v[b] ^ v[c], 63n);
  }
  for (let round = 0; round < 12; round++) {
    const x = [...SIGMA[round % 10]].map((digit) => m[parseInt(digit, 16)]);
    mix(0, 4, 8, 12, x[0], x[1]);
    mix(1, 5, 9, 13, x[2], x[3]);
    mix(2, 6, 10, 14, x[4], x[5]);
    mix(3, 7, 11, 15, x[6], x[7]);
    mix(0, 5, 10, 15, x[8], x[9]);
    mix(1, 6, 11, 12, x[10], x[11]);
    mix(2, 7, 8, 13, x[12], x[13]);
    mix(3, 4, 9, 14, x[14], x[15]);
  }
  return h0 ^ v[0] ^ v[8];
}
