// Strokes to positions per frame: the same numbers as models/strokes/stroke.py, which a test compares.

/** Slopes at the knots of a monotone cubic through values at rising times (Fritsch and Butland, as in scipy). */
function slopes(times, values) {
  const n = times.length;
  const h = times.slice(1).map((t, i) => t - times[i]);
  const m = h.map((step, i) => (values[i + 1] - values[i]) / step);
  if (n === 2) return [m[0], m[0]];
  const edge = (h0, h1, m0, m1) => {
    const d = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1);
    if (Math.sign(d) !== Math.sign(m0)) return 0;
    return Math.sign(m0) !== Math.sign(m1) && Math.abs(d) > 3 * Math.abs(m0) ? 3 * m0 : d;
  };
  const inner = (k) => {
    if (m[k - 1] * m[k] <= 0) return 0;
    const [w1, w2] = [2 * h[k] + h[k - 1], h[k] + 2 * h[k - 1]];
    return (w1 + w2) / (w1 / m[k - 1] + w2 / m[k]);
  };
  return times.map((_, k) => {
    if (k === 0) return edge(h[0], h[1], m[0], m[1]);
    if (k === n - 1) return edge(h[n - 2], h[n - 3], m[n - 2], m[n - 3]);
    return inner(k);
  });
}

/** The place [x, y] at each moment; before the first time and after the last one it rests. */
function placesAt(points, times, moments) {
  if (points.length === 1) return moments.map(() => [...points[0]]);
  const last = times.length - 1;
  const slope = [0, 1].map((axis) => slopes(times, points.map((p) => p[axis])));
  return moments.map((moment) => {
    const t = Math.min(Math.max(moment, times[0]), times[last]);
    let k = 0;
    while (k < last - 1 && t > times[k + 1]) k += 1;
    const h = times[k + 1] - times[k];
    const s = (t - times[k]) / h;
    return [0, 1].map((axis) => {
      const [a, b] = [points[k][axis], points[k + 1][axis]];
      const [da, db] = [slope[axis][k] * h, slope[axis][k + 1] * h];
      return a + s * (da + s * (3 * (b - a) - 2 * da - db + s * (da + db - 2 * (b - a))));
    });
  });
}

/** Positions in `frames` frames at equal steps of time. */
function positions(points, times, frames) {
  return placesAt(points, times, Array.from({ length: frames }, (_, i) => (frames > 1 ? i / (frames - 1) : 0)));
}

const EASINGS = {
  steady: (u) => u,
  in: (u) => u * u,
  out: (u) => u * (2 - u),
  both: (u) => u * u * (3 - 2 * u),
};

/** Share of the path's length at which each point lies, rising from 0 to 1. */
function lengthShares(points) {
  const sums = [0];
  points.slice(1).forEach((p, i) => sums.push(sums[i] + Math.max(1e-6, Math.hypot(p[0] - points[i][0], p[1] - points[i][1]))));
  return sums.map((sum) => sum / sums[sums.length - 1]);
}

/** What a stroke of the editor is in a trajectory file: points, and times in 0..1. */
function timed(stroke) {
  const { points, start, end, speed } = stroke;
  if (points.length === 1) return { points, times: [0] };
  const span = (shares) => shares.map((share) => start + (end - start) * share);
  if (speed === "drawn" && stroke.times) return { points, times: span(stroke.times) };
  const shares = lengthShares(points);
  if (speed === "steady" || speed === "drawn") return { points, times: span(shares) };
  const steps = Array.from({ length: 13 }, (_, i) => i / 12);
  return { points: placesAt(points, shares, steps.map(EASINGS[speed])), times: span(steps) };
}

/** Which points of a freehand path to keep: the fewest within `tolerance` of it (Ramer, Douglas and Peucker). */
function keptPoints(points, tolerance) {
  const keep = new Set([0, points.length - 1]);
  const visit = (a, b) => {
    const [dx, dy] = [points[b][0] - points[a][0], points[b][1] - points[a][1]];
    const length = Math.hypot(dx, dy);
    let [worst, at] = [tolerance, -1];
    for (let i = a + 1; i < b; i += 1) {
      const [x, y] = [points[i][0] - points[a][0], points[i][1] - points[a][1]];
      const off = length > 1e-9 ? Math.abs(x * dy - y * dx) / length : Math.hypot(x, y);
      if (off > worst) [worst, at] = [off, i];
    }
    if (at < 0) return;
    keep.add(at);
    visit(a, at);
    visit(at, b);
  };
  visit(0, points.length - 1);
  return [...keep].sort((a, b) => a - b);
}
