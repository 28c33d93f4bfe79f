// Parts of a picture drawn anew: tokens that are painted, or those under a mask.

const byId = (id) => document.getElementById(id);

export class Redraw {
  constructor(page) {
    this.page = page;
    this.info = null;
    const { grid } = page.making;
    grid.onchoose = (chosen) => this.chose(chosen);
    byId('paint').addEventListener('click', () => this.paint(!grid.paintable));
    byId('select-none').addEventListener('click', () => grid.choose([]));
    byId('select-invert').addEventListener('click', () => grid.invert());
    byId('strength').addEventListener('input', () => this.strength());
    byId('redo').addEventListener('click', () => this.redo());
    byId('mask-file').addEventListener('change', (event) => this.mask(event.target));
  }

  /** A picture that can be redrawn is on the stage. */
  of(info) {
    this.info = info;
    byId('redraw').disabled = false;
  }

  paint(on) {
    this.page.making.grid.setPaintable(on);
    byId('paint').setAttribute('aria-pressed', String(on));
  }

  chose(chosen) {
    const count = chosen.size;
    byId('selected').textContent = count === 0 ? 'no tokens chosen' : `${count} tokens chosen`;
  }

  strength() {
    byId('strength-value').textContent = byId('strength').value;
  }

  async mask(input) {
    const [file] = input.files;
    input.value = '';
    if (!file) return;
    const picture = new Image();
    picture.src = URL.createObjectURL(file);
    try {
      await picture.decode();
      this.page.making.grid.chooseMask(picture);
    } catch {
      this.page.notice('the mask is not a picture that the browser reads');
    } finally {
      URL.revokeObjectURL(picture.src);
    }
  }

  redo() {
    const { making } = this.page;
    const wish = { ...making.wish(), picture: this.info.id, strength: Number(byId('strength').value) };
    const chosen = [...making.grid.chosen].sort((a, b) => a - b);
    if (chosen.length > 0) wish.redraw = chosen;
    this.paint(false);
    making.grid.choose([]);
    making.make(wish);
  }
}
