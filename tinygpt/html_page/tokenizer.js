// Text to token ids and back: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019, §2.2).
//
// As lm/tokenizer.py: one entry is the end-of-text token, 256 are the bytes, and merges make the
// others. `<|endoftext|>` in a text is ordinary text.

class Tokenizer {
  // `file` is the content of a tokenizer.json
  constructor(file) {
    const { vocab, merges } = file.model;
    const byteOf = bytesOfAlphabet();
    this.bytes = []; // of each token id
    for (const [entry, id] of Object.entries(vocab))
      this.bytes[id] = Uint8Array.from(entry, (character) => byteOf.get(character));
    this.endOfText = vocab["<|endoftext|>"];
    this.bytes[this.endOfText] = new Uint8Array();
    this.vocabSize = this.bytes.length;
    this.idOfByte = new Uint16Array(256);
    for (const [character, byte] of byteOf) this.idOfByte[byte] = vocab[character];
    this.merges = new Map(); // pair of ids -> { rank, id }
    merges.forEach(([left, right], rank) => {
      this.merges.set(pairKey(vocab[left], vocab[right]), { rank, id: vocab[left + right] });
    });
    this.words = new Map(); // ids of words that were encoded before
  }

  // The token ids of a text. Half of a surrogate pair is no character: it is read as U+FFFD.
  encode(text) {
    const tokenIds = [];
    for (const word of splitWords(text)) {
      if (!this.words.has(word)) this.words.set(word, this.encodeWord(word));
      for (const id of this.words.get(word)) tokenIds.push(id);
    }
    return tokenIds;
  }

  encodeWord(word) {
    let ids = Array.from(new TextEncoder().encode(word), (byte) => this.idOfByte[byte]);
    while (true) {
      const merge = this.firstMerge(ids);
      if (!merge) return ids;
      ids = this.applyMerge(ids, merge);
    }
  }

  // Of all merges that apply, the one that was learned first
  firstMerge(ids) {
    let first = null;
    for (let i = 1; i < ids.length; i++) {
      const merge = this.merges.get(pairKey(ids[i - 1], ids[i]));
      if (merge && (!first || merge.rank < first.rank)) first = merge;
    }
    return first;
  }

  applyMerge(ids, merge) {
    const merged = [];
    for (let i = 0; i < ids.length; i++) {
      const applies =
        i + 1 < ids.length && this.merges.get(pairKey(ids[i], ids[i + 1])) === merge;
      merged.push(applies ? merge.id : ids[i]);
      if (applies) i++;
    }
    return merged;
  }

  // The text of token ids; bytes that are not UTF-8 become U+FFFD
  decode(tokenIds) {
    const bytes = [];
    for (const id of tokenIds) bytes.push(...this.bytes[id]);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
  }

  // Whether another entry begins with this one, so that more text may replace the token
  mayGrow(id) {
    const bytes = this.bytes[id];
    const begins = (other) => bytes.every((byte, i) => byte === other[i]);
    return this.bytes.some((other) => other.length > bytes.length && begins(other));
  }
}

const pairKey = (left, right) => left * 65_536 + right;

// GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up, in order
function bytesOfAlphabet() {
  const byteOf = new Map();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    byteOf.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return byteOf;
}

// --- GPT-2's pattern, which splits a text into words before BPE ---

// The part of a regular expression that a run-length list of unicode.js stands for
function characterRanges(runLengths) {
  const hex = (codePoint) => `\\u{${codePoint.toString(16)}}`;
  const lengths = runLengths.trim().split(/\s+/).map((length) => parseInt(length, 36));
  let ranges = "";
  let codePoint = 0;
  for (let i = 0; i < lengths.length; i += 2) {
    const first = codePoint + lengths[i];
    codePoint = first + lengths[i + 1];
    ranges += `${hex(first)}-${hex(codePoint - 1)}`;
  }
  return ranges;
}

function gpt2Pattern() {
  const [letters, numbers, spaces] = [LETTERS, NUMBERS, SPACES].map(characterRanges);
  const alternatives = [
    "'s|'t|'re|'ve|'m|'ll|'d",
    ` ?[${letters}]+`,
    ` ?[${numbers}]+`,
    ` ?[^${letters}${numbers}${spaces}]+`,
    `[${spaces}]+(?![^${spaces}])`, // spaces before a word leave it the last one
    `[${spaces}]+`,
  ];
  return new RegExp(alternatives.join("|"), "gu");
}

const PATTERN = gpt2Pattern();

const splitWords = (text) => text.match(PATTERN) || [];
