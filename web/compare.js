// Pictures side by side: one option by rows, another by columns.

import { follow, post, remove } from './server.js';
import { image } from './make.js';

const byId = (id) => document.getElementById(id);
const OPTIONS = ['guidance', 'truncation', 'steps', 'seed'];
const MOST = 64;

/** The values in a list, as the server takes them. */
function values(text, option) {
  const parts = text.split(/[\s,;]+/).filter(Boolean);
  return option === 'seed' ? parts : parts.map(Number);
}

export class Compare {
  constructor(page) {
    this.page = page;
    for (const [id, chosen] of [['row-option', 'guidance'], ['column-option', 'seed']]) {
      const options = OPTIONS.map((name) => new Option(name, name, name === chosen, name === chosen));
      byId(id).replaceChildren(...options);
    }
    byId('row-values').value = [...new Set([1, page.model.usual.guidance, 3])].sort((a, b) => a - b).join(', ');
    byId('column-values').value = '0, 1, 2';
    byId('compare-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.run();
    });
    byId('compare-cancel').addEventListener('click', () => this.cancel());
  }

  cancel() {
    this.stopped = true;
    if (this.job) remove(`/api/jobs/${this.job.id}`).catch(this.page.notice);
  }

  async run() {
    const { notice, making, say } = this.page;
    notice();
    const row = byId('row-option').value;
    const column = byId('column-option').value;
    const rows = values(byId('row-values').value, row);
    const columns = values(byId('column-values').value, column);
    if (row === column) return notice('rows and columns are the same option');
    if (rows.length * columns.length === 0 || rows.length * columns.length > MOST) {
      return notice(`expected 1 to ${MOST} pictures in all`);
    }
    const cells = this.table(row, rows, column, columns);
    // One seed for all, where it is not compared.
    const base = { seed: String(Math.floor(Math.random() * 2 ** 31)), ...making.wish(), n: 1 };
    if (row === 'truncation' || column === 'truncation') delete base.top_k;
    this.stopped = false;
    byId('compare-cancel').disabled = false;
    try {
      for (const [r, down] of rows.entries()) {
        for (const [c, across] of columns.entries()) {
          if (this.stopped) return;
          await this.one({ ...base, [row]: down, [column]: across }, cells[r][c]);
          say(`${r * columns.length + c + 1} of ${rows.length * columns.length}`);
        }
      }
    } catch (error) {
      notice(error);
    } finally {
      byId('compare-cancel').disabled = true;
    }
  }

  async one(wish, cell) {
    const job = await post('/api/jobs', wish);
    this.job = job;
    let id = null;
    await follow(`/api/jobs/${job.id}/events`, (name, data) => {
      if (name === 'picture') id = data.id;
      if (name === 'error') throw new Error(data.error.message);
    });
    this.job = null;
    if (id) cell.replaceChildren(await image(`/api/pictures/${id}/png`, cell.dataset.text));
  }

  table(row, rows, column, columns) {
    const table = byId('compare-table');
    const head = document.createElement('tr');
    const corner = document.createElement('td');
    corner.textContent = `${row} \\ ${column}`;
    head.append(corner, ...columns.map((value) => heading(value, 'col')));
    const cells = [];
    const lines = rows.map((down) => {
      const line = document.createElement('tr');
      const places = columns.map((across) => {
        const cell = document.createElement('td');
        cell.dataset.text = `${row} ${down}, ${column} ${across}`;
        cell.textContent = '…';
        return cell;
      });
      cells.push(places);
      line.append(heading(down, 'row'), ...places);
      return line;
    });
    table.replaceChildren(head, ...lines);
    return cells;
  }
}

function heading(text, scope) {
  const cell = document.createElement('th');
  cell.scope = scope;
  cell.textContent = text;
  return cell;
}
