// Training runs: curves of their logs, live, and their sample sheets.

import { get, imageUrl } from './server.js';
import { draw, smoothed, style } from './chart.js';

const byId = (id) => document.getElementById(id);
const EVERY = 3000; // milliseconds

/** The numbers of a line of the log, by name; those of lists by name and place. */
function numbers(line) {
  const found = {};
  for (const [name, value] of Object.entries(line)) {
    if (typeof value === 'number') found[name] = value;
    if (Array.isArray(value)) {
      value.forEach((v, i) => { if (typeof v === 'number') found[`${name} ${i + 1}`] = v; });
    }
  }
  return found;
}

export class Runs {
  constructor(page) {
    this.page = page;
    this.runs = [];
    this.logs = new Map();
    this.chosen = new Set();
    this.timer = null;
    for (const id of ['measure', 'log-axis', 'smoothing']) byId(id).addEventListener('input', () => this.draw());
    byId('sheet-run').addEventListener('change', () => this.sheets());
    byId('sheet-step').addEventListener('input', () => this.sheet());
    addEventListener('resize', () => this.draw());
  }

  shown(on) {
    clearTimeout(this.timer);
    if (on) this.watch();
  }

  async watch() {
    try {
      await this.update();
      this.failed = false;
    } catch (error) {
      if (!this.failed) this.page.notice(error);
      this.failed = true;
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.watch(), EVERY);
  }

  async update() {
    const runs = await get('/api/runs');
    const before = this.runs.map((run) => run.id + run.sheets.length).join();
    this.runs = runs;
    byId('runs-empty').hidden = runs.length > 0;
    byId('runs-body').hidden = runs.length === 0;
    if (before !== runs.map((run) => run.id + run.sheets.length).join()) this.list();
    for (const run of runs.filter((one) => this.chosen.has(one.id))) await this.read(run);
    this.measures();
    this.draw();
  }

  list() {
    if (this.chosen.size === 0) {
      const newest = this.runs.reduce((a, b) => (b.changed > a.changed ? b : a), this.runs[0]);
      if (newest) this.chosen.add(newest.id);
    }
    const boxes = this.runs.map((run) => {
      const box = document.createElement('input');
      box.type = 'checkbox';
      box.checked = this.chosen.has(run.id);
      box.addEventListener('change', () => {
        if (box.checked) this.chosen.add(run.id); else this.chosen.delete(run.id);
        this.watch();
      });
      const label = document.createElement('label');
      label.className = 'check';
      label.append(box, ` ${run.name}`);
      return label;
    });
    byId('run-list').replaceChildren(...boxes);
    const select = byId('sheet-run');
    const chosen = select.value;
    const sheeted = this.runs.filter((run) => run.sheets.length > 0);
    select.replaceChildren(...sheeted.map((run) => new Option(run.name, run.id, false, run.id === chosen)));
    this.sheets();
  }

  /** Reads what was added to a log. */
  async read(run) {
    let log = this.logs.get(run.id) ?? { next: 0, lines: [] };
    for (;;) {
      const part = await get(`/api/runs/${run.id}/log?after=${log.next}`);
      const earlier = part.restarted ? [] : log.lines;
      log = { next: part.next, lines: earlier.concat(part.lines.map(numbers)) };
      this.logs.set(run.id, log);
      if (!part.more) return;
    }
  }

  measures() {
    const names = new Set();
    for (const id of this.chosen) {
      for (const line of this.logs.get(id)?.lines ?? []) Object.keys(line).forEach((name) => names.add(name));
    }
    names.delete('step');
    const select = byId('measure');
    const known = [...select.options].map((option) => option.value).join('\n');
    if (known === [...names].join('\n')) return;
    const chosen = select.value || ['loss', 'reconstruction'].find((name) => names.has(name));
    select.replaceChildren(...[...names].map((name) => new Option(name.replaceAll('_', ' '), name, false, name === chosen)));
  }

  draw() {
    const name = byId('measure').value;
    const share = Number(byId('smoothing').value);
    byId('smoothing-value').textContent = share;
    const shown = this.runs.map((run, line) => ({ run, line })).filter(({ run }) => this.chosen.has(run.id));
    const curves = shown.map(({ run, line }) => {
      const lines = this.logs.get(run.id)?.lines ?? [];
      const points = lines.filter((one) => name in one && 'step' in one).map((one) => [one.step, one[name]]);
      return { run, line, points: smoothed(points, share) };
    });
    draw(byId('chart'), curves, byId('log-axis').checked);
    byId('chart').setAttribute('aria-label', `${name.replaceAll('_', ' ')} by step; the last values are in the table below`);
    const rows = curves.map(({ run, line, points }) => {
      const row = document.createElement('tr');
      const swatch = document.createElement('canvas');
      swatch.className = 'swatch';
      swatch.width = 32;
      swatch.height = 8;
      swatch.setAttribute('aria-hidden', 'true');
      const pen = swatch.getContext('2d');
      const { colour, dashes } = style(line);
      pen.strokeStyle = colour;
      pen.lineWidth = 3;
      pen.setLineDash(dashes);
      pen.moveTo(0, 4);
      pen.lineTo(32, 4);
      pen.stroke();
      const heading = document.createElement('th');
      heading.scope = 'row';
      heading.append(swatch, ` ${run.name}`);
      const last = points.at(-1);
      const texts = last ? [`step ${last[0]}`, Number(last[1].toPrecision(5))] : ['', 'nothing yet'];
      row.append(heading, ...texts.map((text) => {
        const cell = document.createElement('td');
        cell.textContent = text;
        return cell;
      }));
      return row;
    });
    byId('last-values').replaceChildren(...rows);
  }

  sheets() {
    const run = this.runs.find((one) => one.id === byId('sheet-run').value);
    const range = byId('sheet-step');
    const atEnd = range.value === range.max;
    range.disabled = !run;
    if (!run) return;
    range.max = run.sheets.length - 1;
    if (atEnd || Number(range.value) > range.max) range.value = range.max;
    this.sheet();
  }

  async sheet() {
    const run = this.runs.find((one) => one.id === byId('sheet-run').value);
    const step = run?.sheets[Number(byId('sheet-step').value)];
    if (step === undefined) return;
    byId('sheet-value').textContent = step;
    const key = `${run.id}/previews/${step}`;
    if (this.sheetKey === key) return;
    this.sheetKey = key;
    try {
      const url = await imageUrl(`/api/runs/${key}`);
      if (this.sheetKey !== key) return;
      const picture = byId('sheet');
      picture.src = url;
      picture.alt = `samples of ${run.name} at step ${step}`;
      picture.hidden = false;
    } catch (error) {
      this.page.notice(error);
    }
  }
}
