// The token grid: painted on a canvas, walked through as an ARIA grid, chosen from.

const CELL = 24; // pixels of the canvas

export class TokenGrid {
  /**
   * @param {HTMLElement} root
   * @param {{rows: number, columns: number, codes: number, palette: number[][]}} shape
   */
  constructor(root, { rows, columns, codes, palette }) {
    Object.assign(this, { rows, columns, codes, palette });
    this.tokens = new Array(rows * columns).fill(codes);
    this.picture = null;
    this.view = 'tokens';
    this.values = null;
    this.marked = new Set();
    this.chosen = new Set();
    this.onchoose = () => {};
    this.paintable = false;
    this.canvas = document.createElement('canvas');
    this.canvas.width = columns * CELL;
    this.canvas.height = rows * CELL;
    this.canvas.setAttribute('aria-hidden', 'true');
    root.replaceChildren(this.canvas, this.makeCells());
    this.draw();
  }

  makeCells() {
    this.cells = [];
    const grid = document.createElement('div');
    grid.className = 'cells';
    grid.setAttribute('role', 'grid');
    grid.setAttribute('aria-label', 'Tokens of the picture');
    grid.setAttribute('aria-multiselectable', 'true');
    grid.style.gridTemplateColumns = `repeat(${this.columns}, 1fr)`;
    for (let r = 0; r < this.rows; r += 1) {
      const row = document.createElement('div');
      row.setAttribute('role', 'row');
      for (let c = 0; c < this.columns; c += 1) {
        const cell = document.createElement('div');
        cell.setAttribute('role', 'gridcell');
        cell.setAttribute('aria-selected', 'false');
        cell.setAttribute('aria-label', `row ${r + 1}, column ${c + 1}`);
        cell.tabIndex = this.cells.length === 0 ? 0 : -1;
        this.cells.push(cell);
        row.append(cell);
      }
      grid.append(row);
    }
    this.focus = 0;
    grid.addEventListener('keydown', (event) => this.key(event));
    grid.addEventListener('pointerdown', (event) => this.press(event));
    grid.addEventListener('pointermove', (event) => this.drag(event));
    this.overlay = grid;
    return grid;
  }

  setPaintable(on) {
    this.paintable = on;
    this.overlay.classList.toggle('paintable', on);
  }

  // What is shown.

  clear() {
    this.show(new Array(this.rows * this.columns).fill(this.codes));
    this.picture = null;
    this.choose([]);
  }

  /** @param {number[]} tokens */
  show(tokens) {
    this.tokens = tokens.slice();
    this.view = 'tokens';
    this.values = null;
    this.marked.clear();
    this.draw();
  }

  /** A step's changes. */
  change(positions, codes) {
    positions.forEach((position, i) => { this.tokens[position] = codes[i]; });
    this.marked = new Set(positions);
    this.view = 'tokens';
    this.draw();
  }

  /** @param {CanvasImageSource} picture */
  showPicture(picture) {
    this.picture = picture;
    this.view = 'picture';
    this.values = null;
    this.marked.clear();
    this.draw();
  }

  /** Values of 0 to 1 as light: over the picture, or from dark to bright. */
  showValues(values, overPicture) {
    this.values = values;
    this.view = overPicture ? 'lit' : 'values';
    this.marked.clear();
    this.draw();
  }

  showMarked(positions) {
    this.marked = new Set(positions);
    this.draw();
  }

  draw() {
    const pen = this.canvas.getContext('2d');
    const { width, height } = this.canvas;
    pen.imageSmoothingEnabled = false;
    if ((this.view === 'picture' || this.view === 'lit') && this.picture) {
      pen.drawImage(this.picture, 0, 0, width, height);
    }
    for (let i = 0; i < this.tokens.length; i += 1) {
      const x = (i % this.columns) * CELL;
      const y = Math.floor(i / this.columns) * CELL;
      if (this.view === 'tokens') this.drawToken(pen, i, x, y);
      if (this.view === 'values') {
        const light = Math.round(255 * this.values[i]);
        pen.fillStyle = `rgb(${light} ${light} ${light})`;
        pen.fillRect(x, y, CELL, CELL);
      }
      if (this.view === 'lit') {
        pen.fillStyle = `rgb(0 0 0 / ${0.85 * (1 - this.values[i])})`;
        pen.fillRect(x, y, CELL, CELL);
      }
      if (this.marked.has(i)) outline(pen, x, y, 2);
      if (this.chosen.has(i)) hatch(pen, x, y);
    }
  }

