// The page's side of seqlm/playground/widgets.py: a grid of cells to paint on.
//
// The digits of scikit-learn were bitmaps four times finer than their 8x8 pixels, and a pixel says
// how many of its 4x4 points had ink. The soft brush does the same: a round pen inks fine points,
// and a cell's level, 0..16, is how many of its points have ink. So strokes look like the data.

const FULL = 16;
const FINE = 4; // points a cell, in either direction; FINE * FINE = FULL
const SEND_EVERY = 100; // milliseconds between messages to Python while a stroke goes on
const MOST_UNDOS = 100;
const TOOLS = [
  ["soft", "Soft brush", "Like a pen: full ink in the middle, less at the edge"],
  ["hard", "Hard brush", "Fills one cell at a time"],
  ["erase", "Eraser", "Blanks one cell at a time; so does the right mouse button"],
];
const KEYS_HELP =
  "Arrow keys move from cell to cell. Space or Enter paints with the chosen brush. " +
  "Shift with an arrow key draws a line. Delete or Backspace erases a cell. " +
  "Plus and minus change its ink by one. Control or Command with Z undoes.";
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };


/** Levels (height * width) and the fine points that soft strokes have inked. Points are [x, y] in
 * cells. Painting never lessens what is there. */
export class Picture {
  constructor(height, width, levels) {
    this.height = height;
    this.width = width;
    this.fine = new Uint8Array(height * width * FULL);
    this.set(levels);
  }

  set(levels) {
    this.levels = [...levels];
    // What an erased cell once held must not come back with the next stroke that touches it.
    this.levels.forEach((level, cell) => {
      const points = this.fine.subarray(cell * FULL, (cell + 1) * FULL);
      if (sum(points) > level) points.fill(0);
    });
  }

  /** The cell at a point, or -1 outside. */
  at([x, y]) {
    const inside = x >= 0 && y >= 0 && x < this.width && y < this.height;
    return inside ? Math.floor(y) * this.width + Math.floor(x) : -1;
  }

  centre(cell) {
    return [(cell % this.width) + 0.5, Math.floor(cell / this.width) + 0.5];
  }

  /** A straight piece of a stroke with the round pen. */
  softLine(from, to, pen) {
    const [left, right] = span(from[0], to[0], pen / 2, this.width);
    const [top, bottom] = span(from[1], to[1], pen / 2, this.height);
    for (let row = top; row <= bottom; row++) {
      for (let column = left; column <= right; column++) {
        const cell = row * this.width + column;
        const points = this.fine.subarray(cell * FULL, (cell + 1) * FULL);
        for (let i = 0; i < FULL; i++) {
          const x = column + ((i % FINE) + 0.5) / FINE;
          const y = row + (Math.floor(i / FINE) + 0.5) / FINE;
          if (distance([x, y], from, to) <= pen / 2) points[i] = 1;
        }
        this.levels[cell] = Math.max(this.levels[cell], sum(points));
      }
    }
  }

  /** Every cell on a straight line gets `level`. */
  hardLine(from, to, level) {
    // A quick hand skips cells between two events; steps this small cut no visible corner.
    const steps = Math.ceil(8 * Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let step = 0; step <= steps; step++) {
      const share = step / steps;
      const cell = this.at(from.map((start, axis) => start + share * (to[axis] - start)));
      if (cell >= 0) this.levels[cell] = level;
    }
    this.set(this.levels);
  }

