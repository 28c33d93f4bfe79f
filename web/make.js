// What to make, its progress as the token grid fills, and the pictures.

import { follow, get, imageUrl, post, remove } from './server.js';
import { TokenGrid } from './tokens.js';

const byId = (id) => document.getElementById(id);
const NUMBERS = ['steps', 'guidance', 'truncation', 'top_k', 'purity', 'tokens_per_step'];

/** An <img> of a path on the server. */
export async function image(path, text) {
  const picture = new Image();
  picture.alt = text;
  picture.src = await imageUrl(path);
  await picture.decode();
  return picture;
}

export class Making {
  constructor(page) {
    this.page = page;
    const { model } = page;
    const [rows, columns] = model.grid;
    const shape = { rows, columns, codes: model.codes, palette: model.palette };
    this.grid = new TokenGrid(byId('stage'), shape);
    this.job = null;
    this.shown = null;
    byId('steps').max = model.timesteps;
    byId('n').max = model.limits.n;
    byId('prompt').maxLength = model.limits.prompt;
    for (const id of ['guidance', 'negative_prompt']) byId(id).disabled = !model.guided;
    if (model.subject === 'class') byId('prompt-label').textContent = `Class, 0 to ${model.classes - 1}, or its name`;
    if (model.subject === 'anything') byId('prompt').disabled = true;
    this.recall(model.usual, false);
    byId('wish').addEventListener('submit', (event) => {
      event.preventDefault();
      this.make(this.wish());
    });
    byId('cancel').addEventListener('click', () => this.cancel());
  }

  /** The options as the server takes them. */
  wish() {
    const wish = { times: byId('times').value, order: byId('order').value, n: Number(byId('n').value) };
    if (this.page.model.subject !== 'anything') wish.prompt = byId('prompt').value.trim();
    for (const id of NUMBERS) {
      if (byId(id).value !== '') wish[id] = Number(byId(id).value);
    }
    if (wish.top_k !== undefined) delete wish.truncation;
    const negative = byId('negative_prompt').value.trim();
    if (negative) wish.negative_prompt = negative;
    // As text: seeds may be larger than numbers of JavaScript.
    if (byId('seed').value.trim()) wish.seed = byId('seed').value.trim();
    return wish;
  }

  /** Fills the form; what the settings do not say becomes usual again. */
  recall(settings, withSeed) {
    const all = { ...this.page.model.usual, ...settings };
    if (settings.top_k !== undefined) delete all.truncation;
    for (const id of NUMBERS) byId(id).value = all[id] ?? '';
    byId('times').value = all.times ?? 'even';
    byId('order').value = all.order ?? 'independent';
    byId('negative_prompt').value = all.negative_prompt ?? '';
    if (settings.prompt !== undefined) byId('prompt').value = settings.prompt ?? '';
    if (withSeed) byId('seed').value = settings.seed ?? '';
  }

  busy(on) {
    byId('go').disabled = on;
    byId('redo').disabled = on;
    byId('cancel').disabled = !on;
  }

  async make(wish) {
    const { notice, say } = this.page;
    notice();
    this.busy(true);
    this.page.inside.none();
    if (!wish.picture) this.grid.clear();
    byId('results').replaceChildren();
    byId('progress').value = 0;
    this.pending = [];
    try {
      const job = await post('/api/jobs', wish);
      this.job = job;
      await follow(`/api/jobs/${job.id}/events`, (name, data) => this.heard(name, data, job));
      await Promise.all(this.pending);
      say('finished');
    } catch (error) {
      notice(error);
    } finally {
      this.job = null;
      this.busy(false);
    }
  }

  heard(name, data, job) {
    const caption = byId('caption');
    if (name === 'queued') caption.textContent = data.position === 0 ? 'next' : `${data.position} jobs before this one`;
    if (name === 'step') {
      if (data.done === 0) this.grid.show(new Array(this.grid.tokens.length).fill(this.grid.codes));
      this.grid.change(data.changed, data.codes);
      byId('progress').value = (data.picture + data.done / data.steps) / job.n;
      caption.textContent = `picture ${data.picture + 1} of ${job.n}, step ${data.done} of ${data.steps}`;
      this.page.say(caption.textContent);
    }
    if (name === 'picture') this.pending.push(this.add(data.id));
    if (name === 'error') throw new Error(data.error.message);
    if (name === 'cancelled') caption.textContent = 'cancelled';
  }

  async cancel() {
    if (this.job) await remove(`/api/jobs/${this.job.id}`).catch(this.page.notice);
  }

  /** A finished picture joins the results and is shown. */
  async add(id) {
    const info = await get(`/api/pictures/${id}`);
    const picture = await image(`/api/pictures/${id}/png`, info.label);
    const button = document.createElement('button');
    button.type = 'button';
    button.append(picture);
    button.addEventListener('click', () => this.show(info, picture));
    const item = document.createElement('li');
    item.append(button);
    byId('results').append(item);
    this.show(info, picture);
  }

  /** Puts a picture on the stage. */
  show(info, picture) {
    this.shown = { info, picture };
    this.grid.choose([]);
    this.grid.showPicture(picture);
    byId('caption').textContent = `${info.label}, seed ${info.settings.seed}`;
    this.page.inside.of(info, picture);
    this.page.redraw.of(info);
  }
}