  drawToken(pen, i, x, y) {
    const token = this.tokens[i];
    const rgb = token >= this.codes ? null : this.palette[token] ?? [128, 128, 128];
    pen.fillStyle = rgb ? `rgb(${rgb.join(' ')})` : '#8a8a94';
    pen.fillRect(x, y, CELL, CELL);
    if (rgb === null) {
      // Masked: a point in the middle, not by colour alone.
      pen.fillStyle = '#5c5c66';
      pen.fillRect(x + CELL / 2 - 2, y + CELL / 2 - 2, 4, 4);
    }
  }

  // What is chosen.

  /** @param {Iterable<number>} positions */
  choose(positions) {
    const before = this.chosen;
    this.chosen = new Set(positions);
    for (const i of new Set([...before, ...this.chosen])) {
      this.cells[i].setAttribute('aria-selected', String(this.chosen.has(i)));
    }
    this.draw();
    this.onchoose(this.chosen);
  }

  invert() {
    const all = [...this.tokens.keys()];
    this.choose(all.filter((i) => !this.chosen.has(i)));
  }

  /** The tokens that a mask picture's white lies over. */
  chooseMask(picture) {
    const canvas = document.createElement('canvas');
    const [w, h] = [this.columns * 8, this.rows * 8];
    canvas.width = w;
    canvas.height = h;
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    pen.drawImage(picture, 0, 0, w, h);
    const { data } = pen.getImageData(0, 0, w, h);
    const chosen = new Set();
    for (let p = 0; p < w * h; p += 1) {
      const [r, g, b, a] = data.slice(4 * p, 4 * p + 4);
      if ((0.299 * r + 0.587 * g + 0.114 * b) * a >= 128 * 255) {
        chosen.add(Math.floor(Math.floor(p / w) / 8) * this.columns + Math.floor((p % w) / 8));
      }
    }
    this.choose(chosen);
  }

  set(i, on) {
    if (this.chosen.has(i) === on) return;
    const next = new Set(this.chosen);
    if (on) next.add(i); else next.delete(i);
    this.choose(next);
  }

  key(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -this.columns], End: [0, this.columns] };
    const move = moves[event.key];
    if (event.key === ' ') {
      event.preventDefault();
      if (this.paintable) this.set(this.focus, !this.chosen.has(this.focus));
      return;
    }
    if (!move) return;
    event.preventDefault();
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    const r = clamp(Math.floor(this.focus / this.columns) + move[0], this.rows - 1);
    const c = clamp((this.focus % this.columns) + move[1], this.columns - 1);
    if (event.shiftKey && this.paintable) this.set(this.focus, true);
    this.moveTo(r * this.columns + c);
    if (event.shiftKey && this.paintable) this.set(this.focus, true);
  }

  moveTo(i) {
    this.cells[this.focus].tabIndex = -1;
    this.focus = i;
    this.cells[i].tabIndex = 0;
    this.cells[i].focus();
  }

  at(event) {
    const box = this.overlay.getBoundingClientRect();
    const c = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
    const r = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    const inside = r >= 0 && c >= 0 && r < this.rows && c < this.columns;
    return inside ? r * this.columns + c : null;
  }

  press(event) {
    const i = this.at(event);
    if (!this.paintable || i === null) return;
    event.preventDefault();
    this.overlay.setPointerCapture(event.pointerId);
    this.brush = !this.chosen.has(i);
    this.set(i, this.brush);
    this.moveTo(i);
  }

  drag(event) {
    if (!this.paintable || event.buttons === 0) return;
    const i = this.at(event);
    if (i !== null) this.set(i, this.brush);
  }
}

function outline(pen, x, y, width) {
  pen.lineWidth = width;
  pen.strokeStyle = '#000';
  pen.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
  pen.strokeStyle = '#fff';
  pen.strokeRect(x + 3, y + 3, CELL - 6, CELL - 6);
}

function hatch(pen, x, y) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, CELL, CELL);
  pen.clip();
  for (const [shift, colour] of [[0, '#000'], [3, '#fff']]) {
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    for (let d = -CELL; d < CELL; d += 8) {
      pen.beginPath();
      pen.moveTo(x + d + shift, y + CELL);
      pen.lineTo(x + d + shift + CELL, y);
      pen.stroke();
    }
  }
  pen.restore();
}
