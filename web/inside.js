// How a picture came about: its steps, their entropy, and where the words looked.

import { get } from './server.js';
import { image } from './make.js';

const byId = (id) => document.getElementById(id);

export class Inside {
  constructor(page) {
    this.page = page;
    this.trace = null;
    byId('trace').addEventListener('click', () => this.look());
    byId('scrub').addEventListener('input', () => this.draw());
    byId('view').addEventListener('change', () => this.draw());
  }

  none() {
    this.info = null;
    this.trace = null;
    byId('inside').disabled = true;
    byId('words').replaceChildren();
    for (const id of ['scrub', 'view']) byId(id).disabled = true;
    byId('scrub-value').textContent = '';
  }

  of(info, picture) {
    this.none();
    this.info = info;
    this.picture = picture;
    byId('inside').disabled = false;
    const link = byId('download');
    link.href = picture.src;
    link.download = `${info.id}.png`;
  }

  async look() {
    const { notice, say } = this.page;
    notice();
    const info = this.info;
    byId('trace').disabled = true;
    say('asking the network again');
    try {
      const trace = await get(`/api/pictures/${info.id}/trace`);
      if (this.info !== info) return; // another was chosen meanwhile
      this.trace = trace;
      this.frames = new Map();
      const scrub = byId('scrub');
      scrub.max = trace.steps.length;
      scrub.value = trace.steps.length;
      for (const id of ['scrub', 'view']) byId(id).disabled = trace.steps.length === 0;
      byId('view').value = 'tokens';
      this.words();
      this.draw();
      say(`${trace.steps.length} steps`);
    } catch (error) {
      notice(error);
    } finally {
      byId('trace').disabled = false;
    }
  }

  words() {
    const buttons = this.trace.words.map((word) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = word.text.trim() || '(rest)';
      button.setAttribute('aria-pressed', 'false');
      button.addEventListener('click', () => this.word(word, button));
      return button;
    });
    byId('words').replaceChildren(...buttons);
  }

  word(word, button) {
    const on = button.getAttribute('aria-pressed') === 'false';
    this.unpress();
    const { grid } = this.page.making;
    if (!on) {
      grid.showPicture(this.picture);
      return;
    }
    button.setAttribute('aria-pressed', 'true');
    const most = Math.max(...word.attention, Number.MIN_VALUE);
    grid.picture = this.picture;
    grid.showValues(word.attention.map((share) => share / most), true);
  }

  unpress() {
    for (const button of byId('words').children) button.setAttribute('aria-pressed', 'false');
  }

  async draw() {
    if (!this.trace) return;
    this.unpress();
    const { grid } = this.page.making;
    const done = Number(byId('scrub').value);
    const view = byId('view').value;
    byId('scrub-value').textContent = `${done} of ${this.trace.steps.length}`;
    const masked = new Array(grid.tokens.length).fill(grid.codes);
    const step = this.trace.steps[done - 1];
    if (!step || view === 'tokens') grid.show(step ? step.tokens : masked);
    else if (view === 'entropy') {
      const most = Math.log(this.trace.codes);
      grid.showValues(step.entropy.map((nats) => Math.min(1, (nats ?? 0) / most)), false);
    } else if (view === 'changed') {
      grid.show(step.tokens);
      grid.showMarked(step.changed);
    } else {
      await this.frame(done);
    }
  }

  async frame(done) {
    const { info, frames } = this;
    if (!frames.has(done)) {
      await new Promise((resolve) => setTimeout(resolve, 150));
      if (Number(byId('scrub').value) !== done) return; // still moving
      frames.set(done, image(`/api/pictures/${info.id}/steps/${done}`, ''));
    }
    try {
      const picture = await frames.get(done);
      const still = this.info === info && Number(byId('scrub').value) === done;
      if (still && byId('view').value === 'picture') this.page.making.grid.showPicture(picture);
    } catch (error) {
      frames.delete(done);
      this.page.notice(error);
    }
  }
}