  line(tool, from, to, pen) {
    if (tool === "soft") this.softLine(from, to, pen);
    else this.hardLine(from, to, tool === "hard" ? FULL : 0);
  }
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** First and last cell that a piece from a to b can touch, along one axis. */
function span(a, b, reach, n) {
  const first = Math.floor(Math.min(a, b) - reach);
  const last = Math.floor(Math.max(a, b) + reach);
  return [Math.max(0, first), Math.min(n - 1, last)];
}

/** How far a point lies from the piece between two others. */
function distance([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const along = length ? ((x - ax) * dx + (y - ay) * dy) / length : 0;
  const share = Math.min(1, Math.max(0, along));
  return Math.hypot(x - ax - share * dx, y - ay - share * dy);
}

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const same = (one, other) => one.length === other.length && one.every((x, i) => x === other[i]);

class View {
  constructor(model, el) {
    this.model = model;
    this.tool = "soft";
    this.past = []; // levels before each change, for Undo
    this.stroke = null; // the pointer that paints, while it is down
    this.here = 0; // the one cell that the Tab key reaches
    this.timer = null; // runs while the last message of a stroke is fresh
    this.waiting = false; // whether there is more to send when it ends
    // Several grids on one page need ids of their own, and each widget has a copy of this module.
    this.id = `seqlm-paint-${Math.random().toString(36).slice(2)}`;
    this.stopped = new AbortController();
    this.build(el);
    this.resize();
    this.listen();
  }

  // ------------------------------------------------------------------ the page

  build(el) {
    this.caption = make("div", { class: "seqlm-paint-label", id: `${this.id}-label` });
    this.grid = make("div", {
      class: "seqlm-paint-grid",
      role: "grid",
      "aria-labelledby": `${this.id}-label`,
      "aria-describedby": `${this.id}-help`,
    });
    this.tools = TOOLS.map(([tool, name, title]) =>
      make("button", { type: "button", title, "data-tool": tool, "aria-pressed": "false" }, name),
    );
    this.undoButton = make("button", { type: "button", "data-do": "undo" }, "Undo");
    this.clearButton = make("button", { type: "button", "data-do": "clear" }, "Clear");
    this.status = make("div", {
      class: "seqlm-paint-status",
      role: "status",
      "aria-live": "polite",
    });
    const help = make("p", { id: `${this.id}-help` }, KEYS_HELP);
    this.root = make(
      "div",
      // JupyterLab would take arrow keys, Enter and Delete for commands about notebook cells.
      { class: "seqlm-paint", "data-lm-suppress-shortcuts": "true" },
      this.caption,
      this.grid,
      make("div", { class: "seqlm-paint-bar", role: "group", "aria-label": "Brush" }, ...this.tools),
      make("div", { class: "seqlm-paint-bar" }, this.undoButton, this.clearButton),
      this.status,
      make("details", {}, make("summary", {}, "Painting with the keyboard"), help),
    );
    this.choose(this.tool);
    el.append(this.root);
  }

  /** Build the cells anew, for another height or width. */
  resize() {
    const [height, width] = [this.model.get("height"), this.model.get("width")];
    const blank = new Array(height * width).fill(0);
    const value = this.model.get("value");
    this.stroke = null;
    this.past = [];
    this.here = 0;
    // When the size changes, the value that fits it comes with a message of its own.
    this.picture = new Picture(height, width, value.length === blank.length ? value : blank);
    this.cells = blank.map(() => make("div", { role: "gridcell", tabindex: "-1" }));
    this.shown = []; // the level that each cell shows
    const rows = Array.from({ length: height }, (_, row) =>
      make("div", { role: "row" }, ...this.cells.slice(row * width, (row + 1) * width)),
    );
    this.grid.replaceChildren(...rows);
    this.root.style.setProperty("--seqlm-columns", width);
    this.root.style.setProperty("--seqlm-rows", height);
    this.cells[0].tabIndex = 0;
    this.rename();
    this.draw();
  }

  rename() {
    this.caption.textContent = this.model.get("label");
  }

  describe(cell) {
    const [row, column] = [Math.floor(cell / this.picture.width), cell % this.picture.width];
    return `row ${row + 1}, column ${column + 1}: ink ${this.picture.levels[cell]} of ${FULL}`;
  }

  draw() {
    this.picture.levels.forEach((level, cell) => {
      if (this.shown[cell] === level) return;
      this.shown[cell] = level;
      this.cells[cell].style.setProperty("--seqlm-ink", level / FULL);
      this.cells[cell].setAttribute("aria-label", this.describe(cell));
    });
    // Not `disabled`: that would throw the focus out of a button that was just pressed.
    this.undoButton.setAttribute("aria-disabled", String(!this.past.length));
  }

  announce(text) {
    this.status.textContent = text;
  }

  inked() {
    const inked = this.picture.levels.filter((level) => level > 0).length;
    return `${inked} of ${this.cells.length} cells have ink`;
  }

  // ------------------------------------------------------------------ changes

  remember(levels = this.picture.levels) {
    this.past.push([...levels]);
    if (this.past.length > MOST_UNDOS) this.past.shift();
  }

  /** Hand the picture to Python: now, or soon when a message has just gone. */
  send(now) {
    if (!now && this.timer) {
      this.waiting = true;
      return;
    }
    this.hush();
    // Set only what is sent at once: Python's echo of an older message overwrites all else.
    this.model.set("value", [...this.picture.levels]);
    this.model.save_changes();
    if (now) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.waiting) this.send(false);
    }, SEND_EVERY);
  }

  /** Forget what was to be sent soon. */
  hush() {
    clearTimeout(this.timer);
    this.timer = null;
    this.waiting = false;
  }

  /** One finished change of the picture that Undo can take back. */
  change(edit, sentence) {
    const before = [...this.picture.levels];
    edit();
    if (!same(before, this.picture.levels)) {
      this.remember(before);
      this.draw();
      this.send(true);
    }
    this.announce(sentence());
  }

  clear() {
    const blank = this.picture.levels.map(() => 0);
    this.change(() => this.picture.set(blank), () => "Cleared; Undo brings it back.");
  }

  undo() {
    if (!this.past.length) return this.announce("There is nothing to undo.");
    this.picture.set(this.past.pop());
    this.draw();
    this.send(true);
    this.announce(`Undone: ${this.inked()}.`);
  }

  choose(tool) {
    this.tool = tool;
    this.root.dataset.tool = tool;
    for (const button of this.tools) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
  }

  /** Python, or another view of the same grid, changed the picture. */
  receive() {
    const value = this.model.get("value");
    if (value.length !== this.cells.length || same(value, this.picture.levels)) return;
    this.stroke = null;
    this.hush(); // what was still to be sent is older than what came
    this.remember();
    this.picture.set(value);
    this.draw();
    this.announce(`New picture: ${this.inked()}.`);
  }

  // ------------------------------------------------------------------ mouse, pen, finger

  point(event) {
    const box = this.grid.getBoundingClientRect();
    // Inside the frame, whose width belongs to no cell.
    const x = (event.clientX - box.left - this.grid.clientLeft) / this.grid.clientWidth;
    const y = (event.clientY - box.top - this.grid.clientTop) / this.grid.clientHeight;
    return [x * this.picture.width, y * this.picture.height];
  }

  down(event) {
    if (this.stroke || !event.isPrimary || ![0, 2, 5].includes(event.button)) return;
    event.preventDefault(); // no selection of text, no drag of the page
    const last = this.point(event);
    // Button 2 is the right one, 5 the eraser's end of a pen.
    const tool = event.button === 0 ? this.tool : "erase";
    this.stroke = { pointer: event.pointerId, tool, last, before: [...this.picture.levels] };
    this.grid.setPointerCapture(event.pointerId);
    const cell = this.picture.at(last);
    if (cell >= 0) this.go(cell);
    this.paintTo(last);
  }

  move(event) {
    if (event.pointerId !== this.stroke?.pointer) return;
    // Between two frames a quick hand makes several events; each turns the stroke a little.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.paintTo(this.point(each));
  }

  paintTo(point) {
    const { tool, last } = this.stroke;
    this.picture.line(tool, last, point, this.model.get("pen"));
    this.stroke.last = point;
    this.draw();
    this.send(false);
  }

  up(event) {
    if (event.pointerId !== this.stroke?.pointer) return;
    const { before, tool } = this.stroke;
    this.stroke = null;
    if (!same(before, this.picture.levels)) this.remember(before);
    this.draw();
    this.send(true);
    this.announce(`${tool === "erase" ? "Erased" : "Painted"}: ${this.inked()}.`);
  }

  // ------------------------------------------------------------------ keyboard

  go(cell) {
    this.cells[this.here].tabIndex = -1;
    this.here = cell;
    this.cells[cell].tabIndex = 0;
    this.cells[cell].focus({ preventScroll: this.stroke !== null });
  }

  step([down, right], painting) {
    const { height, width } = this.picture;
    const row = Math.min(height - 1, Math.max(0, Math.floor(this.here / width) + down));
    const column = Math.min(width - 1, Math.max(0, (this.here % width) + right));
    const from = this.here;
    this.go(row * width + column);
    if (painting) this.paint(from, this.here);
  }

  paint(from, to) {
    const ends = [this.picture.centre(from), this.picture.centre(to)];
    const pen = this.model.get("pen");
    this.change(() => this.picture.line(this.tool, ...ends, pen), () => this.sentence(to));
  }

  setLevel(level) {
    const levels = [...this.picture.levels];
    levels[this.here] = Math.min(FULL, Math.max(0, level));
    this.change(() => this.picture.set(levels), () => this.sentence(this.here));
  }

  sentence(cell) {
    const words = this.describe(cell);
    return `${words[0].toUpperCase()}${words.slice(1)}.`;
  }

  key(event) {
    const action = this.action(event);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  /** What a key means here; undefined leaves it to the browser. */
  action(event) {
    const { key, shiftKey } = event;
    const level = this.picture.levels[this.here];
    if (event.ctrlKey || event.metaKey) {
      return key.toLowerCase() === "z" && !shiftKey ? () => this.undo() : undefined;
    }
    if (event.altKey || this.stroke) return undefined;
    if (key in ARROWS) return () => this.step(ARROWS[key], shiftKey);
    if (key === "Home") return () => this.step([0, -this.picture.width]);
    if (key === "End") return () => this.step([0, this.picture.width]);
    if (key === " " || key === "Enter") return () => this.paint(this.here, this.here);
    if (key === "Delete" || key === "Backspace") return () => this.setLevel(0);
    if (key === "+" || key === "=") return () => this.setLevel(level + 1); // = is + unshifted
    if (key === "-" || key === "_") return () => this.setLevel(level - 1);
    return undefined;
  }

  // ------------------------------------------------------------------ beginning and end

  listen() {
    const { signal } = this.stopped;
    const on = (node, name, act) => node.addEventListener(name, act.bind(this), { signal });
    on(this.grid, "pointerdown", this.down);
    on(this.grid, "pointermove", this.move);
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      on(this.grid, name, this.up);
    }
    // The right button erases here, so no menu of the browser or of JupyterLab opens.
    on(this.grid, "contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation();
    });
    on(this.grid, "keydown", this.key);
    on(this.undoButton, "click", this.undo);
    on(this.clearButton, "click", this.clear);
    for (const button of this.tools) on(button, "click", () => this.choose(button.dataset.tool));
    this.heard = {
      "change:value": () => this.receive(),
      "change:height": () => this.resize(),
      "change:width": () => this.resize(),
      "change:label": () => this.rename(),
    };
    for (const [name, act] of Object.entries(this.heard)) this.model.on(name, act);
  }

  close() {
    for (const [name, act] of Object.entries(this.heard)) this.model.off(name, act);
    this.stopped.abort();
    if (this.waiting) this.send(true); // the end of a stroke is not lost with its page
    this.root.remove();
  }
}

function render({ model, el }) {
  const view = new View(model, el);
  return () => view.close();
}

export default { render };
