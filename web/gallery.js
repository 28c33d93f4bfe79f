// The pictures of the session and of the server's folder.

import { get, remove } from './server.js';
import { image } from './make.js';

const byId = (id) => document.getElementById(id);

export class Gallery {
  constructor(page) {
    this.page = page;
    this.chosen = null;
    this.items = new Map();
    byId('gallery-open').addEventListener('click', () => this.use((info) => this.open(info)));
    byId('gallery-all').addEventListener('click', () => this.use((info) => this.recall(info, true)));
    byId('gallery-but-seed').addEventListener('click', () => this.use((info) => this.recall(info, false)));
    byId('gallery-delete').addEventListener('click', () => this.use((info) => this.delete(info)));
  }

  async shown(on) {
    if (!on) return;
    try {
      await this.update();
    } catch (error) {
      this.page.notice(error);
    }
  }

  async update() {
    const pictures = await get('/api/pictures');
    const list = byId('gallery-list');
    byId('gallery-empty').hidden = pictures.length > 0;
    const known = new Set(pictures.map((info) => info.id));
    for (const [id, { item }] of this.items) {
      if (!known.has(id)) {
        item.remove();
        this.items.delete(id);
      }
    }
    const fresh = pictures.filter((info) => !this.items.has(info.id));
    for (const info of fresh) this.items.set(info.id, { info, item: this.item(info) });
    list.replaceChildren(...pictures.map((info) => this.items.get(info.id).item));
    for (const info of fresh) await this.load(info);
  }

  item(info) {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('aria-label', `${info.label || 'picture'}, seed ${info.settings.seed}`);
    button.addEventListener('click', () => this.choose(info));
    const item = document.createElement('li');
    item.append(button);
    return item;
  }

  async load(info) {
    const entry = this.items.get(info.id);
    if (!entry) return;
    entry.picture = await image(`/api/pictures/${info.id}/png`, '');
    entry.item.firstChild.replaceChildren(entry.picture);
  }

  choose(info) {
    this.chosen = info;
    byId('gallery-detail').hidden = false;
    byId('gallery-title').textContent = info.label || 'picture';
    const rows = Object.entries(info.settings).flatMap(([name, value]) => {
      const term = document.createElement('dt');
      term.textContent = name.replaceAll('_', ' ');
      const said = document.createElement('dd');
      said.textContent = Array.isArray(value) ? value.join(' to ') : String(value);
      return [term, said];
    });
    byId('gallery-settings').replaceChildren(...rows);
    byId('gallery-title').scrollIntoView({ block: 'nearest' });
  }

  use(work) {
    if (this.chosen) work(this.chosen);
  }

  open(info) {
    const entry = this.items.get(info.id);
    if (!entry?.picture) return;
    this.page.open('make');
    this.page.making.show(info, entry.picture);
  }

  recall(info, withSeed) {
    this.page.making.recall(info.settings, withSeed);
    this.page.open('make');
    this.page.say('settings taken');
  }

  async delete(info) {
    if (!confirm('Delete this picture, and its file if it has one?')) return;
    try {
      await remove(`/api/pictures/${info.id}`);
      this.chosen = null;
      byId('gallery-detail').hidden = true;
      await this.update();
    } catch (error) {
      this.page.notice(error);
    }
  }
}
