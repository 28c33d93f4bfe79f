// The page: tabs, what the server is, what is dropped on it.

import { get, postFile } from './server.js';
import { Making } from './make.js';
import { Inside } from './inside.js';
import { Redraw } from './redraw.js';
import { Gallery } from './gallery.js';
import { Compare } from './compare.js';
import { Runs } from './runs.js';

const byId = (id) => document.getElementById(id);

/** Says what went wrong, or nothing. */
function notice(problem) {
  byId('notice').textContent = problem ? String(problem.message ?? problem) : '';
}

let said = 0;
let pending = null;
/** Says something to screen readers, at most every two seconds. */
function say(text) {
  clearTimeout(pending);
  const speak = () => { said = Date.now(); byId('live').textContent = text; };
  pending = setTimeout(speak, Math.max(0, said + 2000 - Date.now()));
}

const views = {};

function tabs() {
  const all = [...document.querySelectorAll('[role="tab"]')];
  const open = (tab) => {
    for (const other of all) {
      const on = other === tab;
      other.setAttribute('aria-selected', String(on));
      other.tabIndex = on ? 0 : -1;
      byId(other.getAttribute('aria-controls')).hidden = !on;
      views[other.getAttribute('aria-controls')]?.shown?.(on);
    }
  };
  for (const tab of all) tab.addEventListener('click', () => open(tab));
  byId('tabs').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const usable = all.filter((tab) => !tab.hidden);
    const at = usable.indexOf(document.activeElement);
    const next = usable[(at + step + usable.length) % usable.length];
    next.focus();
    open(next);
  });
  return (name) => open(byId(`tab-${name}`));
}

function drops(recall) {
  const read = async (file) => {
    if (!file) return;
    notice();
    try {
      recall(await postFile('/api/settings', file));
    } catch (error) {
      notice(error);
    }
  };
  addEventListener('dragover', (event) => {
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  addEventListener('dragleave', () => document.body.classList.remove('dropping'));
  addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('dropping');
    read(event.dataTransfer.files[0]);
  });
  byId('settings-file').addEventListener('change', (event) => {
    read(event.target.files[0]);
    event.target.value = '';
  });
}

const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function palette() {
  for (;;) {
    try {
      return await get('/api/palette');
    } catch (error) {
      if (error.status !== 503) throw error;
      byId('model').textContent = 'the model is being loaded…';
      await wait(0.5);
    }
  }
}

async function start() {
  const open = tabs();
  const page = { notice, say, open };
  views.runs = new Runs(page);
  let model;
  try {
    model = await get('/api/model');
  } catch (error) {
    if (error.status !== 503) throw error;
    byId('model').textContent = 'training runs';
    for (const name of ['make', 'gallery', 'compare']) byId(`tab-${name}`).hidden = true;
    open('runs');
    return;
  }
  byId('tab-runs').hidden = !model.runs;
  model.palette = await palette();
  model = { ...model, ...await get('/api/model') };
  byId('model').textContent = `${model.name}, ${model.size.join('×')}, ${model.device} ${model.dtype}`;
  page.model = model;
  page.making = new Making(page);
  page.inside = new Inside(page);
  page.redraw = new Redraw(page);
  views.gallery = new Gallery(page);
  views.compare = new Compare(page);
  drops((settings) => {
    open('make');
    page.making.recall(settings, true);
    say('settings taken from the picture');
  });
}

start().catch(notice);
