// Curves on a canvas, told apart by colour and by dashes.

const LINES = [
  ['#4a2fc4', '#b9a8ff', []],
  ['#b3410a', '#ffb38a', [8, 4]],
  ['#0b6e4f', '#7fe0bd', [2, 3]],
  ['#9b1b60', '#ff9fce', [10, 3, 2, 3]],
  ['#3c5a00', '#c4e37a', [5, 2]],
  ['#005f8f', '#8fd4ff', [12, 6]],
];

const dark = matchMedia('(prefers-color-scheme: dark)');

/** Colour and dashes of line `i`. */
export function style(i) {
  const [light, night, dashes] = LINES[i % LINES.length];
  return { colour: dark.matches ? night : light, dashes };
}

/** The running mean that weighs what is before by `share`, without its bias to 0. */
export function smoothed(points, share) {
  let sum = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    sum = share * sum + (1 - share) * y;
    weight = share * weight + (1 - share);
    return [x, sum / weight];
  });
}

/** Round values between two. */
function ticks(from, to, count) {
  const rough = (to - from || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(from / step) * step; v <= to + step * 1e-9; v += step) found.push(v);
  return found;
}

/** Round values between two powers of ten: each decade's 1, 2 and 5, or its 1 alone. */
function decades(from, to) {
  const parts = to - from > 4 ? [1] : [1, 2, 5];
  const found = [];
  for (let d = Math.floor(from); d <= to; d += 1) found.push(...parts.map((p) => p * 10 ** d));
  const inside = found.filter((v) => Math.log10(v) >= from && Math.log10(v) <= to);
  return inside.length > 1 ? inside : ticks(10 ** from, 10 ** to, 5);
}

const short = (value) => (Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-3)
  ? value.toExponential(1)
  : String(Number(value.toPrecision(4))));

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{points: number[][], line: number}[]} curves
 */
export function draw(canvas, curves, logarithmic) {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const text = getComputedStyle(canvas).color;
  const usable = ([, y]) => Number.isFinite(y) && (!logarithmic || y > 0);
  const all = curves.flatMap((curve) => curve.points.filter(usable));
  if (all.length === 0) return;
  const up = logarithmic ? Math.log10 : (y) => y;
  const bounds = (axis) => all.reduce(
    ([least, most], point) => [Math.min(least, axis(point)), Math.max(most, axis(point))],
    [Infinity, -Infinity],
  );
  const [x0, x1] = bounds(([x]) => x);
  const [y0, y1] = bounds(([, y]) => up(y));
  const [left, right, top, bottom] = [64, 12, 10, 26];
  const px = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right);
  const py = (y) => height - bottom - ((up(y) - y0) / (y1 - y0 || 1)) * (height - top - bottom);

  pen.font = '12px system-ui, sans-serif';
  pen.fillStyle = text;
  pen.strokeStyle = text;
  pen.textAlign = 'right';
  pen.textBaseline = 'middle';
  for (const value of logarithmic ? decades(y0, y1) : ticks(y0, y1, 5)) {
    pen.globalAlpha = 0.25;
    pen.beginPath();
    pen.moveTo(left, py(value));
    pen.lineTo(width - right, py(value));
    pen.stroke();
    pen.globalAlpha = 1;
    pen.fillText(short(value), left - 6, py(value));
  }
  pen.textAlign = 'center';
  pen.textBaseline = 'top';
  for (const tick of ticks(x0, x1, Math.max(2, Math.floor(width / 120)))) {
    pen.fillText(short(tick), px(tick), height - bottom + 6);
  }
  for (const { points, line } of curves) {
    const { colour, dashes } = style(line);
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.setLineDash(dashes);
    pen.beginPath();
    points.filter(usable).forEach(([x, y], i) => {
      if (i === 0) pen.moveTo(px(x), py(y)); else pen.lineTo(px(x), py(y));
    });
    pen.stroke();
  }
  pen.setLineDash([]);
}
