// Pictures, maps and tables; each has a text for screen readers. Like seqlm/playground/html.py.

import { make } from "../../static/painting.js";

const SIDE = 196; // of a picture, in the page's pixels
const SHARP = 2; // points per pixel, for fine screens
const BLUE = "0, 75, 128";
const FRAME = "#d55e00";

/** A canvas with a caption, which is its name for screen readers, too; `details` only theirs. */
export class Figure {
  constructor(width = SIDE, height = SIDE) {
    this.canvas = make("canvas", { role: "img" });
    this.caption = make("figcaption", { "aria-hidden": "true" });
    this.root = make("figure", {}, this.canvas, this.caption);
    this.resize(width, height);
  }

  resize(width, height) {
    [this.width, this.height] = [width, height];
    [this.canvas.width, this.canvas.height] = [width * SHARP, height * SHARP];
    this.canvas.style.width = `${width}px`;
    this.canvas.style.aspectRatio = `${width} / ${height}`;
  }

  /** White paper in the light and in the dark, as every figure of the project. */
  begin(caption, details = "") {
    this.caption.textContent = caption;
    this.canvas.setAttribute("aria-label", caption + details);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(SHARP, 0, 0, SHARP, 0, 0);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, this.width, this.height);
    return pen;
  }
}

/** The size in which a picture of `book` is shown. */
export function sizeOf(book, side = SIDE) {
  const pixel = side / Math.max(book.width, book.height);
  return [book.width * pixel, book.height * pixel];
}

function drawInk(pen, image, book, pixel, share = 1) {
  image.forEach((ink, place) => {
    if (ink <= 0.005) return;
    const [row, column] = [Math.floor(place / book.width), place % book.width];
    pen.fillStyle = `rgba(0, 0, 0, ${Math.min(1, ink) * share})`;
    // A hair more than the cell, so that no seam shows between two.
    pen.fillRect(column * pixel, row * pixel, pixel + 0.3, pixel + 0.3);
  });
}

/** An image (height * width), 0 to 1, dark on light. */
export function showPicture(figure, book, image, caption) {
  const pen = figure.begin(caption);
  drawInk(pen, image, book, figure.width / book.width);
}

/**
 * Values, one for each patch, over the faded image: darkest at `full`. Undefined ones are left out.
 * The patch `marked` has a frame.
 */
export function showMap(figure, book, image, values, { caption, full, marked, digits = 1 }) {
  const words = values.map((value) => (value === undefined ? "–" : value.toFixed(digits)));
  const rows = Array.from({ length: book.rows }, (_, row) =>
    words.slice(row * book.columns, (row + 1) * book.columns).join(", "),
  );
  const pen = figure.begin(caption, `. Row by row: ${rows.join("; ")}.`);
  const pixel = figure.width / book.width;
  const side = book.patch * pixel;
  drawInk(pen, image, book, pixel, 0.25);
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = `${side / 2.9}px system-ui, sans-serif`;
  values.forEach((value, index) => {
    const [x, y] = [(index % book.columns) * side, Math.floor(index / book.columns) * side];
    if (value !== undefined) {
      const share = Math.min(1, Math.max(0, value / full));
      pen.fillStyle = `rgba(${BLUE}, ${0.06 + 0.84 * share})`;
      pen.fillRect(x, y, side, side);
      pen.fillStyle = share > 0.55 ? "#fff" : "#111";
      if (side > 20) pen.fillText(words[index], x + side / 2, y + side / 2); // else unreadable
    }
    if (index === marked) frame(pen, x, y, side, side);
  });
}

function frame(pen, x, y, width, height) {
  pen.strokeStyle = FRAME;
  pen.lineWidth = 2;
  pen.strokeRect(x + 1, y + 1, width - 2, height - 2);
}

/** Surprisal of the first codes, in nats; all steps of an image have one scale. */
export function showSurprisal(figure, book, image, surprisal, n = surprisal.length) {
  const total = surprisal.slice(0, n).reduce((sum, nats) => sum + nats, 0);
  const values = Array.from({ length: book.nPatches }, (_, i) =>
    i < n ? surprisal[i] : undefined,
  );
  showMap(figure, book, image, values, {
    caption: `surprisal per code in nats (−ln p); total ${total.toFixed(1)}`,
    full: Math.max(8, ...surprisal),
    marked: n < surprisal.length ? n - 1 : undefined,
  });
}

/** The weights (n, n) of a head: a row is who looks, a column is what is looked at. */
export function showTriangle(figure, weights, n, chosen, caption, details) {
  const pen = figure.begin(caption, details);
  const cell = figure.width / n;
  for (let row = 0; row < n; row++) {
    let most = 0;
    for (let column = 0; column <= row; column++) most = Math.max(most, weights[row * n + column]);
    for (let column = 0; column <= row; column++) {
      const share = weights[row * n + column] / most; // each row has a scale of its own
      pen.fillStyle = `rgba(${BLUE}, ${0.06 + 0.84 * share})`;
      pen.fillRect(column * cell, row * cell, cell, cell);
    }
  }
  frame(pen, 0, Math.max(0, chosen * cell - 1.5), (chosen + 1) * cell + 1, cell + 3);
}

/** A small canvas with one entry of the code book. */
function patchOf(book, code) {
  const canvas = make("canvas", { width: 16, height: 16, "aria-hidden": "true", class: "patch" });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, 16, 16);
  const center = book.center(code);
  drawInk(pen, center, { width: book.patch }, 16 / book.patch);
  return canvas;
}

function bar(share, most, kind = "bar") {
  const line = make("span");
  line.style.width = `${(7 * share) / most}em`;
  return make("td", { class: kind }, line, `${(100 * share).toFixed(1)}%`);
}

/** Fill `table`; rows are {name: nodes of the first cell, cells, marked}. */
function fill(table, caption, columns, rows) {
  const head = columns.map((name) => make("th", { scope: "col" }, name));
  const body = rows.map(({ name, cells, marked }) =>
    make("tr", marked ? { class: "chosen" } : {}, make("th", { scope: "row" }, ...name), ...cells),
  );
  table.replaceChildren(
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...body),
  );
}

/** The next tokens: patch, name, the model's probability and that after the sampling settings. */
export function showCandidates(table, names, codeOf, book, step, caption) {
  const shares = step.candidates.flatMap(({ probability, after }) => [probability, after ?? 0]);
  const most = Math.max(...shares);
  const rows = step.candidates.map(({ id, probability, after }) => {
    const chosen = id === step.id;
    const icon = book && codeOf.has(id) ? [patchOf(book, codeOf.get(id))] : [];
    const cells = [bar(probability, most)];
    if (after !== undefined) cells.push(bar(after, most, "bar after"));
    // A text, never markup: a token may have any name.
    return { name: [...icon, names[id] + (chosen ? " (chosen)" : "")], cells, marked: chosen };
  });
  const columns = ["token", "model", "after sampling settings"].slice(0, rows[0].cells.length + 1);
  fill(table, caption, columns, rows);
}

/** Class probabilities, the largest marked. */
export function showClasses(table, classes, caption = "Classification") {
  const best = classes.indexOf(Math.max(...classes));
  const rows = Array.from(classes, (share, label) => {
    return { name: [String(label)], cells: [bar(share, 1)], marked: label === best };
  });
  fill(table, caption, ["digit", "probability"], rows);
}

/** The most probable class, in words. */
export function classifiedAs(classes) {
  const share = Math.max(...classes);
  return `classified as ${classes.indexOf(share)} (${(100 * share).toFixed(0)}%)`;
}
