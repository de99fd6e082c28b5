// The attention maps of all heads as small pictures to choose from.

const MAP_COLOR = [47, 127, 208]; // visible on white and on black; its opacity shows the weight

// A button with a canvas for each head, a row for each layer; { layer, head, button, canvas }
function buildHeads(host, L, H, choose) {
  host.style.gridTemplateColumns = `repeat(${H}, minmax(30px, 120px))`;
  const thumbnails = [];
  for (let layer = 0; layer < L; layer++)
    for (let head = 0; head < H; head++) {
      const canvas = el("canvas");
      const attributes = { type: "button", "aria-label": `layer ${layer}, head ${head}` };
      const button = el("button", attributes, canvas, `${layer}.${head}`);
      button.addEventListener("click", () => choose(layer, head));
      thumbnails.push({ layer, head, button, canvas });
      host.append(button);
    }
  return thumbnails;
}

// A pixel for each weight; a key token is never later than its query token
function paintMap(canvas, T, rootOfWeight) {
  const pixels = new ImageData(T, T);
  for (let query = 0; query < T; query++)
    for (let key = 0; key <= query; key++) {
      const opacity = 10 + 245 * rootOfWeight(query, key);
      pixels.data.set([...MAP_COLOR, opacity], 4 * (query * T + key));
    }
  setAttributes(canvas, { width: T, height: T });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function markHead(thumbnails, layer, head) {
  for (const thumbnail of thumbnails) {
    const isChosen = thumbnail.layer === layer && thumbnail.head === head;
    thumbnail.button.setAttribute("aria-pressed", isChosen);
  }
}
